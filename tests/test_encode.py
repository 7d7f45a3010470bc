"""`model.encode`: whatever a user has of images, the same embeddings as by hand."""

from __future__ import annotations

import subprocess
import sys
import threading

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from idml_hf import IDMLForMetricLearning, IDMLImageProcessor, IDMLModel, embedding
from idml_hf.data import ImageSet
from idml_hf.embedding import Embeddings
from idml_hf.similarity import introspective_similarity


def build(**config):
    torch.manual_seed(0)
    sizes = {"embedding_dim": 16, "uncertainty_dim": 8, "image_size": 32, "reference_size": 20}
    return IDMLModel.from_backbone("test_resnet", pretrained=False, **(sizes | config))


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture(scope="module")
def pictures():
    """Pictures of several sizes, of which 16 fill two batches of 7 and leave some."""
    random = np.random.default_rng(0)
    shapes = [(40, 40), (40, 56), (64, 33)]
    return [Image.fromarray(random.integers(0, 256, (*shapes[i % 3], 3), dtype=np.uint8)) for i in range(16)]


@pytest.fixture(scope="module")
def by_hand(model, pictures):
    processor = IDMLImageProcessor.from_backbone("test_resnet", image_size=32)
    with torch.no_grad():
        rows = [model(**processor(picture, return_tensors="pt")) for picture in pictures]
    return {key: torch.cat([row[key] for row in rows]).numpy() for key in ("semantic_embeds", "uncertainty_embeds")}


def assert_same(found, by_hand, rows=slice(None)):
    assert isinstance(found, Embeddings)
    np.testing.assert_allclose(found.semantic, by_hand["semantic_embeds"][rows], atol=2e-5)
    np.testing.assert_allclose(found.uncertainty_embeds, by_hand["uncertainty_embeds"][rows], atol=2e-5)
    np.testing.assert_allclose(found.uncertainty, np.linalg.norm(found.uncertainty_embeds, axis=1), rtol=1e-5)
    assert all(x.dtype == np.float32 for x in (found.semantic, found.uncertainty_embeds, found.uncertainty))


class TestKindsOfImages:
    def test_pil_images(self, model, pictures, by_hand):
        assert_same(model.encode(pictures, batch_size=7), by_hand)

    def test_one_image(self, model, pictures, by_hand):
        assert_same(model.encode(pictures[3]), by_hand, [3])

    def test_paths(self, model, pictures, by_hand, tmp_path):
        paths = [tmp_path / f"{i}.png" for i in range(len(pictures))]
        for path, picture in zip(paths, pictures, strict=True):
            picture.save(path)
        assert_same(model.encode(paths, batch_size=5), by_hand)
        assert_same(model.encode(str(paths[2])), by_hand, [2])

    def test_arrays_and_tensors(self, model, pictures, by_hand):
        arrays = [np.asarray(picture) for picture in pictures]
        assert_same(model.encode(arrays), by_hand)
        assert_same(model.encode([torch.from_numpy(array.copy()).permute(2, 0, 1) for array in arrays]), by_hand)

    def test_a_mixture(self, model, pictures, by_hand, tmp_path):
        pictures[0].save(tmp_path / "a.png")
        mixed = [tmp_path / "a.png", pictures[1], np.asarray(pictures[2])]
        assert_same(model.encode(mixed), by_hand, slice(3))

    def test_an_image_set(self, model, pictures, by_hand):
        square = pictures[::3]
        images = ImageSet.from_arrays(
            np.stack([np.asarray(p) for p in square]), np.zeros(len(square), int), ["x"], "t"
        )
        assert_same(model.encode(images), by_hand, slice(None, None, 3))

    @pytest.mark.parametrize("form", ["plain", "torch", "streaming"])
    def test_a_data_set(self, model, pictures, by_hand, form):
        table = datasets.Dataset.from_dict({"image": pictures, "label": list(range(16))})
        table = table.cast_column("image", datasets.Image())
        table = {"plain": table, "torch": table.with_format("torch"), "streaming": table.to_iterable_dataset()}[form]
        assert_same(model.encode(table), by_hand)

    def test_a_matrix_for_a_model_of_vectors(self):
        torch.manual_seed(0)
        model = IDMLModel.from_backbone("vectors", pretrained=False, backbone_kwargs={"width": 12}, embedding_dim=4)
        matrix = np.random.default_rng(0).normal(size=(10, 12))
        with torch.no_grad():
            out = model(torch.from_numpy(matrix).float())
        found = model.encode(matrix, batch_size=3)
        np.testing.assert_allclose(found.semantic, out.semantic_embeds.numpy(), atol=1e-6)
        np.testing.assert_allclose(found.uncertainty, out.uncertainty.numpy(), rtol=1e-5)


class TestOptions:
    def test_bf16_is_near_to_fp32(self, model, pictures):
        exact, half = model.encode(pictures), model.encode(pictures, precision="bf16")
        assert (exact.semantic * half.semantic).sum(1).min() > 0.999
        assert half.semantic.dtype == np.float32 and not np.array_equal(exact.semantic, half.semantic)
        np.testing.assert_allclose(np.linalg.norm(half.semantic, axis=1), 1.0, atol=1e-5)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}

    @pytest.mark.parametrize("there", [True, False])
    def test_a_processor_without_bf16_is_said_to_be_slow(self, model, pictures, there, monkeypatch):
        said = []
        monkeypatch.setattr(embedding, "_has_bf16", lambda: there)
        monkeypatch.setattr(embedding.logger, "warning_once", said.append)
        model.encode(pictures[:1], device="cpu")
        assert not said
        model.encode(pictures[:1], device="cpu", precision="bf16")
        assert ["no bf16 arithmetic" in message for message in said] == [True] * (not there)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
    def test_models_of_other_types_take_the_processors_pixels(self, model, pictures, dtype):
        other = build().to(dtype)
        processor = IDMLImageProcessor.from_backbone("test_resnet", image_size=32)
        with torch.no_grad():
            direct = other(**processor(pictures[:3], return_tensors="pt")).semantic_embeds
        found = other.encode(pictures[:3])
        np.testing.assert_allclose(found.semantic, direct.float().numpy(), atol=1e-2)
        assert (found.semantic * model.encode(pictures[:3]).semantic).sum(1).min() > 0.99

    @pytest.mark.parametrize("training", [True, False])
    def test_the_mode_stays(self, pictures, training):
        model = build(freeze_batch_norm=True).train(training)
        modes = [module.training for module in model.modules()]
        state = {name: value.clone() for name, value in model.state_dict().items()}
        model.encode(pictures)
        assert [module.training for module in model.modules()] == modes
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())

    def test_progress(self, model, pictures, capsys):
        model.encode(pictures[:2])
        assert not capsys.readouterr().err
        model.encode(pictures[:2], progress=True)
        assert "Embedding" in capsys.readouterr().err

    def test_the_processor_that_was_saved_beside_the_model(self, pictures, tmp_path):
        build().save_pretrained(tmp_path)
        IDMLImageProcessor.from_backbone("test_resnet", image_size=32, crop_pct=0.6).save_pretrained(tmp_path)
        loaded = IDMLModel.from_pretrained(tmp_path)
        processor = IDMLImageProcessor.from_pretrained(tmp_path)
        with torch.no_grad():
            expected = loaded(**processor(pictures[::3], return_tensors="pt")).semantic_embeds.numpy()
        np.testing.assert_allclose(loaded.encode(pictures[::3]).semantic, expected, atol=2e-5)

    def test_the_model_inside_one_with_a_loss(self, pictures):
        full = IDMLForMetricLearning.from_backbone(
            "test_resnet", pretrained=False, embedding_dim=16, image_size=32, num_train_classes=3
        )
        assert full.idml.encode(pictures[:2]).semantic.shape == (2, 16)

    def test_what_is_refused(self, model, pictures, tmp_path):
        before = set(threading.enumerate())
        with pytest.raises(ValueError, match="Unknown precision 'fp16'"):
            model.encode(pictures, precision="fp16")
        with pytest.raises(FileNotFoundError, match="nothing"):
            model.encode([tmp_path / "nothing.png"])
        with pytest.raises(ValueError, match="no images"):
            model.encode([])
        (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nxx")
        with pytest.raises(ValueError, match=r"broken.png"):
            model.encode([*[tmp_path / "broken.png"] * 3])
        # what reads ahead ends with the call
        for thread in set(threading.enumerate()) - before:
            thread.join(timeout=10)
        assert set(threading.enumerate()) <= before


class TestSimilarity:
    def test_is_the_cosine(self, model, pictures):
        a, b = model.encode(pictures[:5]), model.encode(pictures[5:])
        expected = a.semantic @ b.semantic.T
        for left, right in ((a, b), (a.semantic, b.semantic), (torch.from_numpy(a.semantic), b)):
            np.testing.assert_allclose(model.similarity(left, right), expected, atol=1e-6)

    def test_introspective(self, model, pictures):
        a, b = model.encode(pictures[:5]), model.encode(pictures[5:])
        tensors = [torch.from_numpy(x) for x in (a.semantic, a.uncertainty_embeds, b.semantic, b.uncertainty_embeds)]
        expected = introspective_similarity(*tensors, form="ratio", tau=5.0)
        np.testing.assert_allclose(model.similarity(a, b, introspective=True), expected.numpy(), atol=1e-6)
        with pytest.raises(ValueError, match="uncertainty_embeds"):
            model.similarity(a.semantic, b.semantic, introspective=True)
        released = build(method="released")
        with pytest.raises(ValueError, match="'released' compares images with proxies"):
            released.similarity(a, b, introspective=True)


def test_where_the_package_is_not_installed_it_says_so(tmp_path):
    """The model came with its code; only that is to be imported."""
    build().save_pretrained(tmp_path / "model")
    code = f"""
import sys
from importlib import import_module
from idml_hf import IDMLModel
import numpy as np
model = IDMLModel.from_pretrained({str(tmp_path / "model")!r})
for name in [name for name in sys.modules if name.split(".")[0] == "idml_hf"]:
    del sys.modules[name]
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "idml_hf":
            raise ModuleNotFoundError("No module named 'idml_hf'", name="idml_hf")
sys.meta_path.insert(0, Gone())
print(model.similarity(np.eye(2), np.eye(2)).tolist())
try:
    model.encode([])
except ImportError as error:
    print(error)
"""
    lines = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split("\n")
    assert lines[0] == "[[1.0, 0.0], [0.0, 1.0]]"
    assert lines[1].startswith("encode needs the package: pip install idml-hf.")
