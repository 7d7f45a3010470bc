from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hostile_index import make_checksums_fit
from PIL import Image

from idml_hf import IDMLIndex, IDMLModel
from idml_hf.index_files import IndexFileError
from idml_hf.search.arrays import unit_rows
from idml_hf.search.exact import top_k
from idml_hf.search.faiss_files import _check_graph


def clustered(number: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(9).standard_normal((50, 16))
    return unit_rows(centres[random.integers(0, 50, number)] + 0.3 * random.standard_normal((number, 16)), "rows")


def test_add_then_search_equals_building_at_once_and_classes_join_by_name() -> None:
    rows = clustered(300)
    names = ["cat", "dog", "emu"]
    whole = IDMLIndex.from_embeddings(rows, labels=np.arange(300) % 3, class_names=names)
    index = IDMLIndex.from_embeddings(rows[:200], labels=np.arange(200) % 3, class_names=names)
    ids = index.add_embeddings(rows[200:], labels=2 - np.arange(200, 300) % 3, class_names=names[::-1])
    assert ids.tolist() == list(range(200, 300))
    queries = clustered(20, seed=1)
    for metric in ("cosine", "introspective"):
        found, expected = (each.search_embeddings(queries, k=9, metric=metric) for each in (index, whole))
        assert found.ids.tolist() == expected.ids.tolist()
        assert found.names.tolist() == expected.names.tolist()


@pytest.mark.parametrize("engine", ["flat", "ivf", "hnsw"])
def test_remove_keeps_the_other_ids_and_never_gives_an_old_one_again(engine: str, tmp_path: Path) -> None:
    rows = clustered(100)
    index = IDMLIndex.from_embeddings(rows)
    if engine != "flat":
        pytest.importorskip("faiss")
        index.use_engine(engine)
    index.remove([99, 3])
    assert len(index) == 98
    assert index.search_embeddings(rows[50:51], k=1).ids.tolist() == [[50]]
    assert index.search_embeddings(rows[3:4], k=1).ids[0, 0] not in (3, 99)
    with pytest.raises(KeyError, match="no image with id 3"):
        index.remove([4, 3])
    assert len(index) == 98
    index.save(tmp_path)
    index = IDMLIndex.load(tmp_path)
    assert index.add_embeddings(rows[3:4]).tolist() == [100]
    assert index.search_embeddings(rows[3:4], k=1).ids.tolist() == [[100]]


def test_images_are_added_with_thumbnails_by_the_model_of_the_index() -> None:
    model = IDMLModel.from_backbone("test_efficientnet", pretrained=False, embedding_dim=8, image_size=32)
    colors = ["red", "green", "blue", "white"]
    images = [Image.effect_noise((300, 200), 80).convert("RGB") for _ in colors]
    index = IDMLIndex.build(model, images[:3], thumbnail_size=32, progress=False)
    assert index.add(images[3:], progress=False).tolist() == [3]
    assert index.search(images[3], k=1).ids.tolist() == [[3]]
    thumbnails = index.gallery.thumbnails
    assert thumbnails is not None and len(thumbnails) == 4
    assert thumbnails.image(0).size == (32, 21)


def test_classes_with_and_without_names_do_not_mix() -> None:
    index = IDMLIndex.from_embeddings(np.eye(2), labels=[0, 1], class_names=["a", "b"])
    with pytest.raises(ValueError, match="need names"):
        index.add_embeddings(np.eye(2), labels=[0, 1])
    with pytest.raises(ValueError, match="id 1 is in the index already"):
        index.add_embeddings(np.eye(2), ids=[1, 7])
    with pytest.raises(ValueError, match="3 dimensions, those of the index 2"):
        index.add_embeddings(np.eye(3))
    assert len(index) == 2


@pytest.mark.parametrize("engine", ["ivf", "hnsw"])
def test_approximate_search_finds_nearly_all_and_survives_saving(engine: str, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    rows, queries = clustered(3000), clustered(200, seed=1)
    index = IDMLIndex.from_embeddings(rows, np.abs(clustered(3000, 2)))
    exact = {
        m: index.search_embeddings(queries, np.abs(clustered(200, 3)), k=10, metric=m)
        for m in ("cosine", "introspective")
    }
    index.use_engine(engine)
    index.save(tmp_path)
    loaded = IDMLIndex.load(tmp_path)
    for metric, expected in exact.items():
        found = index.search_embeddings(queries, np.abs(clustered(200, 3)), k=10, metric=metric)
        recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.ids, expected.ids, strict=True)])
        assert recall > 0.95
        again = loaded.search_embeddings(queries, np.abs(clustered(200, 3)), k=10, metric=metric)
        assert again.ids.tolist() == found.ids.tolist()
        common = found.ids == expected.ids
        assert found.scores[common] == pytest.approx(expected.scores[common], abs=1e-9)
    loaded.add_embeddings(queries)
    assert loaded.search_embeddings(queries[:5], k=1).ids[:, 0].tolist() == list(range(3000, 3005))


def test_probing_all_groups_is_exact() -> None:
    pytest.importorskip("faiss")
    rows = clustered(500)
    index = IDMLIndex.from_embeddings(rows)
    index.use_engine("ivf", nlist=10, nprobe=10)
    assert index.search_embeddings(rows[:50], k=8).ids.tolist() == top_k(rows[:50], rows, 8)[1].tolist()


def test_an_engine_that_proposes_too_few_leaves_the_rest_empty() -> None:
    pytest.importorskip("faiss")
    index = IDMLIndex.from_embeddings(clustered(40), labels=np.zeros(40, int))
    index.use_engine("ivf", nlist=20, nprobe=1)
    result = index.search_embeddings(clustered(1, 5), k=40)
    empty = result.ids[0] < 0
    assert empty.any() and not empty.all()
    assert (result.scores[0][empty] == -np.inf).all() and (result.labels[0][empty] == -1).all()
    assert len(result.to_dicts()[0]["matches"]) == (~empty).sum()


def test_a_graph_that_leads_outside_is_refused(tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    index = IDMLIndex.from_embeddings(clustered(100))
    index.use_engine("hnsw")
    index.save(tmp_path)
    (path,) = tmp_path.glob("data-*/engine.faiss")
    graph = faiss.read_index(str(path))
    links = faiss.vector_to_array(graph.hnsw.neighbors)
    links[0] = 10**6
    faiss.copy_array_to_vector(links, graph.hnsw.neighbors)
    faiss.write_index(graph, str(path))
    make_checksums_fit(tmp_path)
    with pytest.raises(IndexFileError, match=r"engine\.faiss is damaged: .*(out of range|lead nowhere)"):
        IDMLIndex.load(tmp_path)
    with pytest.raises(ValueError, match="links that lead nowhere"):  # by versions of faiss that do not look
        _check_graph(graph)
    assert issubclass(IndexFileError, ValueError)


def test_near_duplicates_are_the_pairs_of_brute_force() -> None:
    rows = clustered(2500)
    rows[100] = rows[7]
    index = IDMLIndex.from_embeddings(rows, ids=np.arange(2500) + 10)
    found = index.near_duplicates(threshold=0.95, max_pairs=10**6)
    cosines = rows.astype(np.float64) @ rows.astype(np.float64).T
    expected = np.argwhere(np.triu(cosines >= 0.95, 1))
    assert {tuple(pair) for pair in (found.ids - 10).tolist()} == {tuple(pair) for pair in expected.tolist()}
    assert found.ids[0].tolist() == [17, 110] and found.scores[0] == pytest.approx(1)
    assert (np.diff(found.scores) <= 0).all()
    few = index.near_duplicates(threshold=0.95, max_pairs=5)
    assert few.ids.tolist() == found.ids[:5].tolist()
    assert len(index.near_duplicates(threshold=1.0)) <= 1


def test_an_engine_finds_the_near_duplicates_among_nearest_neighbours() -> None:
    pytest.importorskip("faiss")
    rows = clustered(1000)
    rows[500:520] = unit_rows(rows[:20] + 0.001, "rows")
    index = IDMLIndex.from_embeddings(rows)
    exact = index.near_duplicates(threshold=0.999)
    index.use_engine("ivf", nlist=8, nprobe=8)
    found = index.near_duplicates(threshold=0.999)
    assert len(found) >= 20
    assert found.ids.tolist() == exact.ids.tolist() and found.scores.tolist() == exact.scores.tolist()
