from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from idml_hf import IDMLIndex, IDMLModel
from idml_hf.app.contents import ALL_CLASSES, AppContents
from idml_hf.app.editing import Editor
from idml_hf.app.html import ANSWER
from idml_hf.app.page import launch_app
from idml_hf.app.uploads import read_uploads, save_table, search_all
from idml_hf.confidence.calibration import Calibration
from idml_hf.confidence.risk_control import RiskControl
from idml_hf.data import ImageSet, UnreadableImageError, load_images

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def emoji() -> ImageSet:
    return load_images("emoji-mini", split="test").select(range(60))


@pytest.fixture(scope="module")
def index(emoji: ImageSet) -> IDMLIndex:
    """Confident at 60 % of every image; at 10 % accepted errors an answer takes 90 %, at 50 % nothing."""
    model = IDMLModel.from_backbone("test_efficientnet", pretrained=False, embedding_dim=16, image_size=48)
    index = IDMLIndex.build(model, emoji.select(range(1, 60)), progress=False)
    risk = RiskControl(
        thresholds=[0.9, 0.5],
        answered=[0.25, 1.0],
        error=[0.0, 0.3],
        bound=[0.05, 0.4],
        effective=[60.0, 240.0],
        expected=[0.0, 0.3],
        units=[60.0, 240.0],
    )
    index.calibration = Calibration(
        signals=["similarity"],
        mean=[0.0],
        scale=[1.0],
        weights=[0.0],
        bias=float(np.log(0.6 / 0.4)),
        risk=risk,
        error_rate=0.1,
        metric="cosine",
        auroc=0.5,
        accuracy=0.7,
        queries=400,
        lone_queries=0,
    )
    return index


@pytest.fixture
def query(emoji: ImageSet, tmp_path: Path) -> str:
    path = tmp_path / "query.png"
    emoji[0].save(path)
    return str(path)


def test_the_slider_turns_an_answer_into_not_sure(index: IDMLIndex, query: str) -> None:
    contents = AppContents(index)
    result = contents.search([query])
    assert "Not sure" in contents.verdict(result, 10) and "takes a confidence of 90%" in contents.verdict(result, 10)
    assert "Not sure" not in contents.verdict(result, 50) and "60%" in contents.verdict(result, 50)
    assert "answers 25% of such queries" in contents.promise(10)
    assert "answers 100% of such queries" in contents.promise(50)
    assert "always abstains" in contents.promise(1)
    assert contents.matches(result).count("<img") == 8


def test_without_calibration_nothing_is_promised(query: str, index: IDMLIndex) -> None:
    plain = IDMLIndex(index.gallery, index.reference, processor=index.processor)
    plain._model = index.model
    contents = AppContents(plain)
    assert "not calibrated" in contents.promise(None)
    assert contents.verdict(contents.search([query]), None).count("idml-bar") == 1
    assert "of the 59 images" in contents.verdict(None, None) and contents.matches(None) == ""


def test_names_from_an_index_cannot_run_in_the_page() -> None:
    evil = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'
    index = IDMLIndex.from_embeddings(np.eye(4), labels=[0] * 4, class_names=[evil], paths=[evil] * 4)
    contents = AppContents(index)
    shown = contents.verdict(index.search_embeddings(np.eye(4)[:1]), 10) + contents.uncertain()
    shown += contents.matches(index.search_embeddings(np.eye(4)[:1])) + contents.duplicates(-1.0)
    assert "<script" not in shown and "<img" not in shown and "&lt;script&gt;" in shown


def test_the_collection_shows_what_is_uncertain_and_what_is_alike() -> None:
    u = np.array([[1.0], [9.0], [5.0]])
    index = IDMLIndex.from_embeddings(np.eye(3)[[0, 0, 1]], u, labels=[0, 1, 2], class_names=["a", "b", "c"])
    contents = AppContents(index)
    shown = contents.uncertain()
    assert shown.index(">b<") < shown.index(">c<") < shown.index(">a<")
    assert contents.duplicates(0.99).count("similarity 1.0000") == 1
    assert "no such pairs" in AppContents(IDMLIndex.from_embeddings(np.eye(2))).duplicates(0.99)


def test_the_map_is_drawn_where_there_are_classes(index: IDMLIndex) -> None:
    assert AppContents(index).map().startswith('<img class="idml-drawing" alt="Map')
    assert "too few" in AppContents(IDMLIndex.from_embeddings(np.eye(3))).map()


def test_a_bad_upload_is_said_without_telling_where_it_lies(index: IDMLIndex, tmp_path: Path) -> None:
    Image.new("1", (8_000, 8_000)).save(tmp_path / "huge.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
    messages = {"huge.png": "The image has 8000 x 8000 pixels", "broken.jpg": "The image has a broken header"}
    for name, message in messages.items():
        with pytest.raises(UnreadableImageError, match=message) as error:
            AppContents(index).search([str(tmp_path / name)])
        assert str(tmp_path) not in str(error.value)


@pytest.fixture(scope="module")
def served(index: IDMLIndex, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("gradio")
    patch = pytest.MonkeyPatch()
    patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
    app = launch_app(index, block=False, title="Emoji search")
    yield app.local_url.rstrip("/")
    app.close()
    patch.undo()


def test_no_file_outside_is_served_and_uploads_are_limited(served: str, tmp_path: Path) -> None:
    httpx = pytest.importorskip("httpx")
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    for path in (secret, Path(__file__), Path("pyproject.toml"), Path("/etc/passwd")):
        answer = httpx.get(f"{served}/gradio_api/file={path}")
        assert answer.status_code in (403, 404) and "secret" not in answer.text.replace(str(path), "")
    for path in ("/file=/etc/passwd", "/gradio_api/file=../../../../etc/passwd", "/..%2f..%2fetc/passwd"):
        answer = httpx.get(served + path)
        assert answer.status_code >= 400 and "root:" not in answer.text
    large = httpx.post(f"{served}/gradio_api/upload", files={"files": ("a.png", b"0" * 21 * 2**20)}, timeout=60)
    assert large.status_code == 413
    page = httpx.get(served)
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert httpx.get(f"{served}/gradio_api/info").json()["named_endpoints"].keys() == {"/search"}


@pytest.fixture
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    arguments = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
    ]
    arguments += ["--disable-component-update", "--disable-sync"]
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield running
        running.close()


@pytest.mark.slow
def test_in_a_real_browser(served: str, browser: Any, query: str, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(served)
    upload = page.locator("input[type=file]").first
    upload.wait_for(state="attached", timeout=60_000)
    upload.set_input_files(query)
    page.wait_for_selector("#verdict .idml-unsure", timeout=60_000)
    assert page.locator("#matches .idml-card img").count() == 8
    assert all(page.locator("#matches img").evaluate_all("images => images.map(i => i.naturalWidth > 0)"))

    number = page.locator("input[type=number]").first
    number.fill("50")
    number.press("Enter")
    page.wait_for_selector("#verdict .idml-sure", timeout=30_000)
    assert "answers 100% of such queries" in page.inner_text("body")
    page.screenshot(path=tmp_path / "desktop.png")

    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("#verdict").bounding_box()["width"] <= 390

    open_tab(page, "Collection")
    page.wait_for_selector("#uncertain .idml-card", timeout=30_000)
    page.get_by_role("button", name="Find pairs").click()
    page.wait_for_selector("#duplicates :is(.idml-pair, p)", timeout=30_000)

    open_tab(page, "Many pictures")
    page.locator("input[type=file]:not([webkitdirectory])").nth(1).set_input_files([query, query])
    page.get_by_role("button", name="Search for all").click()
    page.get_by_role("button", name="Download as CSV").wait_for(timeout=60_000)

    outside = [url for url in asked if not url.startswith((served, "data:", "blob:"))]
    assert outside == []


def open_tab(page: Any, name: str) -> None:
    """Open a tab, which a narrow page has in a menu."""
    if not page.get_by_role("tab", name=name).is_visible():
        page.locator(".overflow-menu button").first.click()
        page.locator(".overflow-dropdown").get_by_text(name).click()
    else:
        page.get_by_role("tab", name=name).click()


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 390])
def test_the_page_can_be_used_by_everybody(served: str, browser: Any, query: str, width: int) -> None:
    """axe-core (`npm install axe-core`, in this folder) finds nothing that is serious."""
    axe = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
    if not axe.exists():
        pytest.skip("axe-core is not installed")
    page = browser.new_context(bypass_csp=True, viewport={"width": width, "height": 900}).new_page()
    page.goto(served)
    page.locator("input[type=file]").first.wait_for(state="attached", timeout=60_000)
    found = []
    for step in ("empty", "found", "Many pictures", "Collection", "Change"):
        if step == "found":
            page.locator("input[type=file]").first.set_input_files(query)
            page.wait_for_selector("#verdict .idml-verdict", timeout=60_000)
        elif step != "empty":
            open_tab(page, step)
        page.wait_for_timeout(1000)
        page.evaluate(axe.read_text(encoding="utf-8"))
        violations = page.evaluate("axe.run(document)")["violations"]
        found += [(step, v["id"]) for v in violations if v["impact"] in ("serious", "critical")]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert found == []


@pytest.mark.slow
def test_a_broken_upload_is_told_in_the_browser(served: str, browser: Any, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    Image.effect_noise((300, 300), 90).save(broken)
    broken.write_bytes(broken.read_bytes()[:2000])
    page = browser.new_page()
    page.goto(served)
    upload = page.locator("input[type=file]").first
    upload.wait_for(state="attached", timeout=60_000)
    upload.set_input_files(broken)
    page.get_by_text("The image cannot be decoded").first.wait_for(timeout=30_000)


def test_a_green_bar_is_an_answer(index: IDMLIndex, query: str) -> None:
    contents = AppContents(index)
    result = contents.search([query])
    assert ANSWER in contents.verdict(result, 50) and ANSWER not in contents.verdict(result, 10)


def test_the_search_is_narrowed_to_a_class_and_takes_several_pictures(index: IDMLIndex, query: str) -> None:
    contents = AppContents(index)
    name = index.gallery.name_of(int(index.gallery.labels[30]))
    assert name in contents.classes and contents.classes[0] == ALL_CLASSES
    assert set(contents.search([query], name).names[0]) == {name}
    assert len(contents.search([query, query])) == 1


def test_a_picture_filed_twice_is_told_on_its_cards() -> None:
    index = IDMLIndex.from_embeddings(
        np.eye(3)[[0, 0, 1]], labels=[0, 1, 2], class_names=["cup", "mug", "jug"], paths=["a.png", "b.png", "c.png"]
    )
    shown = AppContents(index).matches(index.search_embeddings(np.eye(3)[:1]))
    assert shown.count("same picture filed under") == 2 and "filed under mug" in shown and "a.png" in shown


def test_many_pictures_come_as_files_and_archives(index: IDMLIndex, emoji: ImageSet, tmp_path: Path) -> None:
    for number in (3, 4):
        emoji[number].save(tmp_path / f"{number}.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(tmp_path / "3.png", "folder/3.png")
        archive.write(tmp_path / "broken.jpg", "broken.jpg")
        archive.writestr("notes.txt", "no picture")
    table, bad = search_all(index, [str(tmp_path / "all.zip"), str(tmp_path / "4.png")])
    assert table["query"].to_pylist() == ["folder/3.png", "4.png"] and bad[0][0] == "broken.jpg"
    assert table["score"].to_pylist() == pytest.approx([1, 1], abs=1e-5)
    assert Path(save_table(table, tmp_path)).read_text(encoding="utf-8").startswith("query,rank,id,class")
    (tmp_path / "none.zip").write_bytes(b"PK no archive")
    with pytest.raises(ValueError, match=r"none\.zip cannot be unpacked"):
        search_all(index, [str(tmp_path / "none.zip")])
    with pytest.raises(ValueError, match=r"no picture that can be read: broken\.jpg"):
        search_all(index, [str(tmp_path / "broken.jpg")])


def test_the_index_is_changed_by_who_may(index: IDMLIndex, emoji: ImageSet, tmp_path: Path) -> None:
    index.save(tmp_path / "index")
    own = IDMLIndex.load(tmp_path / "index", index.model)
    emoji[0].save(tmp_path / "new.png")
    editor = Editor(own, tmp_path / "index", "word")
    for attempt in (lambda: editor.add([str(tmp_path / "new.png")], "new"), lambda: editor.remove("1", "wörd")):
        with pytest.raises(PermissionError, match="password is wrong"):
            attempt()
    assert len(own) == 59
    assert "Added 1 images" in editor.add([str(tmp_path / "new.png")], "new class", "word")
    saved = IDMLIndex.load(tmp_path / "index", index.model)
    assert saved.gallery.name_of(int(saved.gallery.labels[-1])) == "new class"
    assert saved.gallery.paths[-1].as_py() == "new.png"
    assert "Removed 2 images; 58 are left" in editor.remove("1, 59", "word")
    for wrong in ("", "one", "1"):
        with pytest.raises(ValueError, match=r"ids|id"):
            editor.remove(wrong, "word")
    assert len(IDMLIndex.load(tmp_path / "index", index.model)) == 58


@pytest.mark.parametrize(("host", "password", "can"), [("127.0.0.1", None, True), ("0.0.0.0", None, False)])
def test_only_this_machine_changes_without_a_password(host, password, can, index, monkeypatch) -> None:
    pytest.importorskip("gradio")
    monkeypatch.delenv("IDML_HF_APP_PASSWORD", raising=False)
    given: list[Any] = []
    monkeypatch.setattr("idml_hf.app.page.build_app", lambda *arguments: given.append(arguments[2]) or Unlaunched())
    launch_app(index, host=host, password=password)
    launch_app(index, host=host, password="word")
    assert (given[0] is not None) == can and given[1].password == "word"


class Unlaunched:
    """A page that is not served."""

    def launch(self, **options: Any) -> None:
        pass


def test_programs_search_by_a_name_that_stays(served: str, query: str) -> None:
    client = pytest.importorskip("gradio_client")
    entry = client.Client(served, verbose=False).predict(client.handle_file(query), api_name="/search")
    assert len(entry["matches"]) == 8 and entry["abstained"] is True and entry["confidence"] == pytest.approx(0.6)


def test_many_uploads_have_the_limit_of_one(tmp_path: Path) -> None:
    Image.new("1", (8_000, 8_000)).save(tmp_path / "huge.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "small.png")
    images, bad = read_uploads([str(tmp_path / "huge.png"), str(tmp_path / "small.png")])
    assert images.ids.to_pylist() == ["small.png"]
    assert [name for name, _ in bad] == ["huge.png"] and "8000 x 8000 pixels: at most 50 million" in bad[0][1]
