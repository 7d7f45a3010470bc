from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from idml_hf import IDMLIndex, IDMLModel
from idml_hf.data import ImageSet, UnreadableImageError, load_images
from idml_hf.model_reference import ModelMismatchError
from idml_hf.search.arrays import unit_rows
from idml_hf.search.exact import top_k


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return load_images("emoji-mini", split="test").select(range(40))


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    model = IDMLModel.from_backbone("test_efficientnet", pretrained=False, embedding_dim=16, image_size=48)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def index(images: ImageSet, model_folder: Path) -> IDMLIndex:
    return IDMLIndex.build(str(model_folder), images, progress=False)


def test_an_image_of_the_gallery_finds_itself_with_class_path_and_uncertainty(
    index: IDMLIndex, images: ImageSet
) -> None:
    result = index.search([images[3], images[30]], k=4)
    assert result.ids[:, 0].tolist() == [3, 30]
    assert result.scores[:, 0] == pytest.approx(1.0)
    assert result.labels[:, 0].tolist() == images.labels[[3, 30]].tolist()
    assert result.names[1, 0] == images.class_names[images.labels[30]]
    assert result.paths[0, 0] == images.image_id(3)
    assert result.uncertainty == pytest.approx(result.match_uncertainty[:, 0], rel=1e-5)
    assert (np.diff(result.scores, axis=1) <= 0).all()
    assert result.confidence is None and result.abstained is None


def test_saved_and_moved_with_its_model_it_answers_the_same(
    index: IDMLIndex, images: ImageSet, model_folder: Path, tmp_path: Path
) -> None:
    demo = tmp_path / "demo"
    shutil.copytree(model_folder, demo / "model")
    IDMLIndex.build(demo / "model", images, progress=False).save(demo / "index")
    moved = demo.rename(tmp_path / "elsewhere")
    loaded = IDMLIndex.load(moved / "index")
    assert isinstance(loaded.gallery.semantic.base, np.memmap)
    query = moved / "query.png"
    images[7].save(query)
    expected, found = index.search(images[7], k=5), loaded.search(query, k=5)
    assert found.ids.tolist() == expected.ids.tolist()
    assert found.scores.tolist() == expected.scores.tolist()
    assert found.queries == (str(query),)
    assert found.names.tolist() == expected.names.tolist()
    assert loaded.gallery.thumbnails is not None
    assert loaded.gallery.thumbnails.image(7).tobytes() == images[7].tobytes()


def test_another_model_is_refused(index: IDMLIndex, model_folder: Path, tmp_path: Path) -> None:
    index.save(tmp_path / "index")
    torch.manual_seed(1)
    other = IDMLModel.from_backbone("test_efficientnet", pretrained=False, embedding_dim=16, image_size=48)
    with pytest.raises(ModelMismatchError, match="is not the one that made the index"):
        IDMLIndex.load(tmp_path / "index", model=other)
    assert IDMLIndex.load(tmp_path / "index", model=model_folder).model is not None
    with pytest.raises(ValueError, match="have 8 dimensions, those of the index 16"):
        index.search_embeddings(np.ones((1, 8)))
    moved = IDMLIndex.load(shutil.copytree(tmp_path / "index", tmp_path / "a" / "b" / "index"))
    with pytest.raises(FileNotFoundError, match="give its new place as model="):
        moved.search(Image.new("RGB", (8, 8)))


@pytest.mark.parametrize("with_faiss", [True, False])
def test_flat_search_equals_exact_top_k_also_among_duplicates(
    with_faiss: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if with_faiss:
        pytest.importorskip("faiss")
    else:
        monkeypatch.setattr(sys.modules["idml_hf.search.faiss_exact"], "faiss", None)
    random = np.random.default_rng(0)
    gallery = random.integers(-1, 2, (300, 6)).astype(np.float32) + 0.01
    gallery[100:130] = gallery[5]
    index = IDMLIndex.from_embeddings(gallery)
    queries = gallery[:50] + 0.1 * (np.arange(50) % 3)[:, None].astype(np.float32)
    queries = unit_rows(queries, "queries")
    expected = top_k(queries, index.gallery.semantic, 7)
    result = index.search_embeddings(queries, k=7)
    assert result.ids.tolist() == expected[1].tolist()
    assert result.scores == pytest.approx(expected[0].numpy(), abs=1e-6)


def test_a_gallery_of_one_and_k_beyond_it(caplog: pytest.LogCaptureFixture) -> None:
    index = IDMLIndex.from_embeddings([[3.0, 4.0]], labels=[0], class_names=["cat"])
    result = index.search_embeddings([[3.0, 4.0]], k=5)
    assert result.ids.tolist() == [[0]] and result.names.tolist() == [["cat"]]
    assert "the index holds 1 images" in caplog.text


def test_bad_queries_are_named(index: IDMLIndex, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    whole = tmp_path / "whole.jpg"
    Image.effect_noise((64, 64), 50).convert("RGB").save(whole)
    (tmp_path / "half.jpg").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    Image.new("1", (10_000, 10_000)).save(tmp_path / "huge.png")
    for name, message in (
        ("text.jpg", "is not an image in a known format"),
        ("half.jpg", "cannot be decoded"),
        ("huge.png", "10000 x 10000 pixels"),
    ):
        with pytest.raises(UnreadableImageError, match=message) as error:
            index.search([whole, tmp_path / name])
        assert str(error.value).count(name) == 1
    with pytest.raises(FileNotFoundError, match="there is no image nowhere"):
        index.search("nowhere.png")
    with pytest.raises(UnreadableImageError, match="10000 x 10000 pixels"):
        index.search(Image.new("1", (10_000, 10_000)))
    with pytest.raises(TypeError, match="is a int"):
        index.search([5])
    with pytest.raises(ValueError, match="k must be at least 1"):
        index.search_embeddings(np.ones((1, 16)), k=0)
    with pytest.raises(ValueError, match="Unknown metric"):
        index.search_embeddings(np.ones((1, 16)), metric="manhattan")


def test_bad_columns_are_named() -> None:
    for arguments, message in (
        ({"semantic": [[np.nan, 1.0]]}, "NaN or infinite values, first in row 0"),
        ({"semantic": [[1.0, 0.0], [0.0, 0.0]]}, "no direction in row 1"),
        ({"semantic": np.eye(2), "labels": [0]}, "labels must be 2 integers"),
        ({"semantic": np.eye(2), "labels": [0, 2], "class_names": ["a"]}, "labels must be -1 to 0"),
        ({"semantic": np.eye(2), "ids": [4, 4]}, "different from each other"),
        ({"semantic": np.eye(2), "paths": ["a"]}, "1 paths for 2 embeddings"),
        ({"semantic": np.eye(2), "uncertainty_embeds": np.ones((3, 1))}, "matrix of 2 rows"),
    ):
        with pytest.raises(ValueError, match=message):
            IDMLIndex.from_embeddings(**arguments)


def test_an_index_of_arrays_alone_searches_arrays_alone(tmp_path: Path) -> None:
    IDMLIndex.from_embeddings(np.eye(3), labels=[7, 7, 9]).save(tmp_path)
    index = IDMLIndex.load(tmp_path)
    assert index.search_embeddings(np.eye(3)[2:], k=1).names.tolist() == [["9"]]
    with pytest.raises(ValueError, match="does not say where its model is"):
        index.search(Image.new("RGB", (8, 8)))
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [".lock", "index.json"]
    assert not any(name.endswith((".pkl", ".pickle")) for _, _, names in os.walk(tmp_path) for name in names)


def test_a_loaded_index_searches_after_faiss_was_patched_for_torch(tmp_path):
    """As by whoever imports pytorch-metric-learning."""
    pytest.importorskip("faiss.contrib.torch_utils")
    IDMLIndex.from_embeddings(np.eye(3)).save(tmp_path / "index")
    loaded = IDMLIndex.load(tmp_path / "index")
    assert loaded.search_embeddings(np.eye(3), k=1).ids.ravel().tolist() == [0, 1, 2]
