"""Damaged, hostile and changing index folders: one line of `IndexFileError`, or the right answer."""

from __future__ import annotations

import copy
import json
import os
import resource
import shutil
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile_index import make_checksums_fit

from idml_hf import IDMLIndex
from idml_hf.confidence.calibration import Calibration
from idml_hf.index_files import IndexFileError

ROWS = np.random.default_rng(0).standard_normal((300, 6))


def an_index(engine: str = "flat") -> IDMLIndex:
    index = IDMLIndex.from_embeddings(
        ROWS,
        np.abs(ROWS[:, :3]),
        labels=np.arange(300) % 60,
        class_names=[f"class {i}" for i in range(60)],
        paths=[f"photos/{i}.png" for i in range(300)],
        metadata={"shop": [f"shop {i % 7}" for i in range(300)], "price": np.arange(300) / 2},
    )
    if engine != "flat":
        pytest.importorskip("faiss")
        index.use_engine(engine)
        index.remove(range(5))
    return index


@pytest.fixture(params=["flat", "ivf", "hnsw"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    an_index(request.param).save(tmp_path / "index")
    return tmp_path / "index"


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    an_index().save(tmp_path / "index")
    return tmp_path / "index"


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")


def refused(folder: Path) -> str:
    with pytest.raises(IndexFileError) as error:
        IDMLIndex.load(folder)
    message = str(error.value)
    assert "\n" not in message and str(folder) in message
    return message


def test_no_flipped_bit_is_silent(folder: Path) -> None:
    """As many in `index.json`, where a bit counts most, as in all others together."""
    random, files = np.random.default_rng(1), files_of(folder)
    sizes = np.array([path.stat().st_size for path in files], dtype=float)
    for turn in range(200):
        path = folder / "index.json" if turn % 2 else files[random.choice(len(files), p=sizes / sizes.sum())]
        content = bytearray(path.read_bytes())
        at, bit = random.integers(len(content)), random.integers(8)
        content[at] ^= 1 << bit
        path.write_bytes(content)
        refused(folder)
        content[at] ^= 1 << bit
        path.write_bytes(content)
    assert len(IDMLIndex.load(folder)) >= 295


def test_checksums_are_not_read_where_they_need_not_be(flat: Path) -> None:
    (path,) = flat.rglob("semantic.npy")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert len(IDMLIndex.load(flat, verify=False)) == 300


def test_what_is_written_differently_is_not_ours(flat: Path) -> None:
    path = flat / "index.json"
    for change in (lambda text: text + " ", lambda text: text.replace('"tau": 5.0', '"tau": 5.00')):
        text = path.read_text()
        path.write_text(change(text))
        assert path.read_text() != text
        assert "checksum" in refused(flat)
        path.write_text(text)


def values() -> Iterator[Any]:
    yield from (
        None,
        True,
        -1,
        0,
        1.5,
        10**30,
        1e308,
        "x",
        "../../x",
        [],
        ["x"],
        [[[]]],
        {},
        {"kind": "x"},
        {"a": None},
    )


def test_no_value_of_the_manifest_is_taken_on_trust(folder: Path) -> None:
    """Each entry, and each entry of an entry, replaced by anything: refused in a line, or still a whole index."""
    manifest = json.loads((folder / "index.json").read_text())
    calibrated(folder, manifest)
    manifest = json.loads((folder / "index.json").read_text())
    keys = [(key,) for key in manifest if key not in ("format", "version", "files", "checksum")]
    keys += [(key, inner) for (key,) in keys if isinstance(manifest[key], dict) for inner in manifest[key]]
    assert ("model", "location") in keys and ("calibration", "weights") in keys
    loaded = 0
    for key in keys:
        for value in values():
            entry = copy.deepcopy(manifest[key[0]])
            if len(key) == 2:
                entry[key[1]] = value
            make_checksums_fit(folder, **{key[0]: entry if len(key) == 2 else value})
            try:
                index = IDMLIndex.load(folder)
            except IndexFileError as error:
                assert "\n" not in str(error) and str(folder) in str(error), f"{key} {value!r}"
                continue
            loaded += 1
            index.search_embeddings(ROWS[:2], np.abs(ROWS[:2, :3]), k=3)
    assert loaded < len(keys) * 8
    make_checksums_fit(folder, **{key: manifest[key] for key in ("images", "tau")})


def calibrated(folder: Path, manifest: dict[str, Any]) -> None:
    index = IDMLIndex.load(folder)
    random = np.random.default_rng(2)
    centres = random.standard_normal((60, 6))
    labels = random.integers(0, 60, 600)
    other = IDMLIndex.from_embeddings(centres[labels] + 0.5 * random.standard_normal((600, 6)), labels=labels)
    index.calibration = other.calibrate(progress=False)
    assert isinstance(index.calibration, Calibration)
    index.save(folder)


@pytest.mark.parametrize("missing", ["model", "class_names", "tau", "next_id", "images", "engine", "calibration"])
def test_what_is_missing_is_said(flat: Path, missing: str) -> None:
    manifest = json.loads((flat / "index.json").read_text())
    path = flat / "index.json"
    del manifest[missing]
    path.write_text(json.dumps(manifest))
    refused(flat)


ARRAYS = {
    "other type": lambda a: a.astype(np.float64) if a.dtype == np.float32 else a.astype(np.float32),
    "other order": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "one dimension more": lambda a: a[None],
    "no dimension": lambda a: np.float32(3),
    "fewer": lambda a: a[:-1],
    "none": lambda a: a[:0],
    "columns first": lambda a: np.asfortranarray(np.stack([a, a]) if a.ndim == 1 else a),
    "texts": lambda a: np.array(["x"] * len(a)),
    "objects": lambda a: np.array([{}], dtype=object),
}


@pytest.mark.parametrize("change", list(ARRAYS))
@pytest.mark.parametrize("name", ["semantic", "uncertainty", "uncertainty_norm"])
def test_arrays_of_another_kind_are_refused(flat: Path, name: str, change: str) -> None:
    (path,) = flat.rglob(f"{name}.npy")
    np.save(path, ARRAYS[change](np.load(path)), allow_pickle=True)
    make_checksums_fit(flat)
    refused(flat)


HEADERS = {
    "a shape beyond the file": {"shape": (10**12, 6)},
    "a shape beyond all": {"shape": (2**62, 2**62)},
    "a negative shape": {"shape": (-1, 6)},
    "no shape": {"shape": None},
    "an unknown type": {"descr": "<f3"},
    "objects": {"descr": "|O"},
    "a structure": {"descr": [("a", "<f4", (10**9,))]},
}


@pytest.mark.parametrize("header", list(HEADERS))
def test_headers_that_lie_are_refused(flat: Path, header: str) -> None:
    (path,) = flat.rglob("semantic.npy")
    content = path.read_bytes()
    start = content.index(b"\n") + 1
    said = {"descr": "<f4", "fortran_order": False, "shape": (300, 6)} | HEADERS[header]
    text = repr(said).ljust(start - 11) + "\n"
    new = content[:8] + len(text).to_bytes(2, "little") + text.encode() + content[start:]
    path.write_bytes(new)
    make_checksums_fit(flat)
    refused(flat)


def test_archives_in_place_of_arrays_are_refused(flat: Path) -> None:
    (path,) = flat.rglob("semantic.npy")
    with open(path, "wb") as file:
        np.savez_compressed(file, semantic=np.zeros((10**6, 6), np.float32))
    make_checksums_fit(flat)
    refused(flat)


def tables() -> Iterator[pa.Table]:
    ids, paths = pa.array(range(300)), pa.array(["x"] * 300)
    columns = {"id": ids, "label": pa.array([0] * 300), "path": paths}
    yield pa.table({**columns, "id": pa.array([0] * 300)})
    yield pa.table({**columns, "id": pa.array([-1, *range(299)])})
    yield pa.table({**columns, "id": pa.array([None, *range(299)])})
    yield pa.table({**columns, "label": pa.array([60] * 300)})
    yield pa.table({**columns, "label": pa.array([-2] * 300)})
    yield pa.table({**columns, "label": paths})
    yield pa.table({**columns, "path": ids})
    yield pa.table({**columns, "path": pa.array([b"\xff"] * 300, pa.binary())})
    yield pa.table({"id": ids})
    yield pa.table({**columns, "metadata.x": pa.array([[1]] * 300)})
    yield pa.table({name: column.slice(1) for name, column in columns.items()})
    yield pa.table({name: pa.concat_arrays([column, column]) for name, column in columns.items()})


@pytest.mark.parametrize("number", range(12))
def test_tables_of_other_items_are_refused(flat: Path, number: int) -> None:
    (path,) = flat.rglob("items.parquet")
    pq.write_table(list(tables())[number], path)
    make_checksums_fit(flat)
    refused(flat)


@pytest.mark.parametrize("way", ["dictionary", "zstd", "delta"])
def test_tables_that_hold_more_than_they_take_are_refused_in_little_memory(flat: Path, way: str) -> None:
    (path,) = flat.rglob("items.parquet")
    text = "x" * 2**20
    paths = pa.DictionaryArray.from_arrays(np.zeros(30_000, np.int32), [text]) if way == "dictionary" else None
    number = 30_000 if way == "dictionary" else 300
    table = pa.table(
        {"id": np.arange(number), "label": [0] * number, "path": [text] * number if paths is None else paths}
    )
    options: dict[str, Any] = {"compression": "zstd"} if way == "zstd" else {}
    if way == "delta":
        options = {"use_dictionary": False, "column_encoding": {"path": "DELTA_BYTE_ARRAY"}, "compression": "none"}
    pq.write_table(table, path, **options)
    del table, paths
    assert path.stat().st_size < 3 * 2**20
    make_checksums_fit(flat, images=number)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(flat)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KB


@pytest.mark.skipif(sys.platform == "win32", reason="files of POSIX")
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "dangling link"])
@pytest.mark.parametrize("name", ["index.json", "semantic.npy", "items.parquet"])
def test_what_is_no_file_is_refused_at_once(flat: Path, kind: str, name: str) -> None:
    (path,) = flat.rglob(name)
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else "nowhere")
    with pytest.raises((IndexFileError, FileNotFoundError), match=name.replace(".", r"\.")):
        IDMLIndex.load(flat)


def test_files_that_no_index_has_are_not_looked_for(flat: Path) -> None:
    content = json.loads((flat / "index.json").read_text())
    for name in ("../x.npy", "/etc/passwd", "x.pkl", "semantic.npy.pkl", "X.npy", "a/b.npy", "", "x" * 300 + ".npy"):
        content["files"] = {name: {"bytes": 0, "xxh3_128": "0"}}
        (flat / "index.json").write_text(json.dumps(content))
        assert "names files that no index has" in refused(flat)


def test_an_index_of_the_first_format_is_read_with_its_engine_made_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("faiss")
    saved = Path(__file__).parents[1] / "fixtures" / "first_edition" / "index"
    shutil.copytree(saved, tmp_path / "index")
    path = tmp_path / "index" / "index.json"
    manifest = json.loads(path.read_text())
    assert manifest["format"] == 1 and manifest["engine"] is None
    flat = IDMLIndex.load(tmp_path / "index")
    (data,) = (tmp_path / "index").glob("data-*")
    dimensions = flat.gallery.semantic.shape[1]
    arrays = {
        "ivf": {"ivf_centroids": np.eye(dimensions, dtype=np.float32)[:5], "ivf_assignment": np.zeros(len(flat), int)},
        "hnsw": {"hnsw_levels": np.ones(3, np.int32), "hnsw_links": np.ones(3, np.int32)},
    }
    graph = {"neighbors": 16, "ef_construction": 40, "ef_search": 200, "entry_point": 0, "max_level": 0}
    for kind, settings in (("ivf", {"nprobe": 5}), ("hnsw", graph)):
        for name, array in arrays[kind].items():
            np.save(data / f"{name}.npy", array)
        manifest["files"] = {file.name: file.stat().st_size for file in data.iterdir()}
        path.write_text(json.dumps(manifest | {"engine": {"kind": kind, **settings}}))
        caplog.clear()
        index = IDMLIndex.load(tmp_path / "index")
        assert f"the engine {kind} of the index is made anew" in caplog.text
        assert index.engine is not None and index.engine.is_ready
        queries = np.asarray(flat.gallery.semantic[:50])
        found, expected = (each.search_embeddings(queries, k=5).ids for each in (index, flat))
        assert (found == expected).mean() > 0.95
        index.save(tmp_path / "index")
        assert json.loads(path.read_text())["format"] == 2
        assert IDMLIndex.load(tmp_path / "index").engine is not None
        shutil.rmtree(tmp_path / "index")
        shutil.copytree(saved, tmp_path / "index")


def test_an_index_is_searched_where_faiss_is_not_installed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    an_index("hnsw").save(tmp_path)
    code = """
        import sys
        sys.modules["faiss"] = None
        import numpy as np
        from idml_hf import IDMLIndex
        index = IDMLIndex.load(sys.argv[1])
        print(index.engine, index.search_embeddings(np.asarray(index.gallery.semantic[7:8]), k=1).ids.tolist())
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], capture_output=True, text=True)
    assert run.stdout.split("\n")[0] == "None [[12]]", run.stderr
    assert "approximate search needs faiss" in run.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="modes of POSIX")
@pytest.mark.parametrize("umask", [0o077, 0o022, 0o002])
def test_all_files_have_the_mode_of_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        an_index("hnsw").save(tmp_path / "index")
    finally:
        os.umask(before)
    for path in (tmp_path / "index").rglob("*"):
        if path.name != ".lock":
            wanted = 0o777 if path.is_dir() else 0o666
            assert stat.S_IMODE(path.stat().st_mode) == wanted & ~umask, path


WRITER = """
    import sys
    from idml_hf import IDMLIndex

    index = IDMLIndex.load(sys.argv[1])
    print("ready", flush=True)
    while True:
        index.save(sys.argv[1])
"""


def loads_beside_a_writer(folder: Path, number: int) -> int:
    """How many of so many loads fail while another process saves without a pause."""
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
            failed, versions = 0, set()
            for _ in range(number):
                try:
                    index = IDMLIndex.load(folder)
                    failed += len(index) != 300
                    versions.add(index._origin)
                except Exception as error:
                    print(error)
                    failed += 1
        finally:
            writer.kill()
    assert len(versions) > number / 100
    return failed


def test_loads_beside_a_writer_do_not_fail(flat: Path) -> None:
    assert loads_beside_a_writer(flat, 300) == 0


@pytest.mark.slow
def test_20_000_loads_beside_a_writer_do_not_fail(flat: Path) -> None:
    assert loads_beside_a_writer(flat, 20_000) == 0
