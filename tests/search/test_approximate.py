"""Approximate search by faiss: options, sizes, files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from idml_hf.search import nearest
from idml_hf.search.approximate import ApproximateSearch
from idml_hf.search.arrays import unit_rows

faiss = pytest.importorskip("faiss")

KINDS = ["ivf", "hnsw", "IVF4,Flat", "IVF4,SQ8", "IVF4_HNSW8,Flat", "HNSW8", "HNSW8,SQ8", "IVF4,PQ4x4"]
NUMBER = 70  # of rows in files
EACH = np.arange(NUMBER)
NUMBERS = [0, -1, 1.5, float("nan"), float("inf"), 2**40, "8", [3], True]


def rows(number: int, seed: int = 0) -> np.ndarray:
    return unit_rows(np.random.default_rng(seed).standard_normal((number, 8)), "rows")


@pytest.mark.parametrize("kind", ["ivf", "hnsw", "IVF4,Flat", "HNSW8"])
@pytest.mark.parametrize("option", ["nlist", "nprobe", "neighbors", "ef_construction", "ef_search", "threads"])
@pytest.mark.parametrize("value", NUMBERS, ids=str)
def test_no_option_reaches_faiss_unchecked(kind: str, option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{option}"):
        ApproximateSearch(kind, **{option: value})


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("HNSW1", "neighbors must be at least 2, got 1"),
        ("HNSW0", "neighbors must be at least 2"),
        ("HNSW100000", "neighbors must be at most 512"),
        ("IVF4_HNSW1,Flat", "neighbors must be at least 2"),
        ("IVF0,Flat", "nlist must be at least 1"),
        ("IVF99999999999,Flat", "nlist must be at most"),
        ("IVF4", "unknown engine 'IVF4'"),
        ("LSH", "unknown engine"),
        ("PCA4,IVF4,Flat", "unknown engine"),
        ("", "unknown engine"),
        (None, "unknown engine"),
    ],
)
def test_no_kind_reaches_faiss_unchecked(kind: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ApproximateSearch(kind)


def test_what_is_checked_here_ends_the_process_there() -> None:
    """If this fails, faiss has mended it, and `_in_range` may allow it."""
    code = "import faiss, numpy; faiss.index_factory(4, 'HNSW1').add(numpy.eye(4, dtype='float32'))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode < 0


def test_what_faiss_refuses_is_said_in_a_line() -> None:
    search = ApproximateSearch("IVF4,PQ3")
    with pytest.raises(ValueError, match=r"faiss refuses 'IVF4,PQ3' for 8 dimensions: .*multiple") as error:
        search.add(rows(400))
    assert "\n" not in str(error.value) and ".cpp" not in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_all_sizes_from_none_to_many_and_back(kind: str, tmp_path: Path) -> None:
    """What faiss finds is there and scored right; too few items for it are compared by the caller."""
    search = ApproximateSearch(kind)
    gallery, first = rows(0), 0
    for number in (0, 1, 2, 3, 5, 40, 300):
        gallery = np.concatenate([gallery, rows(number, seed=number)])
        search.add(gallery)
        check(search, gallery, tmp_path, kind)
    for share in (0.9, 0.6, 0.2, 0.0):
        kept = np.sort(np.random.default_rng(first).permutation(len(gallery))[: int(share * len(gallery))])
        gallery = gallery[kept]
        search.keep(gallery, kept)
        check(search, gallery, tmp_path, kind)
    gallery = rows(30)
    search.add(gallery)
    check(search, gallery, tmp_path, kind)


def check(search: ApproximateSearch, gallery: np.ndarray, folder: Path, kind: str) -> None:
    assert len(search) == len(gallery)
    path = folder / "search.faiss" if search.is_ready else None
    if path is not None:
        search.write(path)
    slots = search.arrays().get("engine_slots")
    again = ApproximateSearch.read(search.settings(), slots, path, len(gallery), 8)
    assert again.is_ready == search.is_ready and (len(gallery) > 0 or not search.is_ready)
    if not search.is_ready:
        return
    k = min(5, len(gallery))
    scores, positions = search.nearest(gallery[:20], gallery, k)
    assert np.array_equal(again.nearest(gallery[:20], gallery, k)[1], positions)
    exact = nearest(gallery[:20], gallery, len(gallery))
    for row in range(len(positions)):
        there = positions[row] >= 0
        expected = dict(zip(exact[1][row].tolist(), exact[0][row].tolist(), strict=True))
        assert [expected[p] for p in positions[row][there].tolist()] == scores[row][there].tolist()
        assert len(set(positions[row][there].tolist())) == there.sum()
    if kind != "IVF4,PQ4x4":
        assert (positions[:, 0] == np.arange(len(positions))).mean() > 0.9


def test_removed_items_are_passed_over_until_they_are_many() -> None:
    search, gallery = ApproximateSearch("HNSW8"), rows(400)
    search.add(gallery)
    kept = np.delete(np.arange(400), np.arange(0, 60, 2))
    search.keep(gallery[kept], kept)
    assert search.arrays()["engine_slots"].tolist() == kept.tolist()
    assert search.nearest(gallery[:1], gallery[kept], 3)[1][0, 0] != 0
    half = np.arange(0, 370, 2)
    search.keep(gallery[kept][half], half)
    assert search.arrays() == {}


def test_groups_are_made_anew_when_the_gallery_has_grown() -> None:
    search = ApproximateSearch("ivf")
    search.add(rows(10))
    search.add(rows(3000))
    assert search._index.nlist == int(4 * 3000**0.5)
    fixed = ApproximateSearch("IVF4,Flat")
    fixed.add(rows(10))
    fixed.add(rows(3000))
    assert fixed._index.nlist == 4


def written(kind: str, path: Path) -> dict[str, Any]:
    search = ApproximateSearch(kind)
    search.add(rows(NUMBER))
    search.write(path)
    return search.settings()


@pytest.mark.parametrize("kind", ["IVF4,Flat", "IVF4,SQ8", "HNSW8", "HNSW8,SQ8"])
def test_no_changed_file_ends_the_process(kind: str, tmp_path: Path) -> None:
    """Each is refused, or gives a search that finds items of the gallery only."""
    path = tmp_path / "search.faiss"
    settings, content = written(kind, path), b""
    content, random, refused = path.read_bytes(), np.random.default_rng(0), 0
    for turn in range(250):
        changed = bytearray(content)
        if turn % 3 == 0:
            changed = changed[: random.integers(0, len(changed))]
        elif turn % 3 == 1:
            changed[random.integers(0, len(changed))] ^= 1 << random.integers(0, 8)
        else:
            at = random.integers(0, min(len(changed), 400))
            changed[at : at + 8] = random.choice([b"\xff" * 8, b"\x00" * 8, b"\x7f" * 8])
        path.write_bytes(changed)
        try:
            search = ApproximateSearch.read(settings, None, path, NUMBER, 8)
        except ValueError as error:
            assert "\n" not in str(error)
            refused += 1
            continue
        positions = search.nearest(rows(NUMBER)[:5], rows(NUMBER), 10)[1]
        assert positions.min() >= -1 and positions.max() < NUMBER
    assert refused > 80


def test_lists_that_lead_elsewhere_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "search.faiss"
    settings = written("IVF4,Flat", path)
    index = faiss.read_index(str(path))
    lists = faiss.downcast_InvertedLists(index.invlists)
    faiss.rev_swig_ptr(lists.get_ids(0), 1)[0] = 10**9
    faiss.write_index(index, str(path))
    with pytest.raises(ValueError, match=r"lists lead nowhere|cannot read it"):
        ApproximateSearch.read(settings, None, path, NUMBER, 8)
    # vectors in another file, which could be any file of this machine
    written("IVF4,Flat", path)
    secret = tmp_path / "secret.txt"
    index = faiss.read_index(str(path))
    disk = faiss.OnDiskInvertedLists(index.nlist, index.code_size, str(secret))
    for group in range(index.nlist):
        size = index.invlists.list_size(group)
        disk.add_entries(group, size, index.invlists.get_ids(group), index.invlists.get_codes(group))
    index.replace_invlists(disk)
    faiss.write_index(index, str(path))
    with pytest.raises(ValueError, match=r"do not fit each other|cannot read it"):
        ApproximateSearch.read(settings, None, path, NUMBER, 8)


def test_a_file_of_another_search_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "search.faiss"
    settings = written("HNSW8", path)
    for arguments in ((NUMBER + 1, 8), (NUMBER - 1, 8), (NUMBER, 9)):
        with pytest.raises(ValueError, match=r"does not fit the gallery|for other embeddings"):
            ApproximateSearch.read(settings, None, path, *arguments)
    for slots in (EACH[1:], EACH[::-1].copy(), EACH + 1, 0 * EACH, EACH.astype(float)):
        with pytest.raises(ValueError, match="does not fit the gallery"):
            ApproximateSearch.read(settings, slots, path, NUMBER, 8)
    with pytest.raises(ValueError, match="none of the family ivf"):
        ApproximateSearch.read(settings | {"kind": "ivf"}, None, path, NUMBER, 8)
    flat = faiss.IndexFlatIP(8)
    flat.add(rows(NUMBER))
    faiss.write_index(flat, str(path))
    with pytest.raises(ValueError, match="none of the family hnsw"):
        ApproximateSearch.read(settings, None, path, NUMBER, 8)
