from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from idml_hf import IDMLIndex, IDMLModel
from idml_hf.index.milvus import IDMLMilvusIndex
from idml_hf.model_reference import ModelMismatchError

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")


def flat_index(number: int = 400) -> IDMLIndex:
    random = np.random.default_rng(0)
    rows, u = random.standard_normal((number, 12)), np.abs(random.standard_normal((number, 3)))
    rows[17] = rows[10]
    labels = np.arange(number) % 4
    paths = [f"{i}.png" for i in range(number)]
    return IDMLIndex.from_embeddings(rows, u, labels=labels, class_names=["a", "b", "c", "d"], paths=paths)


def test_built_reopened_and_searched_it_finds_what_the_flat_index_finds(tmp_path: Path) -> None:
    index = flat_index()
    queries = np.concatenate([np.random.default_rng(1).standard_normal((30, 12)), index.gallery.semantic[:30]])
    u = np.abs(np.random.default_rng(2).standard_normal((60, 3)))
    expected = index.search_embeddings(queries, u, k=7)
    with IDMLMilvusIndex.create(index, tmp_path / "gallery.db") as gallery:
        assert len(gallery) == 400
        built = gallery.search_embeddings(queries, u, k=7)
    with IDMLMilvusIndex.open(tmp_path / "gallery.db") as gallery:
        reopened = gallery.search_embeddings(queries, u, k=7)
    for found in (built, reopened):
        for name in ("ids", "labels", "names", "paths"):
            assert getattr(found, name).tolist() == getattr(expected, name).tolist()
        assert found.scores == pytest.approx(expected.scores, abs=1e-9)
        assert found.uncertainty == pytest.approx(expected.uncertainty)
        assert found.match_uncertainty == pytest.approx(expected.match_uncertainty)


def test_images_come_and_go_and_classes_are_matched_by_name(tmp_path: Path) -> None:
    index = flat_index(50)
    columns = {"labels": [0, 1], "class_names": ["d", "new"], "ids": [90, 91]}
    more = IDMLIndex.from_embeddings(np.eye(12)[:2], np.ones((2, 3)), **columns)
    with IDMLMilvusIndex.create(index, tmp_path / "gallery.db", "photos") as gallery:
        gallery.add(more.gallery)
        gallery.remove([0, 1])
        assert len(gallery) == 50
    with IDMLMilvusIndex.open(tmp_path / "gallery.db", "photos") as gallery:
        found = gallery.search_embeddings(np.eye(12)[:2], k=1)
        assert found.ids.tolist() == [[90], [91]] and found.names.tolist() == [["d"], ["new"]]
        assert found.labels[0, 0] == 3
        gallery.remove(range(100))
        with pytest.raises(ValueError, match="the gallery is empty"):
            gallery.search_embeddings(np.eye(12)[:1])


def test_images_are_searched_for_by_the_model_beside_the_file(tmp_path: Path) -> None:
    images = [Image.effect_noise((40, 40), 20 * (i + 1)).convert("RGB") for i in range(4)]
    folder = tmp_path / "demo"
    IDMLModel.from_backbone("test_efficientnet", pretrained=False, embedding_dim=8, image_size=32).save_pretrained(
        folder / "model"
    )
    index = IDMLIndex.build(folder / "model", images, progress=False)
    IDMLMilvusIndex.create(index, folder / "gallery.db").close()
    shutil.move(folder, tmp_path / "moved")
    with IDMLMilvusIndex.open(tmp_path / "moved" / "gallery.db") as gallery:
        assert gallery.search(images[2], k=2).ids.tolist() == index.search(images[2], k=2).ids.tolist()
        other = IDMLModel.from_backbone("test_efficientnet", pretrained=False, embedding_dim=8, image_size=48)
    with pytest.raises(ModelMismatchError):
        IDMLMilvusIndex.open(tmp_path / "moved" / "gallery.db", model=other)


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no Milvus file"):
        IDMLMilvusIndex.open(tmp_path / "gallery.db")
    with IDMLMilvusIndex.create(flat_index(20), tmp_path / "gallery.db") as gallery:
        with pytest.raises(ValueError, match="queries have 5 dimensions, the gallery 12"):
            gallery.search_embeddings(np.ones((1, 5)))
        with pytest.raises(ValueError, match="k must be at least 1"):
            gallery.search_embeddings(np.ones((1, 12)), k=0)
        assert gallery.search_embeddings(np.ones((1, 12)), k=99).ids.shape == (1, 20)
    with pytest.raises(FileExistsError, match="has a collection idml already"):
        IDMLMilvusIndex.create(flat_index(20), tmp_path / "gallery.db")
    with pytest.raises(FileNotFoundError, match="no collection nothing"):
        IDMLMilvusIndex.open(tmp_path / "gallery.db", "nothing")


def test_plain_labels_keep_their_numbers_and_names_their_classes(tmp_path: Path) -> None:
    rows = np.eye(12)
    numbers = IDMLIndex.from_embeddings(rows[:3], labels=[0, 1, 2])
    named = IDMLIndex.from_embeddings(rows[3:5], labels=[0, 1], class_names=["cat", "dog"], ids=[10, 11])
    with IDMLMilvusIndex.create(numbers, tmp_path / "numbers.db") as gallery:
        with pytest.raises(ValueError, match="have no names, but those of the new images do"):
            gallery.add(named.gallery)
        found = gallery.search_embeddings(rows[:3], k=1)
        assert found.names.ravel().tolist() == ["0", "1", "2"] and len(gallery) == 3
        gallery.remove(np.arange(3))
        gallery.add(named.gallery)
    with IDMLMilvusIndex.open(tmp_path / "numbers.db") as gallery:
        assert gallery.search_embeddings(rows[3:5], k=1).names.ravel().tolist() == ["cat", "dog"]
        with pytest.raises(ValueError, match="need names"):
            gallery.add(numbers.gallery)
        unknown = IDMLIndex.from_embeddings(rows[5:6], ids=[20])
        gallery.add(unknown.gallery)
        assert gallery.search_embeddings(rows[5:6], k=1).names.tolist() == [[""]]


def test_more_ties_than_are_asked_for_are_in_the_order_of_their_ids(tmp_path: Path) -> None:
    rows = np.repeat(np.random.default_rng(0).standard_normal((2, 12)), 60, axis=0)
    index = IDMLIndex.from_embeddings(rows, ids=np.random.default_rng(1).permutation(120))
    with IDMLMilvusIndex.create(index, tmp_path / "gallery.db") as gallery:
        found = gallery.search_embeddings(rows[[0, 60]], k=np.int64(5))
        for row, ids in enumerate((index.gallery.ids[:60], index.gallery.ids[60:])):
            assert found.ids[row].tolist() == np.sort(ids)[:5].tolist()
        assert gallery.search_embeddings(np.empty((0, 12)), k=2).ids.shape == (0, 2)
        for ids in ([1.5], ["3"], [True]):
            with pytest.raises(ValueError, match="ids must be integers"):
                gallery.remove(ids)
        assert len(gallery) == 120
