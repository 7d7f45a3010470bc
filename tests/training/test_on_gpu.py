"""What only a GPU can show: half precision, compilation, and search where the model is."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from idml_hf import IDMLImageProcessor, IDMLIndex, IDMLModel
from idml_hf.data import load_images
from idml_hf.evaluation import retrieval_metrics
from idml_hf.losses import LOSSES, build_loss
from idml_hf.training import RetrievalRun, train_retrieval

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("compile", [False, True])
def test_a_few_steps(precision, compile, tmp_path):
    run = RetrievalRun(
        output=str(tmp_path),
        backbone="test_resnet",
        pretrained=False,
        image_size=48,
        batch_size=64,
        precision=precision,
        compile=compile,
        augment_on_device=True,
        trainer={"max_steps": 20, "logging_steps": 5, "save_strategy": "no"},
    )
    metrics = train_retrieval(run, progress=False)
    log = [entry["loss"] for entry in json.loads((tmp_path / "run.json").read_text())["log"] if "loss" in entry]
    assert np.isfinite(log).all() and log[-1] < log[0]
    assert metrics["recall_at_1"] > 0.1


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_under_autocast(name, dtype):
    torch.manual_seed(0)
    labels = torch.arange(64, device="cuda") // 4
    semantic = torch.nn.functional.normalize(torch.randn(64, 32, device="cuda")).requires_grad_()
    uncertainty = torch.rand(64, 32, device="cuda").requires_grad_()
    loss = build_loss(name, 16, 32).cuda()
    torch.manual_seed(1)
    plain = loss(semantic, uncertainty, labels)
    torch.manual_seed(1)
    with torch.autocast("cuda", dtype):
        value = loss(semantic, uncertainty, labels)
    value.backward()
    torch.testing.assert_close(value, plain)
    assert semantic.grad.isfinite().all() and uncertainty.grad.isfinite().all()


def test_search_and_metrics_equal_those_of_the_cpu():
    images = load_images("emoji-mini", "test").select(range(300))
    model = IDMLModel.from_backbone("test_resnet", pretrained=False, embedding_dim=32).eval()
    processor = IDMLImageProcessor.from_backbone("test_resnet", image_size=48)
    there = IDMLIndex.build(model.cuda(), images, processor, device="cuda", progress=False)
    found = there.search_embeddings(there.gallery.semantic, there.gallery.uncertainty_embeds, k=3)
    there.device = torch.device("cpu")
    expected = there.search_embeddings(there.gallery.semantic, there.gallery.uncertainty_embeds, k=3)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    on_gpu, on_cpu = (
        retrieval_metrics(there.gallery.semantic, images.labels, groups=images.groups, device=device)
        for device in ("cuda", "cpu")
    )
    assert on_gpu["recall_at_1"] == pytest.approx(on_cpu["recall_at_1"], abs=0.01)
