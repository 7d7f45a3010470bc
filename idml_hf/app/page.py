"""A page to search an index with pictures, which says when it is not sure.

Everything it shows comes from the index, small copies of the images included: no file is served from anywhere else,
and nothing is loaded from other hosts.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from idml_hf.data import UnreadableImageError
from idml_hf.index.index import IDMLIndex
from idml_hf.index.results import SearchResult
from idml_hf.modeling_idml import IDMLModel

from .html import STYLE, Card, Judged, cards, pairs, verdict

MAX_UPLOAD = "20mb"
UNCERTAIN_SHOWN = 24
PAIRS_SHOWN = 24
MATCHES = 8

# a page may load only what this server sends
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' ws: wss:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'"
)


class AppContents:
    """What the page shows, as HTML; knows nothing of Gradio.

    Args:
        index: the index to search.
        title: what to call it.
    """

    def __init__(self, index: IDMLIndex, title: str = "Image search") -> None:
        self.index, self.title = index, title
        uncertainty = index.gallery.uncertainty
        self.most_uncertain = np.argsort(-uncertainty, kind="stable")[:UNCERTAIN_SHOWN]
        self.sorted_uncertainty = np.sort(uncertainty)

    def search(self, path: str) -> SearchResult:
        """The matches of an uploaded image.

        Raises:
            UnreadableImageError: if it is broken or too large; the message does not tell where it lies.
        """
        try:
            return self.index.search(path, k=MATCHES)
        except UnreadableImageError as error:
            raise UnreadableImageError(str(error).replace(path, "The image")) from error

    def verdict(self, result: SearchResult | None, error_percent: float | None) -> str:
        """Whether the first match is an answer, and the bars of confidence and uncertainty."""
        if result is None:
            return ""
        rank = float(np.searchsorted(self.sorted_uncertainty, result.uncertainty[0]) / len(self.sorted_uncertainty))
        name = str(result.names[0, 0]) or str(result.paths[0, 0]) or f"image {result.ids[0, 0]}"
        judged, calibration = None, self.index.calibration
        if result.verdict is not None and calibration is not None and error_percent is not None:
            error_rate = error_percent / 100
            moved = replace(result.verdict, bar=calibration.bar(error_rate), error_rate=error_rate)
            reason = replace(result, verdict=moved).reason(0)
            judged = Judged(float(moved.confidence[0]), moved.bar, reason)
        return verdict(name, judged, float(result.uncertainty[0]), rank)

    def promise(self, error_percent: float | None) -> str:
        """What an accepted error rate means for how many queries are answered."""
        calibration = self.index.calibration
        if calibration is None or error_percent is None:
            return "This index is not calibrated, so it cannot say when it may be wrong."
        row = calibration.table([error_percent / 100])[0]
        if row["bar"] is None:
            text = f"No confidence is enough to promise at most {error_percent:g} % wrong answers: it always abstains."
            return f"{text} It would take about {row['more_classes']} more classes." if row["more_classes"] else text
        return (
            f"To be wrong in at most {error_percent:g} % of its answers, it answers {row['answered']:.0%} of such "
            f"queries as it was calibrated with, and abstains from {1 - row['answered']:.0%}; at best, in hindsight, "
            f"{row['hindsight']:.0%} could be answered. It reckons with {calibration.absent:.0%} of queries whose "
            "class the collection lacks."
        )

    def matches(self, result: SearchResult | None) -> str:
        """The matches, best first."""
        if result is None:
            return ""
        found = []
        positions = self.index.gallery.positions(result.ids[0][result.ids[0] >= 0])
        for rank, position in enumerate(positions):
            score = result.scores[0, rank]
            found.append(self._card(position, f"{rank + 1}. similarity {score:.3f}"))
        return cards(found)

    def uncertain(self) -> str:
        """The images of the collection that the model is least certain of."""
        return cards([self._card(position, f"{rank}.") for rank, position in enumerate(self.most_uncertain, 1)])

    def duplicates(self, threshold: float) -> str:
        """Pairs of the collection that look nearly the same."""
        found = self.index.near_duplicates(threshold, PAIRS_SHOWN)
        positions = self.index.gallery.positions(found.ids.ravel()).reshape(-1, 2)
        return pairs(
            [
                (self._card(a, ""), self._card(b, ""), f"similarity {score:.4f}")
                for (a, b), score in zip(positions, found.scores, strict=True)
            ]
        )

    def _card(self, position: int, caption: str) -> Card:
        gallery = self.index.gallery
        uncertainty = float(gallery.uncertainty[position])
        return Card(
            image=None if gallery.thumbnails is None else gallery.thumbnails[int(position)],
            name=gallery.name_of(int(gallery.labels[position])) or Path(gallery.paths[int(position)].as_py()).name,
            caption=caption,
            uncertainty=uncertainty,
            rank=float(np.searchsorted(self.sorted_uncertainty, uncertainty) / len(self.sorted_uncertainty)),
        )


def build_app(index: IDMLIndex, title: str = "Image search") -> Any:
    """The page as `gradio.Blocks`.

    Args:
        index: the index to search; its model is loaded here, so that the first query does not wait for it.
        title: what to call it.

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
    classes = np.count_nonzero(np.unique(index.gallery.labels) >= 0)
    percent = None if index.calibration is None else 100 * index.calibration.error_rate

    def search(path: str | None, error_percent: float | None) -> tuple[Any, str, str]:
        if path is None:
            return None, "", ""
        try:
            result = contents.search(path)
        except UnreadableImageError as error:
            raise gr.Error(str(error)) from error
        return result, contents.verdict(result, error_percent), contents.matches(result)

    def move(result: SearchResult | None, error_percent: float) -> tuple[str, str]:
        return contents.promise(error_percent), contents.verdict(result, error_percent)

    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal"}
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(600, 600)) as app:
        gr.Markdown(f"# {title}\n{len(index)} images of {classes} classes")
        with gr.Tab("Search"):
            state = gr.State()
            with gr.Row():
                with gr.Column(scale=1, min_width=280):
                    # its file as it came: the index decodes it, within its limits
                    image = gr.Image(
                        label="Query", type="filepath", image_mode=None, sources=["upload", "clipboard"], height=260
                    )
                    slider = gr.Slider(
                        1,
                        50,
                        percent or 10,
                        step=1,
                        label="Accepted share of wrong answers, %",
                        visible=percent is not None,
                    )
                    promise = gr.Markdown(contents.promise(percent))
                with gr.Column(scale=2, min_width=280):
                    answer = gr.HTML(elem_id="verdict")
                    found = gr.HTML(elem_id="matches")
        with gr.Tab("Collection"):
            gr.Markdown("### Most uncertain images")
            gr.HTML(contents.uncertain(), elem_id="uncertain")
            gr.Markdown("### Near duplicates")
            with gr.Row():
                alike = gr.Slider(0.8, 1.0, 0.98, step=0.005, label="Similarity from which on a pair counts")
                button = gr.Button("Find pairs")
            duplicates = gr.HTML(elem_id="duplicates")
        image.change(search, [image, slider], [state, answer, found], **private)
        slider.change(move, [state, slider], [promise, answer], **private)
        button.click(contents.duplicates, alike, duplicates, **private)
    return app


def launch_app(
    index: str | Path | IDMLIndex,
    model: IDMLModel | str | Path | None = None,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    title: str = "Image search",
    block: bool = True,
) -> Any:
    """Serve the page until interrupted.

    Args:
        index: the index, its folder or its Hub id.
        model: the model that made it, if it is not where it was.
        host: address to listen on; "0.0.0.0" lets other machines in.
        port: port; default: the first free one from 7860 on.
        title: what to call the page.
        block: whether to wait until interrupted.

    Returns:
        The running `gradio.Blocks`; its `local_url` is the address, `close()` ends it.

    Raises:
        ImportError: if Gradio is not installed.
        FileNotFoundError, ValueError: if index or model cannot be loaded.
        OSError: if the port is taken.
    """
    if not isinstance(index, IDMLIndex):
        index = IDMLIndex.load(index, model)
    app = build_app(index, title)
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
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        css=STYLE,
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
