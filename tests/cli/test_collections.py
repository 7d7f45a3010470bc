"""A collection from day to day: `add`, `remove`, `info`, and `search` with many queries."""

from __future__ import annotations

import csv
import functools
import http.server
import json
import threading

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from small import run, save_model, save_photos

from idml_hf import IDMLIndex, IDMLModel
from idml_hf.data import load_images


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    save_model(folder / "model")
    save_photos(folder / "photos", range(4))
    save_photos(folder / "more", range(4, 6))
    known = [
        {"file_name": f"class [{c}]/{n}.png", "label": f"class [{c}]", "shop": "AB"[c % 2], "year": 2020 + c}
        for c in range(4)
        for n in range(3)
    ]
    (folder / "photos" / "metadata.jsonl").write_text("\n".join(map(json.dumps, known)))
    assert not run("index", folder / "model", "--dataset", folder / "photos", "--output", folder / "index")
    return folder


@pytest.fixture
def index(place, tmp_path):
    opened = IDMLIndex.load(place / "index")
    opened.save(tmp_path / "index")
    return tmp_path / "index"


def test_images_are_added_and_replaced(index, place, capsys):
    assert not run("add", index, "--dataset", place / "more")
    assert "6 images added, 18 in" in capsys.readouterr().err
    assert not run("add", index, "--dataset", place / "more", "--update")
    assert "6 of these paths were there already: replaced" in capsys.readouterr().err
    after = IDMLIndex.load(index)
    assert len(after) == 18 and after.gallery.num_classes == 6
    assert not run("add", index, "--dataset", place / "more")
    assert "6 of these paths were there already: --update replaces them" in capsys.readouterr().err
    assert len(IDMLIndex.load(index)) == 24


def test_images_are_removed_by_id_path_and_class(index, place, capsys):
    path = place / "photos" / "class [1]" / "2.png"
    assert not run("remove", index, "--id", 0, "--path", path, "--class", "class [3]", "--id", 1)
    left = IDMLIndex.load(index)
    assert len(left) == 12 - 2 - 1 - 3 and str(path) not in left.gallery.paths.to_pylist()
    assert "6 images removed, 6 left" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--id", "99"], "99"),
        (["--path", "no.png"], "the index has no image with path no.png"),
        (["--class", "no", "--id", "1"], "the index has no image of class no"),
        ([], "name what to remove"),
    ],
)
def test_what_is_not_there_is_named_and_nothing_removed(options, message, index, capsys):
    assert run("remove", index, *options)
    assert message in capsys.readouterr().err
    assert len(IDMLIndex.load(index)) == 12


def test_what_an_index_is(index, place, capsys):
    assert not run("info", index, "--json")
    known = json.loads(capsys.readouterr().out)
    assert (known["kind"], known["images"], known["classes"], known["dimensions"]) == ("index", 12, 4, 8)
    assert known["model"] == str(place / "model") and known["engine"] == "flat" and known["calibration"] is None
    assert known["metadata"] == {"shop": "string", "year": "int64"}
    assert known["bytes"] == sum(file.stat().st_size for file in index.rglob("*") if file.is_file())
    assert not run("info", index)
    assert "class [0], class [1]" in capsys.readouterr().out


def test_what_a_calibrated_index_promises(tmp_path, capsys):
    noise = np.random.default_rng(0)
    labels = np.repeat(np.arange(60), 4)
    rows = noise.normal(size=(60, 16))[labels] + noise.normal(size=(240, 16)) * 0.7
    opened = IDMLIndex.from_embeddings(rows, labels=labels)
    table = opened.calibrate(absent=0.0, progress=False).table()
    opened.save(tmp_path / "index")
    assert not run("info", tmp_path / "index", "--json")
    assert json.loads(capsys.readouterr().out)["calibration"]["table"] == table
    assert not run("info", tmp_path / "index")
    shown = capsys.readouterr().out
    assert all(f"{100 * row['promise']:.0f} %" in shown for row in table)


def test_what_a_model_is(place, capsys, tmp_path):
    assert not run("info", place / "model", "--json")
    known = json.loads(capsys.readouterr().out)
    assert (known["kind"], known["backbone"], known["image_size"]) == ("model", "test_resnet", 32)
    assert not run("info", place / "model")
    assert "test_resnet" in capsys.readouterr().out
    assert run("info", tmp_path)
    assert "holds neither an index" in capsys.readouterr().err


def test_folders_patterns_and_files_are_queries(index, place, tmp_path, capsys):
    words = [place / "more", place / "photos" / "class [[]2]" / "*.png", place / "photos" / "class [0]" / "0.png"]
    assert not run("search", index, *words, "--top-k", 2, "--output", tmp_path / "found.csv")
    rows = list(csv.DictReader((tmp_path / "found.csv").open(encoding="utf-8")))
    assert len(rows) == (6 + 3 + 1) * 2
    assert rows[-2]["query"] == str(words[-1]) == rows[-2]["path"] and rows[-2]["class"] == "class [0]"
    assert rows[-2]["shop"] == "A" and rows[-2]["year"] == "2020" and [r["rank"] for r in rows[:2]] == ["1", "2"]
    for name in ("found.parquet", "found.json"):
        assert not run("search", index, *words, "--top-k", 2, "--output", tmp_path / name)
    table = pq.read_table(tmp_path / "found.parquet")
    assert table["score"].to_pylist() == pytest.approx([float(row["score"]) for row in rows])
    entries = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert len(entries) == 10 and entries[-1]["matches"][0]["metadata"]["shop"] == "A"
    assert run("search", index, words[0], "--output", tmp_path / "found.xlsx")
    assert ".csv, .parquet, .json" in capsys.readouterr().err


def test_a_search_is_narrowed_by_what_is_known(index, place, capsys):
    query = place / "photos" / "class [0]" / "0.png"

    def classes(*where):
        capsys.readouterr()
        options = [part for condition in where for part in ("--where", condition)]
        assert not run("search", index, query, "--json", "--top-k", 20, *options)
        return {match["name"] for match in json.loads(capsys.readouterr().out)[0]["matches"]}

    assert classes("shop=B") == {"class [1]", "class [3]"}
    assert classes("year=2021", "year=2022") == {"class [1]", "class [2]"}
    assert classes("shop=A", "year=2022") == {"class [2]"} == classes("class=class [2]")
    for condition, message in (("shop", "column=value"), ("year=soon", "holds int64"), ("stop=A", "no metadata")):
        assert run("search", index, query, "--where", condition)
        assert message in capsys.readouterr().err


def test_bad_queries_are_named_or_left_out(index, place, tmp_path, capsys):
    folder = tmp_path / "queries"
    folder.mkdir()
    (folder / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    Image.open(place / "photos" / "class [0]" / "0.png").save(folder / "good.png")
    assert run("search", index, folder)
    assert "cut.jpg" in capsys.readouterr().err
    assert not run("search", index, folder, "--skip-bad-images", "--json")
    assert len(json.loads(capsys.readouterr().out)) == 1
    (tmp_path / "nothing").mkdir()
    for word, message in ((tmp_path / "nothing", "holds no images"), (tmp_path / "*.gif", "no image is called like")):
        assert run("search", index, word)
        assert message in capsys.readouterr().err


def test_addresses_are_fetched_only_if_told_so(index, place, capsys):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(place / "photos" / "class [0]"))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/0.png"
    try:
        assert run("search", index, url)
        assert "--allow-urls" in capsys.readouterr().err
        assert not run("search", index, url, "--allow-urls", "--json")
        (entry,) = json.loads(capsys.readouterr().out)
        assert entry["query"] == url and entry["matches"][0]["score"] == pytest.approx(1, abs=1e-5)
        assert run("search", index, f"{url}.gone", "--allow-urls")
        assert "cannot be fetched" in capsys.readouterr().err
    finally:
        server.shutdown()
        server.server_close()


def test_embeddings_in_every_format_are_the_same(place, tmp_path, capsys):
    options = ["--dataset", place / "more", "--output", tmp_path]
    for kind in ("parquet", "csv", "npy"):
        assert not run("embed", place / "model", *options, "--format", kind)
    expected = IDMLModel.from_pretrained(place / "model").encode(load_images(place / "more")).semantic
    table = pq.read_table(tmp_path / "embeddings.parquet")
    assert table.schema.field("semantic").type.list_size == 8
    assert np.array(table["semantic"].to_pylist()) == pytest.approx(expected, abs=1e-6)
    assert np.load(tmp_path / "semantic.npy") == pytest.approx(expected, abs=1e-6)
    rows = list(csv.DictReader((tmp_path / "embeddings.csv").open(encoding="utf-8")))
    assert [float(rows[1][f"semantic_{at}"]) for at in range(8)] == pytest.approx(expected[1].tolist(), abs=1e-6)
    images = list(csv.DictReader((tmp_path / "images.csv").open(encoding="utf-8")))
    assert [row["class"] for row in images] == [row["class"] for row in rows] and "semantic_0" not in images[0]
    assert run("embed", place / "model", *options, "--format", "xls")
    assert "format" in capsys.readouterr().err


def test_quiet_leaves_results_and_errors_alone(index, place, capsys):
    capsys.readouterr()
    assert not run("add", index, "--dataset", place / "more", "--quiet")
    assert capsys.readouterr() == ("", "")
    assert not run("search", index, place / "more", "--json", "--quiet")
    printed = capsys.readouterr()
    assert len(json.loads(printed.out)) == 6 and not printed.err
    assert run("add", index, "--dataset", place / "nothing", "--quiet")
    assert capsys.readouterr().err.startswith("error: ")
