"""Any sequence of changes, on every backend, against a plain list of images that is searched by a loop."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from idml_hf import IDMLIndex

pytest.importorskip("faiss")

# few directions, so that there are many ties and copies
VECTORS = st.tuples(*[st.integers(-2, 2)] * 3).filter(any)
DOUBTS = st.tuples(*[st.integers(0, 2)] * 2)
IMAGES = st.lists(st.tuples(VECTORS, DOUBTS, st.sampled_from(["a", "b", "c"])), min_size=1, max_size=12)
MANY_IMAGES = st.lists(st.tuples(VECTORS, DOUBTS, st.sampled_from(["a", "b", "c"])), min_size=12, max_size=30)
# the IVFs look into all of their groups, and so find what comparing all finds
ENGINES = {
    "flat": ("flat", {}),
    "ivf": ("ivf", {"nprobe": 1000}),
    "IVF4,Flat": ("IVF4,Flat", {"nprobe": 4}),
    "hnsw": ("hnsw", {}),
    "HNSW4": ("HNSW4", {"ef_search": 4}),
    "HNSW4,SQ8": ("HNSW4,SQ8", {}),
}


class Model:
    """Images in order, each a dictionary."""

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []
        self.next_id = 0

    def search(self, vector: Any, doubt: Any, k: int, metric: str, shop: str | None) -> list[tuple[float, int]]:
        found = []
        for image in self.images:
            if shop is None or image["shop"] == shop:
                found.append((score(vector, doubt, image, metric), image["id"]))
        order = sorted(range(len(found)), key=lambda at: (-round(found[at][0], 7), at))
        return [found[at] for at in order[:k]]


def score(vector: Any, doubt: Any, image: dict[str, Any], metric: str) -> float:
    q, g = (np.array(v, dtype=float) / np.linalg.norm(v) for v in (vector, image["vector"]))
    if metric == "cosine":
        return float(q @ g)
    alpha = float(np.linalg.norm(q - g))
    if alpha < 1e-6:
        return 0.0
    beta = float(np.linalg.norm(np.add(doubt, image["doubt"])))
    return -alpha * float(np.exp(-beta / (5 * alpha)))


class IndexMachine(RuleBasedStateMachine):
    @initialize(images=MANY_IMAGES, engine=st.sampled_from(list(ENGINES)))
    def build(self, images: Any, engine: str) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.model, self.index = Model(), None
        self.add(images)
        self.choose(engine)

    @rule(images=IMAGES)
    def add(self, images: Any) -> None:
        number = self.model.next_id
        names = sorted({name for _, _, name in images})
        columns = {
            "labels": [names.index(name) for _, _, name in images],
            "class_names": names,
            "paths": [f"{number + at}.png" for at in range(len(images))],
            "metadata": {"shop": [f"shop {(number + at) % 2}" for at in range(len(images))]},
        }
        arrays = [vector for vector, _, _ in images], [doubt for _, doubt, _ in images]
        if self.index is None:
            self.index = IDMLIndex.from_embeddings(*arrays, **columns)
        else:
            ids = self.index.add_embeddings(*arrays, **columns)
            assert ids.tolist() == list(range(number, number + len(images)))
        for at, (vector, doubt, name) in enumerate(images):
            entry = {"id": number + at, "vector": vector, "doubt": doubt, "class": name}
            entry |= {"path": columns["paths"][at], "shop": columns["metadata"]["shop"][at]}
            self.model.images.append(entry)
        self.model.next_id += len(images)

    @precondition(lambda self: self.model.images)
    @rule(data=st.data(), way=st.sampled_from(["few", "few", "ids", "mask", "paths", "class", "all"]))
    def remove(self, data: Any, way: str) -> None:
        images = self.model.images
        gone = set(range(len(images)))
        if way == "class":
            name = data.draw(st.sampled_from(sorted({image["class"] for image in images})))
            gone = {at for at, image in enumerate(images) if image["class"] == name}
            self.index.remove(class_name=name)
        else:
            if way != "all":
                most = 2 if way == "few" else None  # so few that faiss does not start afresh
                gone = data.draw(st.sets(st.integers(0, len(images) - 1), min_size=1, max_size=most))
            wanted: Any = [images[at]["path" if way == "paths" else "id"] for at in sorted(gone)]
            if way == "mask":
                wanted = np.isin(np.arange(len(images)), list(gone))
            self.index.remove(wanted)
        self.model.images = [image for at, image in enumerate(images) if at not in gone]

    @rule(engine=st.sampled_from(list(ENGINES)))
    def choose(self, engine: str) -> None:
        kind, options = ENGINES[engine]
        self.index.use_engine(kind, **options)
        self.is_exact = not kind.lower().startswith("hnsw")

    @rule()
    def save_and_load(self) -> None:
        self.index.save(self.folder)
        self.index = IDMLIndex.load(self.folder)

    @precondition(lambda self: self.model.images)
    @rule(
        vector=VECTORS,
        doubt=DOUBTS,
        k=st.sampled_from([1, 2, 5, 9, 40]),
        metric=st.sampled_from(["cosine", "introspective"]),
        shop=st.sampled_from([None, None, "shop 0"]),
    )
    def search(self, vector: Any, doubt: Any, k: int, metric: str, shop: str | None) -> None:
        expected = self.model.search(vector, doubt, k, metric, shop)
        where = None if shop is None else {"shop": shop}
        if not expected:
            with pytest.raises(ValueError, match="no image where"):
                self.index.search_embeddings([vector], [doubt], k, metric=metric, where=where)
            return
        found = self.index.search_embeddings([vector], [doubt], k, metric=metric, where=where)
        kept = found.ids[0] >= 0
        if self.is_exact or shop is not None:
            assert found.ids[0].tolist() == [i for _, i in expected]
            assert found.scores[0] == pytest.approx([s for s, _ in expected], abs=2e-6)
        images = {image["id"]: image for image in self.model.images}
        for rank in np.flatnonzero(kept):
            image = images[int(found.ids[0, rank])]
            assert found.scores[0, rank] == pytest.approx(score(vector, doubt, image, metric), abs=2e-6)
            assert (found.names[0, rank], found.paths[0, rank]) == (image["class"], image["path"])
            assert found.metadata["shop"][0, rank] == image["shop"]
            assert found.match_uncertainty[0, rank] == pytest.approx(np.linalg.norm(image["doubt"]), rel=1e-6)
        assert len(set(found.ids[0, kept])) == kept.sum()
        assert (np.diff(found.scores[0, kept]) <= 0).all()
        if metric == "cosine" and kept.any() and k >= 5:
            # a graph may miss some, but not all that are as near as can be
            assert found.scores[0, 0] > expected[-1][0] - 1e-6

    @precondition(lambda self: not self.model.images)
    @rule()
    def search_nothing(self) -> None:
        with pytest.raises(ValueError, match="the index is empty"):
            self.index.search_embeddings([[1.0, 0.0, 0.0]])

    @invariant()
    def holds_the_images(self) -> None:
        if getattr(self, "index", None) is not None:
            assert self.index.gallery.ids.tolist() == [image["id"] for image in self.model.images]

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


IndexMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
TestIndexMachine = IndexMachine.TestCase
