"""Approximate search by faiss: which items to look at, for galleries too large to look at all of them.

What is found is scored again in double precision, so an approximate search may miss an item, but what it gives is
scored and ordered as by an exact one.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import as_count
from .faiss_files import checked_index, reason_of, write_faiss
from .rescoring import SLACK, rescore

logger = logging.getLogger("idml_hf.search")

_CODES = r"SQ4|SQ6|SQ8|SQfp16|PQ\d+(?:x\d+)?"
_IVF = re.compile(rf"IVF(?P<nlist>\d+)(?:_HNSW(?P<links>\d+))?,(?P<codes>Flat|{_CODES})")
_HNSW = re.compile(r"HNSW(?P<links>\d+)(?:,(?P<codes>Flat|SQ4|SQ6|SQ8|SQfp16))?")
_OPTIONS = {
    "ivf": ("nlist", "nprobe"),
    "hnsw": ("neighbors", "ef_construction", "ef_search"),
}
_MOST = {"nlist": 2**22, "neighbors": 512, "nprobe": 2**22, "ef_construction": 2**16, "ef_search": 2**20}
_WIDE = 64, 4  # candidates beyond k, and for each of k, where they are proposed by another score than that which ranks
_REMOVED = 1 / 4  # share of the items known to faiss that may be gone before it starts afresh
_GROWTH = 4  # growth of the gallery from which on groups and codes are learnt afresh
_LEAST = 64  # items that codes of one number a dimension are learnt from


class ApproximateSearch:
    """A faiss index over the rows of a gallery.

    A gallery too small for what was asked for (an `"IVF256,Flat"` takes 256 items) is compared as a whole until it has
    grown. Items that are removed are passed over, and faiss starts afresh when they are many.

    Args:
        kind: `"ivf"`: items are grouped by their nearest centroid, and a query looks into a few groups; `"hnsw"`: a
            graph of near neighbours, along which a query walks (Malkov and Yashunin, 2016); or a string of faiss's
            `index_factory` for one of these: `"IVF256,Flat"`, `"IVF1024,SQ8"`, `"IVF4096,PQ32"`, `"HNSW32"`,
            `"HNSW32,SQ8"`.
        options: `nlist` (groups; without it 4 sqrt(N)) and `nprobe` (groups looked into; without it 1 / 16 of them)
            for an IVF; `neighbors`, `ef_construction` and `ef_search` for an HNSW, as faiss has them.

    Raises:
        ImportError: if faiss is not installed.
        ValueError: for an unknown kind or option, or one that is out of range.

    Example:
        >>> rows = np.eye(50, dtype=np.float32)
        >>> search = ApproximateSearch("IVF4,Flat", nprobe=4)
        >>> search.add(rows)
        >>> search.nearest(rows[7:8], rows, k=1)
        (array([[1.]]), array([[7]]))
    """

    def __init__(self, kind: str, **options: Any) -> None:
        _faiss()
        self.kind = kind
        self.family, self._fixed = _parse(kind)
        unknown = set(options) - set(_OPTIONS[self.family]) | set(options) & set(self._fixed)
        if unknown:
            known = [name for name in _OPTIONS[self.family] if name not in self._fixed]
            raise ValueError(f"{kind!r} has no option {min(unknown)!r}; it has {', '.join(known)}")
        self.options = {name: _in_range(name, value) for name, value in options.items() if value is not None}
        self._index: Any = None
        self._trained_on = 0
        # what faiss calls each position of the gallery, rising; None if it calls each by its position
        self._slots: np.ndarray | None = None
        self._number = 0

    def __len__(self) -> int:
        return self._number

    @property
    def _codes(self) -> str:
        return self._fixed.get("codes", "Flat")

    @property
    def is_ready(self) -> bool:
        """Whether there are enough items for faiss; else all are compared."""
        return self._index is not None

    def add(self, gallery: np.ndarray) -> None:
        """Take in the rows at the end of `gallery` (N, d), float32 unit rows, that are not known yet."""
        new = len(gallery) - self._number
        learns = self.family == "ivf" or self._codes != "Flat"
        if self._index is None or (learns and len(gallery) > _GROWTH * self._trained_on):
            self._build(gallery)
        elif new:
            if self._slots is not None:
                self._slots = np.concatenate([self._slots, self._index.ntotal + np.arange(new)])
            self._index.add(np.ascontiguousarray(gallery[self._number :]))
        self._number = len(gallery)

    def keep(self, gallery: np.ndarray, positions: np.ndarray) -> None:
        """Forget all rows but those at `positions` (rising), which make up the new `gallery`."""
        self._number = len(gallery)
        if self._index is None:
            return
        if len(positions) < (1 - _REMOVED) * self._index.ntotal or not len(positions):
            self._build(gallery)
        else:
            slots = np.arange(self._index.ntotal) if self._slots is None else self._slots
            self._slots = None if len(positions) == len(slots) == self._index.ntotal else slots[positions]

    def nearest(
        self, queries: np.ndarray, gallery: np.ndarray, k: int, **doubts: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best `k` of the gallery that faiss proposes.

        Args:
            queries: float32 (Q, d), unit rows.
            gallery: float32 (N, d), unit rows; those given to `add`.
            k: 1 to N.
            doubts: `uncertainty`, `gallery_uncertainty` and `tau`, to rank by the introspective distance those of
                largest cosine, some more than `k`.

        Returns:
            `scores` float64 (Q, k) and `positions` int64 (Q, k) as of [`idml_hf.search.nearest`]; -inf and -1 where
            fewer than `k` are proposed.
        """
        width = k + SLACK if self._codes == "Flat" and not doubts else _WIDE[1] * k + _WIDE[0]
        candidates = self.candidates(queries, min(width, len(gallery)))
        return rescore(queries, gallery, candidates, k, **doubts)

    def candidates(self, queries: np.ndarray, width: int) -> np.ndarray:
        """Positions int64 (Q, `width`) of likely nearest items; -1 where there are no more."""
        faiss, index = _faiss(), self._index
        queries, found = np.ascontiguousarray(queries), np.empty((len(queries), width), dtype=np.int64)
        scores = np.empty(found.shape, dtype=np.float32)
        # what faiss puts around this in Python takes no parameters once anybody has imported its torch wrappers
        x, d, i = (faiss.swig_ptr(array) for array in (queries, scores, found))
        index.search_c(len(queries), x, width, d, i, self._parameters(width))
        if self._slots is None:
            return found
        position = np.full(index.ntotal + 1, -1)  # the last stands for none
        position[self._slots] = np.arange(len(self._slots))
        return position[found]

    def settings(self) -> dict[str, Any]:
        """What describes the search beside its arrays and its file, ready for JSON."""
        return {"kind": self.kind, "options": self.options, "trained_on": self._trained_on}

    def arrays(self) -> dict[str, np.ndarray]:
        """Beside the file: what faiss calls each position, if it is not the position."""
        return {} if self._slots is None else {"engine_slots": self._slots}

    def write(self, path: Path) -> None:
        """Write the faiss index, which `faiss.read_index` reads."""
        write_faiss(self._index, path)

    @classmethod
    def read(
        cls, settings: Mapping[str, Any], slots: np.ndarray | None, path: Path | None, number: int, dimensions: int
    ) -> ApproximateSearch:
        """The search of `settings()`, `arrays()` and `write()`, for a gallery of `number` rows.

        Raises:
            ImportError: if faiss is not installed.
            ValueError: if they contradict each other, or faiss could not search the file without harm.
        """
        search = cls(settings["kind"], **settings["options"])
        search._number = number
        search._trained_on = as_count(settings["trained_on"], "trained_on", least=0)
        if path is None:
            return search
        index = checked_index(path, dimensions, search.family)
        known = number if slots is None else len(slots)
        if known != number or index.ntotal < number or (slots is None and index.ntotal != number):
            raise ValueError("the faiss index does not fit the gallery")
        if slots is not None:
            if slots.dtype != np.int64 or slots.ndim != 1 or (np.diff(slots) <= 0).any():
                raise ValueError("the faiss index does not fit the gallery")
            if number and not 0 <= slots[0] <= slots[-1] < index.ntotal:
                raise ValueError("the faiss index does not fit the gallery")
        search._index, search._slots = index, slots
        return search

    def _build(self, gallery: np.ndarray) -> None:
        self._index, self._slots, self._trained_on = None, None, 0
        needed = self._needed(len(gallery))
        if len(gallery) < needed:
            if len(gallery):
                logger.info("%s takes %d images: until there are as many, all are compared", self.kind, needed)
            return
        rows = np.ascontiguousarray(gallery)
        try:
            index = self._empty(rows)
            index.train(rows)
            index.add(rows)
        except RuntimeError as error:  # of faiss, with a trace of its own sources
            dimensions = rows.shape[1]
            raise ValueError(f"faiss refuses {self.kind!r} for {dimensions} dimensions: {reason_of(error)}") from error
        self._index, self._trained_on = index, len(rows)

    def _needed(self, number: int) -> int:
        codes = self._codes
        least = 1
        if codes.startswith("PQ"):
            least = 2 ** int((re.search(r"x(\d+)", codes) or ["", "8"])[1])
        elif codes != "Flat":
            least = _LEAST
        return max(self._groups(number), least) if self.family == "ivf" else least

    def _groups(self, number: int) -> int:
        default = max(1, min(number, int(4 * math.sqrt(number))))
        return self._fixed.get("nlist") or min(self.options.get("nlist", default), max(1, number))

    def _empty(self, gallery: np.ndarray) -> Any:
        faiss = _faiss()
        factory = self.kind
        if self.kind == "ivf":
            factory = f"IVF{self._groups(len(gallery))},Flat"
        elif self.kind == "hnsw":
            factory = f"HNSW{self.options.get('neighbors', 32)},Flat"
        index = faiss.index_factory(gallery.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        if self.family == "ivf":
            for part in (index, getattr(index, "pq", None)):
                if part is not None:
                    part.cp.min_points_per_centroid = 1  # else it warns
        else:
            index.hnsw.efConstruction = self.options.get("ef_construction", 120)
        return index

    def _parameters(self, width: int) -> Any:
        faiss = _faiss()
        options: dict[str, Any] = {}
        if self._slots is not None:
            there = np.zeros(self._index.ntotal, dtype=bool)
            there[self._slots] = True
            options["sel"] = faiss.IDSelectorBitmap(np.packbits(there, bitorder="little"))
        if self.family == "hnsw":
            return faiss.SearchParametersHNSW(efSearch=max(self.options.get("ef_search", 64), width), **options)
        nprobe = self.options.get("nprobe") or max(1, self._index.nlist // 16)
        return faiss.SearchParametersIVF(nprobe=min(nprobe, self._index.nlist), **options)


def _parse(kind: str) -> tuple[str, dict[str, Any]]:
    """Family of a kind, and what its string fixes."""
    if kind in _OPTIONS:
        return kind, {}
    for family, pattern in (("ivf", _IVF), ("hnsw", _HNSW)):
        match = pattern.fullmatch(kind) if isinstance(kind, str) else None
        if match:
            fixed: dict[str, Any] = {name: value for name, value in match.groupdict().items() if value is not None}
            if "links" in fixed:
                fixed["neighbors"] = _in_range("neighbors", int(fixed.pop("links")))
            if "nlist" in fixed:
                fixed["nlist"] = _in_range("nlist", int(fixed["nlist"]))
            return family, fixed
    raise ValueError(f"unknown engine {kind!r}: flat, ivf, hnsw, or as IVF256,Flat, IVF1024,SQ8, IVF4096,PQ32, HNSW32")


def _in_range(name: str, value: Any) -> int:
    # a graph of one link an item ends the process
    number = as_count(value, name, least=2 if name == "neighbors" else 1)
    if number > _MOST[name]:
        raise ValueError(f"{name} must be at most {_MOST[name]}, got {number}")
    return number


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError('approximate search needs faiss: pip install "idml-hf[cpu]"') from error
    return faiss


__all__ = ["ApproximateSearch"]
