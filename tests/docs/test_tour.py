"""A day with the tool: from a folder as people have it to an app and the Hub, by commands that the pages have."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pages import blocks, pages, split_command
from PIL import Image

from idml_hf.cli import main

PHOTOS = Path("my photos")


@pytest.fixture(scope="module")
def documented() -> set[tuple[str, str]]:
    """Each command of the pages' shell, with each of its options."""
    found = set()
    for page in pages():
        for block in blocks(page):
            for command in block.commands if block.language == "bash" else ():
                program, words = split_command(command) or ("", [])
                if program == "idml-hf":
                    name = " ".join(words[:2]) if words[0] in ("data", "recipes") else words[0]
                    found |= {(name, "")} | {(name, word) for word in words if word.startswith("--")}
    return found


@pytest.fixture
def run(documented, capsys):
    """Runs a command that the pages have, and gives its status and what it printed."""

    def run(*words) -> tuple[int, str]:
        words = [str(word) for word in words]
        name = " ".join(words[:2]) if words[0] in ("data", "recipes") else words[0]
        for option in ("", *(word for word in words if word.startswith("--"))):
            assert (name, option) in documented, f"no page shows {name} {option}"
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(words)
        printed = capsys.readouterr()
        return stop.value.code or 0, printed.out + printed.err

    return run


def make_a_mess(workspace: Path) -> None:
    """Class folders with what lies about: a broken file, a text, a tiny picture, a copy, names that are hard."""
    shutil.copytree(workspace / "photos", PHOTOS)
    first, second, *_, last = sorted(PHOTOS.iterdir())
    first = first.rename(PHOTOS / "Häferl [rot] – 帽子")
    (first / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    (first / "notes.txt").write_text("not a picture")
    Image.new("RGB", (1, 1)).save(second / "tiny.png")
    Image.new("L", (40, 30), 90).save(second / "grey.png")
    (last / "film.mov").write_bytes(b"\0")
    (PHOTOS / "empty").mkdir()


def succeeds(ended: tuple[int, str]) -> bool:
    """Whether a command ended well; what it said is shown if not."""
    assert not ended[0], ended[1][-2000:]
    return True


@pytest.mark.slow
def test_from_a_messy_folder_to_the_hub(workspace, hub, organisation, run, tmp_path):
    pytest.importorskip("gradio")
    make_a_mess(workspace)
    status, said = run("data", "check", PHOTOS, "--output", "checked")
    assert status == 1 and "cut.jpg" in said and Path("checked/contact_sheet.png").exists()
    status, said = run("train", "--dataset", PHOTOS, "--output", "my-model", "--backbone", "resnet10t")
    assert status and "cut.jpg" in said and "--skip-bad-images" in said
    next(PHOTOS.rglob("cut.jpg")).unlink()
    small = ["--backbone", "test_resnet", "--image-size", "48", "--epochs", "2"]
    status, said = run("train", "--dataset", PHOTOS, *small, "--output", "my-model")
    assert not status and "R@1" in said
    assert succeeds(run("evaluate", "my-model", "--dataset", PHOTOS, "--output", "report"))

    assert succeeds(run("index", "my-model", "--dataset", PHOTOS, "--output", "my-index", "--calibrate", "emoji-mini"))
    assert "16 classes" not in run("info", "my-index")[1]
    assert "images added" in run("add", "my-index", "--dataset", "more-photos")[1]
    status, said = run("search", "my-index", "picture.png", "--top-k", 3, "--json")
    entry = json.loads(said[said.index("[") : said.rindex("]") + 1])[0]
    assert not status and len(entry["matches"]) == 3
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save("noise.png")
    status, said = run("search", "my-index", "noise.png", "--error-rate", 0.05)
    assert not status and "not sure" in said
    assert succeeds(run("search", "my-index", "more-photos", "--output", "results.csv"))
    assert len(Path("results.csv").read_text(encoding="utf-8").splitlines()) > 100
    assert "1 images removed" in run("remove", "my-index", "--id", entry["matches"][0]["id"])[1]
    assert succeeds(run("duplicates", "my-index", "--threshold", 0.98))
    assert succeeds(run("audit", PHOTOS, "--model", "my-model", "--output", "findings"))
    assert Path("findings/findings.csv").exists()

    from gradio_client import Client, handle_file

    from idml_hf.app import launch_app

    app = launch_app("my-index", block=False)
    try:
        found = Client(app.local_url, verbose=False).predict(handle_file("picture.png"), api_name="/search")
        assert len(found["matches"]) == 8
    finally:
        app.close()
    status, said = run("push", "my-model", f"{organisation}/my-model", "--private")
    assert not status and f"{organisation}/my-model" in said
