"""What is published, read byte by byte: no token, no path, no user's name, nothing of a picture but its pixels."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hub_standin import TOKEN
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from safetensors.torch import load_file, save_file

import idml_hf
from idml_hf import IDMLForMetricLearning, IDMLImageProcessor, IDMLIndex, IDMLModel, IDMLTrainer, IDMLTrainingArguments
from idml_hf.data import load_images
from idml_hf.hub import RunRecord, push_folder, render_card
from idml_hf.hub.private_data import is_secret_name, private_data_in, without_private_data
from idml_hf.hub.record import public_settings, run_record
from idml_hf.index.thumbnails import Thumbnails
from idml_hf.picture_metadata import encode_picture, is_plain, without_metadata

USER = "markeruser7391"
SECRET = "hf_" + "Qx7" * 11
PASSWORD = "correct-horse-9"
CAMERA, COMMENT, TRAILER = "MARKER-CAMERA", "MARKER-COMMENT", "MARKER-AFTER-THE-END"
FORMATS = ("JPEG", "PNG", "WEBP")


def photograph(format: str, size: tuple[int, int] = (60, 40), seed: int = 0) -> bytes:
    """A picture that says where and with what it was taken, and something after its end."""
    pixels = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = CAMERA, 6
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 29.6), 3: "E", 4: (2.0, 17.0, 40.2)})
    more: dict = {"exif": exif}
    if format == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("Comment", COMMENT)
        text.add_text("Zipped", COMMENT * 9, zip=True)
        more["pnginfo"] = text
    if format == "JPEG":
        more["comment"] = COMMENT
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **more)
    return buffer.getvalue() + TRAILER.encode()


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / USER / "photos"
    for number, (label, format) in enumerate([(c, f) for c in ("cat", "dog") for f in FORMATS]):
        for size in ((60, 40), (400, 300)):
            path = folder / label / f"{format}-{size[0]}.{format.lower()}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(photograph(format, size, number))
    return folder


@pytest.fixture
def run(tmp_path, photos, monkeypatch):
    """What a run leaves at the home of somebody who is careless with secrets."""
    monkeypatch.setenv("MY_SERVICE_PASSWORD", PASSWORD)
    folder = tmp_path / USER / "runs" / "mine"
    torch.manual_seed(0)
    IDMLModel.from_backbone("test_resnet", pretrained=False, embedding_dim=8, image_size=32).save_pretrained(folder)
    for name in ("config.json", "preprocessor_config.json"):
        content = json.loads((folder / name).read_text()) | {"_name_or_path": str(folder), "note": f"by {PASSWORD}"}
        (folder / name).write_text(json.dumps(content))
    settings = {
        "output": str(folder),
        "root": str(photos),
        "dataset": str(photos),
        "weights": str(folder / "trunk.safetensors"),
        "model": f"{USER}/model",
        "trainer": {
            "hub_token": SECRET,
            "logging_dir": f"{folder}/logs",
            "run_name": f"file://{folder}/x",
            "nested": [{"api_key": 12345678, "cmd": f"python {folder}/train.py --token={SECRET}"}],
        },
    }
    log = [{"loss": 1.0, "step": 1, "checkpoint": f"saved to {folder}/checkpoint-1"}]
    (folder / "run.json").write_text(json.dumps({"run": settings, "log": log, "cwd": str(folder), "token": SECRET}))
    metrics = {"dataset": str(photos), "recall_at_1": 0.5, "trunk_weights": str(folder / "trunk.pth"), "seconds": 3}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "risk_coverage.png").write_bytes(photograph("PNG"))
    (folder / "LICENSE").write_text("Apache License 2.0")

    index = IDMLIndex.build(folder, load_images(str(photos), None), progress=False)
    # as the first edition saved small pictures: as they came
    pictures = sorted(photos.rglob("*-60.*")) * 2
    index.gallery.__dict__["thumbnails"] = Thumbnails.from_bytes([path.read_bytes() for path in pictures])
    index.save(folder / "index")
    (folder / "index" / "notes.txt").symlink_to("/etc/passwd")
    (folder / "index" / "mine.csv").write_text(SECRET)
    (folder / "index" / "data-000000000000").mkdir()
    (folder / "index" / "data-000000000000" / "semantic.npy").write_text(SECRET)
    (folder / "checkpoints").mkdir()
    (folder / "training_args.bin").write_text(SECRET)
    return folder


def texts(path: str, content: bytes) -> str:
    """All that a file says, also what is packed in it."""
    said = content.decode("latin-1")
    if path.endswith(".parquet"):
        table = pq.read_table(io.BytesIO(content))
        said += f"{table.to_pylist()} {table.schema.metadata} {[field.metadata for field in table.schema]}"
    if path.endswith(".png"):
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            said += f"{image.info} {dict(image.getexif())}"
    return said


def assert_nothing_private(published: dict[str, bytes], tmp_path: Path) -> None:
    package = str(Path(idml_hf.__file__).parent)
    for marker in (
        USER,
        str(tmp_path),
        SECRET,
        TOKEN,
        PASSWORD,
        CAMERA,
        COMMENT,
        TRAILER,
        package,
        "Exif\0",
        "root:x:",
    ):
        found = [path for path, content in published.items() if marker in texts(path, content)]
        assert not found, f"{marker!r} is in {found}"


def everything(hub) -> dict[str, bytes]:
    """All that the Hub was ever sent."""
    sent = {
        f"{repo}@{sha}/{path}": content
        for (_, repo), repository in hub.repositories.items()
        for sha, tree in repository.commits.items()
        for path, content in tree.items()
    }
    return sent | dict(hub.large) | {"messages": "\n".join(hub.messages).encode()}


def test_model_and_index(run, hub, tmp_path):
    push_folder(run, "tester/model", with_code=True, with_index=True)
    files = hub.files("tester/model")
    assert_nothing_private(everything(hub), tmp_path)
    assert {"LICENSE", "risk_coverage.png", "run.json", "metrics.json", "modeling_idml.py", "index/index.json"} <= set(
        files
    )
    names = {Path(path).name for path in files if path.startswith("index/data-")}
    assert names == set(json.loads(files["index/index.json"])["files"]) > {"items.parquet", "thumbnails.npy"}
    assert len([path for path in files if path.startswith("index/")]) == len(names) + 1
    record = json.loads(files["run.json"])
    assert record["run"]["dataset"] == "photos" and record["run"]["weights"] == "trunk.safetensors"
    assert "hub_token" not in record["run"]["trainer"] and record["run"]["model"] == "model"
    assert "base_model" not in files["README.md"].decode()
    assert "`photos`" in files["README.md"].decode()

    pushed = IDMLIndex.load("tester/model")
    local = IDMLIndex.load(run / "index")
    query = Image.open(io.BytesIO(photograph("PNG", seed=1)))
    assert pushed.search(query, k=3).ids.tolist() == local.search(query, k=3).ids.tolist()
    for mine, theirs in zip(local.gallery.thumbnails, pushed.gallery.thumbnails, strict=True):
        assert is_plain(theirs) and not is_plain(mine)
    paths = pushed.gallery.paths.to_pylist()
    assert [Path(path).name for path in paths] == [Path(path).name for path in local.gallery.paths.to_pylist()]


def test_index_as_data_set_and_as_space(run, hub, tmp_path):
    index = IDMLIndex.load(run / "index")
    index.push_to_hub("tester/gallery")
    index.push_space("tester/space")
    assert_nothing_private(everything(hub), tmp_path)
    assert {"README.md", "index.json", "model/config.json"} <= set(hub.files("tester/gallery", "dataset"))
    assert {"README.md", "app.py", "index/index.json"} <= set(hub.files("tester/space", "space"))
    shutil.rmtree(run)
    assert len(IDMLIndex.load("tester/gallery").search(Image.new("RGB", (9, 9)), k=2).ids[0]) == 2


def test_trainer(run, hub, tmp_path):
    model = IDMLForMetricLearning.from_backbone("test_resnet", pretrained=False, embedding_dim=8, num_train_classes=2)
    args = IDMLTrainingArguments(
        str(run / "trained"), use_cpu=True, report_to="none", hub_model_id="tester/trained", hub_token=TOKEN
    )
    trainer = IDMLTrainer(model, args, processing_class=IDMLImageProcessor.from_backbone("test_resnet", 32))
    (run / "trained" / "runs").mkdir(parents=True)
    (run / "trained" / "runs" / "events").write_text(SECRET)
    trainer.push_to_hub(dataset="birds")
    trainer.save_model(str(run / "trained" / "checkpoint-0"))
    trainer.args.hub_strategy = "every_save"
    trainer._push_from_checkpoint(str(run / "trained" / "checkpoint-0"))
    assert_nothing_private(everything(hub), tmp_path)
    assert "training_args.bin" not in hub.files("tester/trained")
    assert (run / "trained" / "training_args.bin").exists(), "there was something not to send"


def test_onnx(run, tmp_path):
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from idml_hf.export_onnx import export_onnx

    export_onnx(run, tmp_path / "onnx")
    files = {path.name: path.read_bytes() for path in (tmp_path / "onnx").iterdir()}
    assert_nothing_private({"model.onnx": files["model.onnx"]}, tmp_path)
    model = onnx.load(tmp_path / "onnx" / "model.onnx")
    assert private_data_in(str(model.graph.node) + str(model.metadata_props) + str(model.functions)) is None


def link(path: Path) -> None:
    elsewhere = path.parent.parent / f"real-{path.name}"
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "metrics.json",
        "run.json",
        "risk_coverage.png",
        "LICENSE",
        "README.md",
        "index/index.json",
        "index/data",
        "index/data/items.parquet",
        "index/data/semantic.npy",
    ],
)
def test_links_are_not_followed(run, hub, name):
    if name == "README.md":
        (run / name).write_text("---\nlicense: mit\n---\nMine.\n")
    version = json.loads((run / "index" / "index.json").read_text())["version"]
    link(run / name.replace("data", f"data-{version}"))
    with pytest.raises(ValueError, match="is a link to another place"):
        push_folder(run, "tester/model", with_index=True)
    assert not hub.log


@pytest.mark.parametrize(
    "shard", ["/etc/passwd", "../x.safetensors", "sub/x.safetensors", "pytorch_model.bin", 3, None]
)
def test_weights_elsewhere_are_neither_pushed_nor_loaded(run, hub, shard):
    (run / "model.safetensors").rename(run / "m.safetensors")
    (run / "pytorch_model.bin").write_bytes(b"x")
    index = {"metadata": {}, "weight_map": {"a": "m.safetensors", "b": shard}}
    (run / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="no safetensors file beside it: refused"):
        push_folder(run, "tester/model")
    for cls in (IDMLModel, IDMLForMetricLearning):
        with pytest.raises(ValueError, match="no safetensors file beside it: refused"):
            cls.from_pretrained(run)
    assert not hub.log


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("README.md", f"---\nlicense: mit\n---\nMy token is {SECRET}"),
        ("README.md", f"---\nlicense: mit\n---\nMy password is {PASSWORD}"),
        ("README.md", "---\nlicense: mit\n---\nAll in /home/someone/photos"),
        ("LICENSE", "See /Users/someone/Documents/licence.txt"),
    ],
)
def test_ones_own_words_with_something_private_are_refused(run, hub, name, said):
    (run / name).write_text(said)
    with pytest.raises(ValueError, match=rf"{name} holds a (secret|path)") as caught:
        push_folder(run, "tester/model")
    assert SECRET not in str(caught.value) and PASSWORD not in str(caught.value)
    assert not hub.log


def test_weights_that_say_where_they_come_from_are_refused(run, hub):
    save_file(load_file(run / "model.safetensors"), run / "model.safetensors", {"format": "pt", "from": str(run)})
    with pytest.raises(ValueError, match=r"model\.safetensors holds a path of a machine"):
        push_folder(run, "tester/model")
    assert not hub.log


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("size", [(60, 40), (300, 200)])
def test_pictures_keep_their_pixels_only(format, size):
    data = photograph(format, size)
    clean = without_metadata(data)
    assert is_plain(clean) and not is_plain(data) and without_metadata(clean) is clean
    with Image.open(io.BytesIO(clean)) as after, Image.open(io.BytesIO(data)) as before:
        assert after.format == format and after.size == before.size[::-1], "turned as its metadata said"
        assert not after.getexif() and CAMERA not in str(after.info) and COMMENT not in str(after.info)
        if format != "JPEG":
            upright = before.transpose(Image.Transpose.ROTATE_270).convert("RGB")
            np.testing.assert_array_equal(np.asarray(after.convert("RGB")), np.asarray(upright))


@given(st.sampled_from(FORMATS), st.data())
def test_a_picture_with_anything_put_into_it_is_not_plain(format, data):
    clean = encode_picture(Image.effect_noise((16, 12), 60).convert("RGB"), format)
    assert is_plain(clean)
    extra = data.draw(st.binary(min_size=1, max_size=20))
    assert not is_plain(clean + extra)
    if format == "JPEG":
        marker = data.draw(st.sampled_from([0xE1, 0xE2, 0xED, 0xFE, 0xE0, 0xEE, 0xF0]))
        segment = bytes([0xFF, marker]) + (len(extra) + 2).to_bytes(2, "big") + extra
        assert not is_plain(clean[:2] + segment + clean[2:])
    if format == "PNG":
        kind = data.draw(st.sampled_from([b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME", b"abCd"]))
        chunk = len(extra).to_bytes(4, "big") + kind + extra + b"\0\0\0\0"
        assert not is_plain(clean[:-12] + chunk + clean[-12:])


PLACES = st.sampled_from(
    [
        "/home/{}/x",
        "/Users/{}/a b/x.jpg",
        "/mnt/data/{}/run",
        "C:\\Users\\{}\\x",
        "~{}/x",
        "file:///home/{}/x",
        "\\\\server\\{}\\x",
        "/home/{}",
        "C:/Users/{}",
        "/Users/{}/",
    ]
)
WORDS = st.sampled_from(["", "see ", "cannot open ", '"', "a=", "(", "\n"])


@given(PLACES, WORDS, st.sampled_from(["", ": no such file", '"', "\n", ", and more"]), st.booleans())
def test_no_way_to_write_a_path_keeps_the_user(place, before, after, as_key):
    text = before + place.format(USER) + after
    value = {text: [text]} if as_key else [{"deep": (text,)}]
    assert USER not in json.dumps(without_private_data(value))
    assert private_data_in(text) is not None


@given(st.text(max_size=60))
def test_cleaning_is_done_once_and_for_all(text):
    cleaned = without_private_data({"text": text})
    assert without_private_data(cleaned) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "and/or",
        "/m/01g317",
        "1/2",
        "https://huggingface.co/org/name",
        "R@1 / MAP@R",
        "a: b",
        "org/name",
        "~0.5",
        "images/cat/1.jpg",
        "c:a",
        "tf_efficientnet_lite0.in1k",
        "^loss\\.proxies$",
        "12 km/h",
        "he said: /",
    ],
)
def test_what_is_no_path_stays(text):
    assert without_private_data({"name": text, "names": [text]}) == {"name": text, "names": [text]}
    assert private_data_in(text) is None


def test_a_run_records_no_secret_and_whether_its_names_are_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "somebody" / "photos").mkdir(parents=True)
    settings = {"model": "org/model", "dataset": "somebody/photos", "trainer": {"hub_token": SECRET, "optim": "sgd"}}
    record = run_record(settings, [{"loss": 1.0}])
    assert record["on_hub"] == ["model"] and record["run"]["trainer"] == {"optim": "sgd"}
    monkeypatch.chdir("/")  # where nobody can tell any more
    assert public_settings(record) == {"model": "org/model", "dataset": "photos", "trainer": {"optim": "sgd"}}
    # an older record says nothing of it, and nothing came from there
    assert public_settings({"run": settings})["model"] == "model"
    card = render_card(RunRecord({"architectures": ["IDMLModel"]}, {}, public_settings({"run": settings})), "o/n", "n")
    assert "base_model" not in card


def test_names_of_secrets():
    secret = (
        "hub_token",
        "token",
        "HF_TOKEN",
        "apiKey",
        "api_key",
        "password",
        "client_secret",
        "access-key",
        "AUTHORIZATION",
    )
    assert all(map(is_secret_name, secret))
    assert not any(
        map(is_secret_name, ("num_prefix_tokens", "tokenizer", "keyboard", "passing", "author", "secretary"))
    )
    kept = {"token": None, "use_token": True, "reg_tokens": 4}
    assert without_private_data(kept | {"hub_token": "abc", "password": 1234}) == kept


def test_a_secret_of_this_process_is_one_wherever_it_stands(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    assert private_data_in("key 0123456789abcdef") is not None
    assert "0123456789abcdef" not in json.dumps(without_private_data({"x": ["a 0123456789abcdef b"]}))
    assert os.environ["WANDB_API_KEY"]
    assert re.search("…", without_private_data("a 0123456789abcdef b"))
