"""Approximate nearest neighbours: which items to look at, for galleries too large to look at all of them.

What an engine has learnt is kept as plain NumPy arrays, so that an index needs no file format of faiss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np


class Engine(Protocol):
    """Proposes gallery items for queries; made by `create_engine`, restored by `restore_engine`."""

    def candidates(self, queries: np.ndarray, gallery: np.ndarray, width: int) -> np.ndarray:
        """Positions int64 (Q, width) of likely nearest items; -1 where there are no more."""

    def added(self, gallery: np.ndarray) -> Engine:
        """The engine for a gallery that has more rows at its end."""

    def kept(self, gallery: np.ndarray, positions: np.ndarray) -> Engine:
        """The engine for the rows at `positions` of the old gallery, which are the new `gallery`."""

    def settings(self) -> dict[str, Any]:
        """What describes the engine beside its arrays, ready for JSON."""

    def arrays(self) -> dict[str, np.ndarray]:
        """What the engine has learnt."""


def create_engine(kind: str, gallery: np.ndarray, **options: int) -> Engine | None:
    """Build an engine.

    Args:
        kind: `"flat"` (None: all items are compared), `"ivf"` or `"hnsw"`.
        gallery: float32 (N, d), unit rows.
        options: `nlist`, `nprobe` for `"ivf"`; `neighbors`, `ef_construction`, `ef_search` for `"hnsw"`.

    Raises:
        ImportError: if faiss is not installed.
        ValueError: for an unknown kind.
    """
    if kind == "flat":
        return None
    if kind not in _KINDS:
        raise ValueError(f"unknown engine {kind!r}: flat, {', '.join(_KINDS)}")
    return _KINDS[kind].create(gallery, **options)


def restore_engine(settings: dict[str, Any] | None, arrays: dict[str, np.ndarray], number: int) -> Engine | None:
    """The engine of `settings()` and `arrays()`, for a gallery of `number` rows.

    Raises:
        ValueError: if they contradict each other.
    """
    if settings is None:
        return None
    options = dict(settings)
    kind = options.pop("kind")
    if kind not in _KINDS:
        raise ValueError(f"unknown engine {kind!r}: flat, {', '.join(_KINDS)}")
    engine = _KINDS[kind](**options, **{name: arrays[f"{kind}_{name}"] for name in _KINDS[kind].ARRAYS})
    engine.check(number)
    return engine


@dataclass
class IVF:
    """Inverted file: items are grouped by their nearest centroid, and a query looks into a few groups.

    Args:
        nprobe: groups a query looks into.
        centroids: float32 (nlist, d).
        assignment: int64 (N,), group of each item.
    """

    ARRAYS = ("centroids", "assignment")

    nprobe: int
    centroids: np.ndarray = field(repr=False)
    assignment: np.ndarray = field(repr=False)
    _index: Any = field(default=None, repr=False)

    @classmethod
    def create(cls, gallery: np.ndarray, nlist: int | None = None, nprobe: int | None = None) -> IVF:
        faiss = _faiss()
        nlist = min(nlist or int(4 * math.sqrt(len(gallery))), len(gallery))
        quantizer = faiss.IndexFlatIP(gallery.shape[1])
        index = faiss.IndexIVFFlat(quantizer, gallery.shape[1], nlist, faiss.METRIC_INNER_PRODUCT)
        index.cp.min_points_per_centroid = 1
        index.train(gallery)
        # a tensor, once anybody has imported the torch wrappers of faiss
        centroids = np.asarray(quantizer.reconstruct_n(0, nlist))
        return cls(nprobe or max(1, nlist // 16), centroids, _assign(centroids, gallery))

    def candidates(self, queries: np.ndarray, gallery: np.ndarray, width: int) -> np.ndarray:
        if self._index is None:
            faiss = _faiss()
            self._quantizer = faiss.IndexFlatIP(gallery.shape[1])
            self._quantizer.add(self.centroids)
            self._index = faiss.IndexIVFFlat(
                self._quantizer, gallery.shape[1], len(self.centroids), faiss.METRIC_INNER_PRODUCT
            )
            self._index.is_trained = True
            ids, groups = np.arange(len(gallery)), np.array(self.assignment)
            pointers = (faiss.swig_ptr(array) for array in (gallery, ids, groups))
            self._index.add_core(len(gallery), *pointers)
        self._index.nprobe = min(self.nprobe, len(self.centroids))
        return self._index.search(queries, width)[1]

    def added(self, gallery: np.ndarray) -> IVF:
        new = _assign(self.centroids, gallery[len(self.assignment) :])
        return replace(self, assignment=np.concatenate([self.assignment, new]), _index=None)

    def kept(self, gallery: np.ndarray, positions: np.ndarray) -> IVF:
        return replace(self, assignment=self.assignment[positions], _index=None)

    def settings(self) -> dict[str, Any]:
        return {"kind": "ivf", "nprobe": self.nprobe}

    def arrays(self) -> dict[str, np.ndarray]:
        return {"ivf_centroids": self.centroids, "ivf_assignment": self.assignment}

    def check(self, number: int) -> None:
        if len(self.assignment) != number or (number and not self.assignment.min() >= 0):
            raise ValueError("the inverted file does not fit the gallery")
        if number and self.assignment.max() >= len(self.centroids):
            raise ValueError("the inverted file names groups that it does not have")


@dataclass
class HNSW:
    """A graph of near neighbours, along which a query walks towards its own (Malkov and Yashunin, 2016).

    Args:
        neighbors: links an item has on the upper levels; twice as many on the lowest.
        ef_construction: items a new item is compared with when it is linked.
        ef_search: items a query is compared with, at least.
        entry_point: item where each walk starts.
        max_level: level of that item.
        levels: int32 (N,), number of levels of each item.
        links: int32, the items each item is linked to, -1 for none, level by level, item by item.
    """

    ARRAYS = ("levels", "links")

    neighbors: int
    ef_construction: int
    ef_search: int
    entry_point: int
    max_level: int
    levels: np.ndarray = field(repr=False)
    links: np.ndarray = field(repr=False)
    _index: Any = field(default=None, repr=False)

    @classmethod
    def create(cls, gallery: np.ndarray, neighbors: int = 32, ef_construction: int = 120, ef_search: int = 64) -> HNSW:
        index = _empty_graph(gallery, neighbors, ef_construction)
        index.add(gallery)
        return cls._of(index, neighbors, ef_construction, ef_search)

    @classmethod
    def _of(cls, index: Any, neighbors: int, ef_construction: int, ef_search: int) -> HNSW:
        faiss, graph = _faiss(), index.hnsw
        levels, links = (faiss.vector_to_array(vector) for vector in (graph.levels, graph.neighbors))
        entry, top = graph.entry_point, graph.max_level
        return cls(neighbors, ef_construction, ef_search, entry, top, levels, links, index)

    def candidates(self, queries: np.ndarray, gallery: np.ndarray, width: int) -> np.ndarray:
        index = self._graph(gallery)
        index.hnsw.efSearch = max(self.ef_search, width)
        return index.search(queries, width)[1]

    def _graph(self, gallery: np.ndarray) -> Any:
        if self._index is None:
            faiss = _faiss()
            index = _empty_graph(gallery, self.neighbors, self.ef_construction)
            faiss.downcast_index(index.storage).add(gallery)
            arrays = {"levels": self.levels, "offsets": self._offsets(), "neighbors": self.links}
            for name, array in arrays.items():
                faiss.copy_array_to_vector(np.ascontiguousarray(array), getattr(index.hnsw, name))
            index.hnsw.entry_point, index.hnsw.max_level = self.entry_point, self.max_level
            index.ntotal = len(gallery)
            self._index = index
        return self._index

    def _offsets(self) -> np.ndarray:
        # an item on L levels has 2 M links on the lowest and M on each other
        links = self.neighbors * (np.asarray(self.levels, dtype=np.int64) + 1)
        return np.concatenate([[0], np.cumsum(links)]).astype(np.uint64)

    def added(self, gallery: np.ndarray) -> HNSW:
        index = self._graph(gallery[: len(self.levels)])
        index.add(gallery[len(self.levels) :])
        return self._of(index, self.neighbors, self.ef_construction, self.ef_search)

    def kept(self, gallery: np.ndarray, positions: np.ndarray) -> HNSW:
        return self.create(gallery, self.neighbors, self.ef_construction, self.ef_search)

    def settings(self) -> dict[str, Any]:
        names = ("neighbors", "ef_construction", "ef_search", "entry_point", "max_level")
        return {"kind": "hnsw", **{name: getattr(self, name) for name in names}}

    def arrays(self) -> dict[str, np.ndarray]:
        return {"hnsw_levels": self.levels, "hnsw_links": self.links}

    def check(self, number: int) -> None:
        # faiss follows the links without a look: one that leads outside would crash the process
        fits = len(self.levels) == number and len(self.links) == self._offsets()[-1]
        if not fits or not 0 <= self.entry_point < number or self.levels[self.entry_point] != self.max_level + 1:
            raise ValueError("the graph does not fit the gallery")
        if self.levels.min() < 1 or self.links.min() < -1 or self.links.max() >= number:
            raise ValueError("the graph has links that lead nowhere")


_KINDS: dict[str, Any] = {"ivf": IVF, "hnsw": HNSW}


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError('approximate search needs faiss: pip install "idml-hf[cpu]"') from error
    return faiss


def _assign(centroids: np.ndarray, rows: np.ndarray) -> np.ndarray:
    faiss = _faiss()
    return faiss.knn(rows, centroids, 1, faiss.METRIC_INNER_PRODUCT)[1][:, 0].astype(np.int64)


def _empty_graph(gallery: np.ndarray, neighbors: int, ef_construction: int) -> Any:
    faiss = _faiss()
    index = faiss.IndexHNSWFlat(gallery.shape[1], neighbors, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = ef_construction
    return index


__all__ = ["HNSW", "IVF", "Engine", "create_engine", "restore_engine"]
