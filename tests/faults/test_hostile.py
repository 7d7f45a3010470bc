"""Inputs damaged at random, or made to harm, by the hundred: each is used, or refused in one line, and no more."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from fault_injection import in_child
from hostile_index import make_checksums_fit

from idml_hf import IDMLImageProcessor, IDMLIndex, IDMLModel
from idml_hf.cli import main
from idml_hf.data import load_images
from idml_hf.hub.card import write_model_card
from idml_hf.training.run import train
from idml_hf.training.settings import Run

EACH = int(os.environ.get("IDML_HF_HOSTILE", "50"))
SECONDS = float(os.environ.get("IDML_HF_HOSTILE_SECONDS", "10"))
MEMORY = 2 * 2**30
OWN_PROGRAMS = ("ldconfig", "uname", "fc-list")
"""What Python and matplotlib start to know the machine, its libraries and its fonts."""
STARTS_A_PROGRAM = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn")
HARMFUL: list[Any] = [
    None,
    True,
    -1,
    0,
    10**9,
    10**30,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "a" * 10_000,
    "../secret.txt",
    "/etc/hostname",
    "file:///etc/hostname",
    "pytorch_model.bin",
    "<script>alert(1)</script>",
    "[red]\n\x1b[31m\x00",
    "os.system",
    [],
    {},
    [[[[[[]]]]]],
    {"__class__": "os.system"},
    [1] * 10_000,
]


class Payload:
    """What leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.mark,)


def places(value: Any, at: tuple = ()) -> list[tuple]:
    """Where in a nest of lists and dictionaries something could be exchanged."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, entry in entries for place in [(*at, key), *places(entry, (*at, key))]]


def exchange(text: str, chances: random.Random) -> str:
    """JSON with one to three of its values exchanged, removed, or joined by others."""
    content = json.loads(text)
    for _ in range(chances.randint(1, 3)):
        found = places(content)
        if not found:
            break
        *way, last = chances.choice(found)
        holder = content
        for key in way:
            holder = holder[key]
        kind = chances.random()
        if kind < 0.7:
            holder[last] = chances.choice(HARMFUL)
        elif kind < 0.85:
            del holder[last]
        elif isinstance(holder, dict):
            holder[chances.choice(["auto_map", "weight_map", "_attn_implementation", "hub_token", "x"])] = (
                chances.choice(HARMFUL)
            )
    return json.dumps(content)


def damage(data: bytes, chances: random.Random) -> bytes:
    """Bytes that are cut, joined by others, or changed in places."""
    kind = chances.randrange(4)
    if kind == 0 or not data:
        return data[: chances.randrange(len(data) + 1)]
    if kind == 1:
        return chances.randbytes(chances.randrange(1, 4096))
    changed = bytearray(data)
    for _ in range(chances.randint(1, 20)):
        changed[chances.randrange(len(changed))] = chances.randrange(256)
    return bytes(changed) + (chances.randbytes(64) if kind == 2 else b"")


def harm(folder: Path, secret: Path, chances: random.Random) -> str:
    """Do something to one file of a folder, and say what."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    if not files:
        return "nothing"
    path = chances.choice(files)
    kind = chances.choice(["exchange"] * 4 + ["damage"] * 3 + ["link", "pipe", "folder", "pickle", "remove", "name"])
    if kind == "exchange" and path.suffix == ".json":
        path.write_text(exchange(path.read_text(), chances))
    elif kind in ("exchange", "damage"):
        path.write_bytes(damage(path.read_bytes(), chances))
    elif kind == "name":
        name = chances.choice([b"\xff\xfe" + os.fsencode(path.suffix), os.fsencode("[red]\n" + path.name)])
        path.rename(os.path.join(path.parent, os.fsdecode(name)))
    else:
        path.unlink()
        if kind == "link":
            path.symlink_to(secret)
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "pickle":
            data = pickle.dumps(Payload(secret.parent / "ran"))
            path.write_bytes(data)
            (path.parent / "pytorch_model.bin").write_bytes(data)
    return f"{kind} of {path.relative_to(folder)}"


def watched(work: Callable[[], object], secret: Path | None) -> Callable[[], object]:
    """`work`, ended where it starts a program or opens the secret, if there is one."""

    def watch(event: str, arguments: tuple) -> None:
        if event.startswith(STARTS_A_PROGRAM) and not any(name in str(arguments) for name in OWN_PROGRAMS):
            print(f"HARM: {event} {arguments}", flush=True)
            os._exit(3)
        if secret is not None and event == "open" and isinstance(arguments[0], (str, bytes)):
            try:
                same = os.path.realpath(os.fsdecode(arguments[0])) == str(secret)
            except ValueError:
                same = False
            if same:
                print(f"HARM: opened {arguments[0]!r}", flush=True)
                os._exit(3)

    def do() -> None:
        sys.addaudithook(watch)
        work()

    return do


def command(*arguments: object) -> None:
    main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def good(model_folder, photos, tmp_path_factory):
    """An input of each kind that is as it should be."""
    folder = tmp_path_factory.mktemp("good")
    model, processor = IDMLModel.from_pretrained(model_folder), IDMLImageProcessor.from_pretrained(model_folder)
    IDMLIndex.build(model, load_images(str(photos), "all"), processor).save(folder / "index")
    shutil.copytree(model_folder, folder / "model")
    shutil.copytree(photos, folder / "data")
    rows = [f"{label}/{n}.png,{label},{n}" for label in "abcdef" for n in range(4)]
    (folder / "data/metadata.csv").write_text("\n".join(["file_name,label,shop", *rows]))
    (folder / "table").mkdir()
    images = load_images(str(photos), "all")
    columns = {"image": [image for image in images], "label": images.labels}
    for split in ("train", "test"):
        table = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
        table.to_parquet(folder / f"table/{split}.parquet")
    settings = {"dataset": str(photos), "backbone": "test_resnet", "pretrained": False, "embedding_dim": 8}
    settings |= {"image_size": 32, "epochs": 2, "batch_size": 6, "save_steps": 1, "trainer": {"use_cpu": True}}
    (folder / "recipe").mkdir()
    (folder / "recipe/recipe.json").write_text(json.dumps(settings))
    run = Run(**settings, output=str(folder / "results"))
    assert in_child(lambda: train(run, progress=False), folder).status == "done"
    shutil.copytree(folder / "results", folder / "checkpoint")
    for name in ("metrics.json", "README.md", "model.safetensors"):
        (folder / "checkpoint" / name).unlink(missing_ok=True)
    return folder


def ask_model(folder: Path, good: Path) -> None:
    command("embed", folder, "--dataset", good / "data", "--split", "all", "--output", folder.parent / "out")


def ask_index(folder: Path, good: Path) -> None:
    command("search", folder, good / "data/a/0.png", "--model", good / "model")


def read_data(folder: Path, good: Path) -> None:
    command("data", "check", folder, "--output", folder.parent / "report")


def index_table(folder: Path, good: Path) -> None:
    command("index", good / "model", "--dataset", folder, "--split", "all", "--output", folder.parent / "out")


def read_recipe(folder: Path, good: Path) -> None:
    """Up to where training would begin: an own recipe may ask for a million epochs."""
    import idml_hf.training.run as run

    run.train = lambda *arguments, **options: {}
    path = next(iter(folder.iterdir()), folder / "recipe.json")
    try:
        text = yaml.safe_dump(json.loads(path.read_text()))
    except (ValueError, OSError):
        text = None
    if text is not None:
        path.write_text(text)
    command("train", path, "--output", folder.parent / "out")


def resume(folder: Path, good: Path) -> None:
    settings = json.loads((good / "recipe/recipe.json").read_text())
    path = folder.parent / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings))
    command("train", path, "--resume", "--output", folder)


def make_card(folder: Path, good: Path) -> None:
    write_model_card(folder)
    text = (folder / "README.md").read_text(errors="replace")
    if "<script" in text:
        raise AssertionError("a script in the card")


KINDS = {
    "model": ask_model,
    "index": ask_index,
    "data": read_data,
    "table": index_table,
    "recipe": read_recipe,
    "checkpoint": resume,
    "results": make_card,
}
TRUSTED = ("recipe", "checkpoint")
"""What is one's own: it may read where it says, but must not end in a traceback."""


def is_one_line(kind: str, error: str) -> bool:
    """Commands end by `exit 1` after their line; the function that has no command raises its line."""
    if kind == "results":
        return "\n" not in error and error.startswith(("ValueError", "OSError", "FileNotFoundError"))
    return error.startswith("exit ")


@pytest.mark.parametrize("kind", KINDS)
def test_hostile(kind, good, tmp_path):
    chances = random.Random(kind)
    wrong, said, refused, used, slowest = [], [], 0, 0, 0.0
    for number in range(EACH):
        place = tmp_path / f"{number}"
        place.mkdir()
        secret = place / "secret.txt"
        secret.write_text("not for you")
        folder = place / "input"
        shutil.copytree(good / kind, folder)
        what = "; ".join(harm(folder, secret, chances) for _ in range(chances.choice([1, 1, 1, 2])))
        if kind == "index" and chances.random() < 0.7 and "pipe" not in what:
            with contextlib.suppress(Exception):
                make_checksums_fit(folder)
        # links that somebody has made on this machine are followed, as those of the Hub's cache are
        closed = None if "link" in what or kind in TRUSTED else secret
        work = watched(lambda folder=folder: KINDS[kind](folder, good), closed)
        ended = in_child(work, place, memory=MEMORY, timeout=SECONDS)
        slowest = max(slowest, ended.seconds)
        refused += ended.status == "error"
        used += ended.status == "done"
        said += [line for line in ended.printed.splitlines() if line.startswith("error: ")]
        if (place / "ran").exists():
            wrong.append(f"{number} {what}: the payload ran")
        elif "not for you" in ended.printed:
            wrong.append(f"{number} {what}: the secret was shown")
        elif ended.status in ("hung", "killed"):
            wrong.append(f"{number} {what}: {ended.status} after {ended.seconds:.1f} s: {ended.printed[-300:]}")
        elif "Traceback" in ended.printed:
            wrong.append(f"{number} {what}: {ended.printed[-1500:]}")
        elif ended.status == "error" and not is_one_line(kind, ended.error):
            wrong.append(f"{number} {what}: {ended.error[:300]}\n{ended.trace[-1500:]}")
        shutil.rmtree(place, ignore_errors=True)
    assert not wrong, f"{len(wrong)} of {EACH}:\n" + "\n\n".join(wrong)
    print(f"\n{kind}: {EACH} hostile inputs, {used} used, {refused} refused in one line, slowest {slowest:.1f} s")
    print("\n".join(f"    {line[:200]}" for line in said[:: max(1, EACH // 10)]))
