"""A page to search an index with pictures, which says when it is not sure.

Everything it shows comes from the index, small copies of the images included: no file is served from anywhere else,
and nothing is loaded from other hosts.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from idml_hf.index.index import IDMLIndex
from idml_hf.index.results import SearchResult
from idml_hf.modeling_idml import IDMLModel

from .contents import ALL_CLASSES, AppContents
from .editing import Editor, is_loopback
from .html import NAMES, STYLE
from .uploads import save_table, search_all

MAX_UPLOAD = "20mb"
PASSWORD_VARIABLE = "IDML_HF_APP_PASSWORD"
"""Environment variable with the password that changes from other machines take."""

# a page may load only what this server sends
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' ws: wss:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'"
)


def build_app(index: IDMLIndex, title: str = "Image search", editor: Editor | None = None) -> Any:
    """The page as `gradio.Blocks`; its programming interface is `/search`, from a picture to its matches as JSON.

    Args:
        index: the index to search; its model is loaded here, so that the first query does not wait for it.
        title: what to call it.
        editor: what changes the index; None for a page that cannot.

    Raises:
        ImportError: if Gradio is not installed.
        FileNotFoundError, ValueError: if the model of the index cannot be loaded.
    """
    try:
        import gradio as gr
    except ImportError as error:
        raise ImportError('the app needs Gradio: pip install "idml-hf[app]"') from error
    contents = AppContents(index, title)
    assert index.model is not None
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal"}
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(600, 600)) as app:
        heading = gr.Markdown(contents.heading)
        with gr.Tab("Search"):
            _search_tab(gr, contents, private)
        with gr.Tab("Many pictures"):
            _many_tab(gr, contents, private)
        with gr.Tab("Collection"):
            _collection_tab(gr, contents, private, app)
        if editor is not None:
            with gr.Tab("Change"):
                _change_tab(gr, contents, editor, heading, private)
    return app


def _search_tab(gr: Any, contents: AppContents, private: dict[str, Any]) -> None:
    calibration = contents.index.calibration
    percent = None if calibration is None else 100 * calibration.error_rate

    def ask(
        path: str | None, more: list[str] | None, class_name: str, error_percent: float | None
    ) -> tuple[Any, str, str]:
        paths = [*([] if path is None else [path]), *(more or [])]
        result = _said(gr, contents.search, paths, class_name) if paths else None
        return result, contents.verdict(result, error_percent), contents.matches(result)

    def move(result: SearchResult | None, error_percent: float) -> tuple[str, str]:
        return contents.promise(error_percent), contents.verdict(result, error_percent)

    def answer_of(image: str) -> dict[str, Any]:
        entry = _said(gr, contents.search, [image]).to_dicts()[0]
        # clients take what is called "path" for a file to fetch
        matches = [{"file" if name == "path" else name: value for name, value in m.items()} for m in entry["matches"]]
        return entry | {"query": "", "matches": matches}

    state = gr.State()
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            # its file as it came: the index decodes it, within its limits
            image = gr.Image(
                label="Your picture",
                type="filepath",
                image_mode=None,
                sources=["upload", "clipboard", "webcam"],
                height=260,
            )
            with gr.Row():
                for number, file in enumerate(_example_files(contents), 1):
                    example = gr.Button(f"Example {number}", icon=file, size="sm", min_width=90)
                    example.click(lambda file=file: file, outputs=image, **private)
            with gr.Accordion("More pictures of the same thing", open=False):
                more = gr.File(label="They are searched for together", file_count="multiple", file_types=["image"])
            one_class = gr.Dropdown(contents.classes, value=ALL_CLASSES, label="Look among", filterable=True)
            slider = gr.Slider(
                1, 50, percent or 10, step=1, label="Accepted share of wrong answers, %", visible=percent is not None
            )
            promise = gr.Markdown(contents.promise(percent))
        with gr.Column(scale=2, min_width=280):
            answer = gr.HTML(contents.verdict(None, None), elem_id="verdict")
            found = gr.HTML(elem_id="matches")
    asked = [image, more, one_class, slider]
    for component in (image, more, one_class):
        component.change(ask, asked, [state, answer, found], **private)
    slider.change(move, [state, slider], [promise, answer], **private)
    # for programs: a picture in, its matches out
    picture = gr.Image(type="filepath", image_mode=None, visible=False)
    gr.Button(visible=False).click(answer_of, picture, gr.JSON(visible=False), api_name="search")


def _many_tab(gr: Any, contents: AppContents, private: dict[str, Any]) -> None:
    def ask_all(paths: list[str] | None) -> tuple[list[list[Any]], Any, str]:
        if not paths:
            return [], gr.update(visible=False), ""
        table, bad = _said(gr, search_all, contents.index, paths)
        rows = [[row[name] for name in shown] for row in table.to_pylist()]
        file = save_table(table, Path(tempfile.mkdtemp(prefix="idml-hf-")))
        words = "; ".join(f"{name} {reason}" for name, reason in bad[:20])
        return rows, gr.update(value=file, visible=True), f"{len(bad)} pictures cannot be read: {words}" if bad else ""

    shown = ["query", "class", "score", "confidence", "abstained", "path"]
    gr.Markdown("Pictures, a folder of them, or a ZIP archive in; a table with the best match of each out.")
    with gr.Row():
        files = gr.File(label="Pictures or ZIP archives", file_count="multiple", file_types=["image", ".zip"])
        folder = gr.File(label="A folder", file_count="directory")
    button = gr.Button("Search for all", variant="primary")
    remarks = gr.Markdown(elem_id="unreadable")
    table = gr.Dataframe(headers=shown, interactive=False, wrap=True, elem_id="table")
    download = gr.DownloadButton("Download as CSV", visible=False)
    button.click(
        lambda some, whole: ask_all([*(some or []), *(whole or [])]),
        [files, folder],
        [table, download, remarks],
        **private,
    )


def _collection_tab(gr: Any, contents: AppContents, private: dict[str, Any], app: Any) -> None:
    gr.Markdown("## Most uncertain images")
    uncertain = gr.HTML(contents.uncertain(), elem_id="uncertain")
    gr.Markdown("## Map")
    draw = gr.Button("Draw a map of some classes")
    draw.click(contents.map, outputs=gr.HTML(elem_id="map"), **private)
    gr.Markdown("## Near duplicates")
    with gr.Row():
        alike = gr.Slider(0.8, 1.0, 0.98, step=0.005, label="Similarity from which on a pair counts")
        button = gr.Button("Find pairs")
    duplicates = gr.HTML(elem_id="duplicates")
    button.click(contents.duplicates, alike, duplicates, **private)
    app.load(contents.uncertain, outputs=uncertain, **private)


def _change_tab(gr: Any, contents: AppContents, editor: Editor, heading: Any, private: dict[str, Any]) -> None:
    def changed(done: Any, *arguments: Any) -> tuple[str, str]:
        said = _said(gr, done, *arguments)
        contents.refresh()
        return said, contents.heading

    password = gr.Textbox(label="Password", type="password", visible=editor.password is not None)
    with gr.Row():
        with gr.Column(min_width=280):
            files = gr.File(label="Pictures to add", file_count="multiple", file_types=["image", ".zip"])
            name = gr.Textbox(label="Their class", placeholder="unknown")
            add = gr.Button("Add")
        with gr.Column(min_width=280):
            ids = gr.Textbox(label="Ids of images to remove", placeholder="3, 14, 15")
            remove = gr.Button("Remove")
    done = gr.Markdown(elem_id="changed")
    add.click(
        lambda paths, to, word: changed(editor.add, paths or [], to or "", word or ""),
        [files, name, password],
        [done, heading],
        **private,
    )
    remove.click(
        lambda which, word: changed(editor.remove, which or "", word or ""),
        [ids, password],
        [done, heading],
        **private,
    )


def _said(gr: Any, function: Any, *arguments: Any) -> Any:
    """What a function gives; what is wrong with its input is said on the page."""
    try:
        return function(*arguments)
    except (ValueError, PermissionError) as error:
        raise gr.Error(str(error)) from error


def _example_files(contents: AppContents) -> list[str]:
    """The examples as files, since the page sends files only."""
    folder = Path(tempfile.mkdtemp(prefix="idml-hf-"))
    files = []
    for number, data in enumerate(contents.examples(), 1):
        file = folder / f"example {number}.png"
        file.write_bytes(data)
        files.append(str(file))
    return files


def launch_app(
    index: str | Path | IDMLIndex,
    model: IDMLModel | str | Path | None = None,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    title: str = "Image search",
    block: bool = True,
    password: str | None = None,
) -> Any:
    """Serve the page until interrupted.

    Args:
        index: the index, its folder or its Hub id.
        model: the model that made it, if it is not where it was.
        host: address to listen on; "0.0.0.0" lets other machines in.
        port: port; default: the first free one from 7860 on.
        title: what to call the page.
        block: whether to wait until interrupted.
        password: what a change of the index takes; default: the environment's `IDML_HF_APP_PASSWORD`. Without one the
            index can be changed only where `host` is this machine alone. A change is saved where the index lies.

    Returns:
        The running `gradio.Blocks`; its `local_url` is the address, `close()` ends it.

    Raises:
        ImportError: if Gradio is not installed.
        FileNotFoundError, ValueError: if index or model cannot be loaded.
        OSError: if the port is taken.
    """
    folder = None if isinstance(index, IDMLIndex) or not Path(index).is_dir() else Path(index)
    if not isinstance(index, IDMLIndex):
        index = IDMLIndex.load(index, model)
    password = password or os.environ.get(PASSWORD_VARIABLE) or None
    editor = Editor(index, folder, password) if password or is_loopback(host) else None
    app = build_app(index, title, editor)
    import gradio as gr
    from starlette.middleware import Middleware

    app.launch(
        server_name=host,
        server_port=port,
        prevent_thread_lock=not block,
        share=False,
        show_error=True,
        max_file_size=MAX_UPLOAD,
        allowed_paths=[],
        footer_links=[],
        ssr_mode=False,
        quiet=not block,
        theme=gr.themes.Default(primary_hue="indigo", font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        css=STYLE,
        js=NAMES,
        app_kwargs={"middleware": [Middleware(_OwnContentOnly)]},
    )
    return app


class _OwnContentOnly:
    """ASGI middleware that tells browsers to load nothing from other hosts."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", []), (b"content-security-policy", _POLICY.encode())]
                message = {**message, "headers": [*headers, (b"x-content-type-options", b"nosniff")]}
            await send(message)

        await self.app(scope, receive, send_with_policy)


__all__ = ["AppContents", "build_app", "launch_app"]
