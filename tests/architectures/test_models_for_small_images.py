"""The package's own architectures: their sizes are those known for them, and they work as timm's do."""

from __future__ import annotations

import pytest
import timm
import torch

import idml_hf.architectures
from idml_hf import IDMLForImageClassification, IDMLImageProcessor


# PyramidNet: Han et al., 2017 (26.8 M), to the digit in imgclsmob's tables; ResNet-50 with a 3 x 3 stem: 23.5 M for 10
# classes, as in the CIFAR models of kuangliu and weiaicunzai.
@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("pyramidnet200_a240", 100, 26_844_952),
        ("pyramidnet200_a240", 10, 26_752_702),
        ("resnet50_small", 10, 23_520_842),
        ("resnet50_small", 100, 23_705_252),
    ],
)
def test_known_numbers_of_parameters(name, classes, parameters):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=classes)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_depth_of_pyramidnet200():
    """200 layers: one stem, 22 x 3 blocks of three convolutions, one classifier."""
    with torch.device("meta"):
        model = timm.create_model("pyramidnet200_a240")
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) + 1 == 200
    assert convolutions[-1].out_channels == (16 + 240) * 4


def small(name):
    if name == "pyramidnet200_a240":
        return {"depth": 20, "alpha": 12}
    return {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16)} if name == "resnet50_small" else {}


@pytest.mark.parametrize(("name", "side"), [("pyramidnet200_a240", 8), ("resnet50_small", 4), ("resnet8_small", 4)])
def test_they_are_timm_models(name, side):
    model = timm.create_model(name, num_classes=7, **small(name)).eval()
    x = torch.randn(2, 3, 32, 32)
    features = model.forward_features(x)
    assert features.shape == (2, model.num_features, side, side)
    assert torch.equal(model(x), model.forward_head(features))
    trunk = timm.create_model(name, num_classes=0, global_pool="", **small(name))
    assert trunk(x).shape == features.shape
    model.reset_classifier(3)
    assert model(x).shape == (2, 3)
    model.set_grad_checkpointing(True)
    model.train()
    x.requires_grad_(True)
    model(x).sum().backward()
    assert torch.isfinite(x.grad).all() and (x.grad != 0).any()


def test_pyramid_shortcuts_pad_with_zeros():
    """A block whose residual branch is 0 gives its input, pooled, and zeros for the new channels."""
    block = idml_hf.architectures.pyramidnet.PyramidBottleneck(8, 3, stride=2).eval()
    torch.nn.init.zeros_(block.bn4.weight)
    x = torch.randn(1, 8, 4, 4)
    y = block(x)
    torch.testing.assert_close(y[:, :8], torch.nn.functional.avg_pool2d(x, 2))
    assert y.shape == (1, 12, 2, 2) and (y[:, 8:] == 0).all()


def test_a_depth_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="9 n \\+ 2"):
        idml_hf.architectures.PyramidNet(depth=100)


def test_as_trunk_of_a_classifier_it_survives_saving(tmp_path):
    model = IDMLForImageClassification.from_backbone(
        "pyramidnet200_a240", pretrained=False, num_labels=5, backbone_kwargs=small("pyramidnet200_a240")
    )
    x = torch.randn(2, 3, 32, 32)
    before = model(x).logits
    model.save_pretrained(tmp_path)
    assert torch.equal(IDMLForImageClassification.from_pretrained(tmp_path).eval()(x).logits, before)
    processor = IDMLImageProcessor.from_backbone("pyramidnet200_a240")
    assert processor.crop_size == {"height": 32, "width": 32}
    assert processor.image_std[0] == pytest.approx(63 / 255)
