"""Writing faiss indexes, and reading them from files that need not be trusted.

faiss follows what a file says without a look: a link or a list that leads outside ends the process, or reads what is
not meant to be read. So only the kinds that `ApproximateSearch` makes are read, and their links and lists are checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

# the first bytes of the files of inverted lists and of graphs
_STARTS = {"ivf": (b"IwFl", b"IwSq", b"IwPQ"), "hnsw": (b"IHNf", b"IHNs")}


def write_faiss(index: Any, path: Path) -> None:
    """Write a faiss index.

    Raises:
        OSError: if it cannot be written.
    """
    import faiss

    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        raise OSError(f"faiss could not write all of {path}") from error


def checked_index(path: Path, dimensions: int, family: str) -> Any:
    """Read a faiss index of `dimensions` of a family, `"ivf"` or `"hnsw"`.

    Raises:
        ValueError: if it is anything else, or would lead a search astray.
    """
    import faiss

    with open(path, "rb") as file:
        if file.read(4) not in _STARTS[family]:
            raise ValueError(f"the faiss index is none of the family {family}")
    # lists in other files would be opened, so these are looked for beside this file only, and refused below
    flags = faiss.IO_FLAG_READ_ONLY | faiss.IO_FLAG_ONDISK_SAME_DIR | faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE
    try:
        with _limited(path.stat().st_size):
            index = faiss.read_index(str(path), flags)
    except (RuntimeError, MemoryError) as error:
        raise ValueError(f"faiss cannot read it ({reason_of(error)})") from error
    if index.d != dimensions or index.metric_type != faiss.METRIC_INNER_PRODUCT or not index.is_trained:
        raise ValueError("the faiss index is for other embeddings")
    (_check_lists if family == "ivf" else _check_graph)(index)
    return index


def reason_of(error: BaseException) -> str:
    """What an error of faiss says, without the place in its own sources."""
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0].rsplit("failed: ")[-1].rsplit("Error: ")[-1]


@contextmanager
def _limited(size: int) -> Iterator[None]:
    """Keeps faiss from making arrays larger than the file that they should come from."""
    import faiss

    if not hasattr(faiss, "set_deserialization_vector_byte_limit"):  # before 1.13
        yield
        return
    before = faiss.get_deserialization_vector_byte_limit()
    faiss.set_deserialization_vector_byte_limit(size + 2**20)
    try:
        yield
    finally:
        faiss.set_deserialization_vector_byte_limit(before)


def _check_lists(index: Any) -> None:
    import faiss

    lists, quantizer = faiss.downcast_InvertedLists(index.invlists), faiss.downcast_index(index.quantizer)
    fits = (
        isinstance(lists, faiss.ArrayInvertedLists)
        and lists.nlist == index.nlist == quantizer.ntotal
        and lists.code_size == index.code_size
        and quantizer.d == index.d
    )
    if not fits or not isinstance(quantizer, (faiss.IndexFlat, faiss.IndexHNSWFlat)):
        raise ValueError("the inverted lists do not fit each other")
    _check_codes(quantizer)
    sizes = [lists.list_size(group) for group in range(index.nlist)]
    if sum(sizes) != index.ntotal:
        raise ValueError("the inverted lists do not hold each item once")
    seen = np.zeros(index.ntotal, dtype=bool)
    for group, size in enumerate(sizes):
        if size:
            ids = faiss.rev_swig_ptr(lists.get_ids(group), size)
            if ids.min() < 0 or ids.max() >= index.ntotal:
                raise ValueError("the inverted lists lead nowhere")
            seen[ids] = True
    if not seen.all():
        raise ValueError("the inverted lists do not hold each item once")


def _check_codes(index: Any) -> None:
    """Whether the vectors of a flat index, or of the items of a graph, are all there."""
    import faiss

    if isinstance(index, faiss.IndexHNSW):
        _check_graph(index)
    elif index.codes.size() != index.ntotal * index.code_size or index.code_size != index.sa_code_size():
        raise ValueError("the faiss index lacks vectors")


def _check_graph(index: Any) -> None:
    import faiss

    graph, storage, number = index.hnsw, faiss.downcast_index(index.storage), index.ntotal
    if not isinstance(storage, (faiss.IndexFlat, faiss.IndexScalarQuantizer)):
        raise ValueError("the graph has no vectors")
    if storage.ntotal != number or storage.d != index.d:
        raise ValueError("the graph does not fit its vectors")
    _check_codes(storage)
    names = ("levels", "offsets", "neighbors", "cum_nneighbor_per_level")
    levels, offsets, links, per_level = (faiss.vector_to_array(getattr(graph, name)) for name in names)
    entry = graph.entry_point
    fits = (
        len(levels) == number
        and len(offsets) == number + 1
        and number > 0
        and 0 <= entry < number
        and levels.min() >= 1
        and levels.max() < len(per_level)
        and levels[entry] == graph.max_level + 1 == levels.max()
        and offsets[0] == 0
        and (np.diff(per_level) >= 0).all()
        and per_level[0] == 0
        and (np.diff(offsets.astype(np.int64)) == per_level[levels]).all()
        and offsets[-1] == len(links)
    )
    if not fits:
        raise ValueError("the graph does not fit the gallery")
    if len(links) and (links.min() < -1 or links.max() >= number):
        raise ValueError("the graph has links that lead nowhere")
    # a link on an upper level must lead to an item that has this level
    for level in range(1, int(levels.max())):
        items = np.flatnonzero(levels > level)
        at = offsets[items].astype(np.int64)[:, None] + np.arange(per_level[level], per_level[level + 1])
        ends = links[at]
        if (levels[ends[ends >= 0]] <= level).any():
            raise ValueError("the graph has links that lead nowhere")


__all__ = ["checked_index", "reason_of", "write_faiss"]
