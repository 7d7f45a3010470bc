"""The vector of statistics that heads read, and models that read it or take vectors in its place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from idml_hf import IDMLForMetricLearning, IDMLModel
from idml_hf.feature_statistics import STAGE_WEIGHT, root_statistics


def written_out(last: np.ndarray, maps: list[np.ndarray]) -> np.ndarray:
    """The same, one image and one statistic at a time."""
    rows = []
    for i in range(len(last)):
        parts = [(1.0, last[i].mean(0)), (1.0, last[i].max(0))]
        for x in maps:
            channels = x[i].reshape(len(x[i]), -1)
            parts += [(STAGE_WEIGHT, f(channels, axis=1)) for f in (np.mean, np.std, np.max)]
        vector = []
        for weight, part in parts:
            root = np.sign(part) * np.sqrt(np.abs(part))
            vector.append(weight * root / np.linalg.norm(root))
        row = np.concatenate(vector)
        rows.append(row / np.linalg.norm(row))
    return np.stack(rows)


def test_statistics_are_those_written_out():
    random = np.random.default_rng(0)
    last, maps = random.normal(size=(3, 6, 5)), [random.normal(size=(3, 4, 2, 3)), random.normal(size=(3, 2, 5, 5))]
    given = root_statistics(torch.from_numpy(last), [torch.from_numpy(x) for x in maps]).numpy()
    assert np.abs(given - written_out(last, maps)).max() < 1e-5


def test_the_gradient_is_finite_where_a_map_is_all_zeros():
    x = torch.zeros(2, 4, 3, requires_grad=True)
    maps = [torch.zeros(2, 5, 2, 2, requires_grad=True)]
    root_statistics(x, maps).sum().backward()
    assert x.grad.isfinite().all() and maps[0].grad.isfinite().all()


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_convnext"])
def test_a_model_reads_them_and_is_saved_with_them(backbone, tmp_path):
    size = 160 if backbone == "test_vit" else 64
    model = IDMLModel.from_backbone(backbone, pretrained=False, embedding_dim=8, pool="statistics")
    assert model.semantic_head.in_features == model.feature_width > 2 * model.backbone.num_features
    pixels = torch.randn(2, 3, size, size)
    with torch.no_grad():
        pooled = model.features(pixels)[1]
        assert torch.allclose(pooled.norm(dim=1), torch.ones(2), atol=1e-3)
        model.save_pretrained(tmp_path)
        again = IDMLModel.from_pretrained(tmp_path)
        assert torch.allclose(again(pixels).semantic_embeds, model(pixels).semantic_embeds, atol=1e-6)


def test_a_model_of_vectors_is_trained_saved_and_loaded(tmp_path):
    model = IDMLForMetricLearning.from_backbone(
        "vectors", pretrained=False, backbone_kwargs={"width": 10}, embedding_dim=4, num_train_classes=3
    ).train()
    model(torch.randn(9, 10), labels=torch.arange(9) % 3).loss.backward()
    assert model.idml.semantic_head.weight.grad.abs().sum() > 0
    model.eval().idml.save_pretrained(tmp_path)
    vectors = torch.randn(5, 10)
    out = IDMLModel.from_pretrained(tmp_path)(vectors)
    with torch.no_grad():
        assert torch.allclose(out.semantic_embeds, model.idml(3 * vectors).semantic_embeds, atol=1e-5)
        with pytest.raises(ValueError, match=r"takes \(B, 10\) vectors, got \(5, 9\)"):
            model(vectors[:, :9])


def test_heads_learnt_on_stored_statistics_are_those_of_the_model_that_takes_pictures():
    config = {"embedding_dim": 8, "uncertainty_dim": 4, "reference_size": 16}
    pictures = IDMLModel.from_backbone("test_resnet", pretrained=False, pool="statistics", **config)
    width = {"width": pictures.feature_width}
    vectors = IDMLModel.from_backbone("vectors", pretrained=False, backbone_kwargs=width, **config)
    heads = {k: v for k, v in pictures.state_dict().items() if not k.startswith("backbone.")}
    vectors.load_state_dict(heads)
    pixels = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        stored = pictures.features(pixels)[1]
        given, expected = vectors(stored), pictures(pixels)
    assert torch.allclose(given.semantic_embeds, expected.semantic_embeds, atol=1e-5)
    assert torch.allclose(given.uncertainty_embeds, expected.uncertainty_embeds, atol=1e-5)
