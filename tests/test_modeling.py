"""The models: exact round trips on every kind of trunk, heads and base loading into each other, both kinds of head."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification

from idml_hf import IDMLConfig, IDMLForImageClassification, IDMLForMetricLearning, IDMLModel
from idml_hf.uncertainty_head import UncertaintyHead

TRUNKS = {
    "resnet18": {},
    "vit_tiny_patch16_224": {"img_size": 64},
    "swin_tiny_patch4_window7_224": {"img_size": 224},
    "vit_small_patch16_dinov3": {"img_size": 64},
    "tf_efficientnet_lite0": {},
}


def build(name: str, cls: type = IDMLModel, **config) -> nn.Module:
    config = {"embedding_dim": 16, "backbone_kwargs": TRUNKS.get(name) or None} | config
    return cls.from_backbone(name, pretrained=False, **config)


def disturb(model: nn.Module) -> None:
    """Give buffers values that no fresh model has."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
        if isinstance(module, UncertaintyHead):
            module.running_norm.fill_(3.7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", TRUNKS)
def test_a_saved_model_comes_back_bit_by_bit(name, dtype, tmp_path):
    model = build(name)
    disturb(model)
    model = model.to(dtype).eval()
    model.save_pretrained(tmp_path)
    torch.manual_seed(1)
    loaded, info = IDMLModel.from_pretrained(tmp_path, dtype=dtype, output_loading_info=True)
    assert not any(info.values())
    size = (TRUNKS[name] or {"img_size": 64})["img_size"]
    x = torch.randn(2, 3, size, size, dtype=dtype)
    with torch.no_grad():
        ours, theirs = model(x), loaded(x)
    for key in ("semantic_embeds", "uncertainty_embeds", "uncertainty", "semantic_norm", "last_hidden_state"):
        assert torch.equal(ours[key], theirs[key]), key
    buffers = dict(loaded.named_buffers())
    for key, buffer in model.named_buffers():
        assert torch.equal(buffer.nan_to_num(), buffers[key].to(buffer.dtype).nan_to_num()), key


def test_outputs():
    model = build("resnet18", uncertainty_dim=5)
    out = model(torch.randn(3, 3, 64, 64))
    torch.testing.assert_close(out.semantic_embeds.norm(dim=1), torch.ones(3))
    assert out.pooler_output is out.semantic_embeds
    assert out.uncertainty_embeds.shape == (3, 5)
    torch.testing.assert_close(out.uncertainty, out.uncertainty_embeds.norm(dim=1))
    # image-feature-extraction pipelines take the first field
    assert out[0] is out.semantic_embeds
    assert (out.semantic_norm > 0).all()


def test_timm_initialisation_is_kept():
    import timm

    torch.manual_seed(0)
    plain = timm.create_model("resnet18", num_classes=0, global_pool="")
    torch.manual_seed(0)
    ours = build("resnet18").trunk
    assert all(torch.equal(v, ours.state_dict()[k]) for k, v in plain.state_dict().items())


def test_trainer_checkpoint_loads_into_the_base_and_the_base_into_the_heads(tmp_path):
    full = build("resnet18", IDMLForMetricLearning, num_train_classes=7)
    disturb(full)
    full.save_pretrained(tmp_path / "full")
    base, info = IDMLModel.from_pretrained(tmp_path / "full", output_loading_info=True)
    assert not any(info.values())
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(base(x).uncertainty_embeds, full.idml.eval()(x).uncertainty_embeds)

    base.save_pretrained(tmp_path / "base")
    again, info = IDMLForMetricLearning.from_pretrained(
        tmp_path / "base", num_train_classes=9, loss="proxy_anchor", output_loading_info=True
    )
    assert info["missing_keys"] == {"loss.proxies"} and not info["unexpected_keys"]
    assert torch.equal(again.eval().idml(x).semantic_embeds, base(x).semantic_embeds)
    assert again.loss.proxies.shape == (9, 16) and again.loss.proxies.std() > 0.1

    reloaded, info = IDMLForMetricLearning.from_pretrained(tmp_path / "full", output_loading_info=True)
    assert not any(info.values())
    assert torch.equal(reloaded.loss.proxies, full.loss.proxies)

    classifier, info = IDMLForImageClassification.from_pretrained(
        tmp_path / "base", num_labels=4, output_loading_info=True
    )
    assert info["missing_keys"] == {"classifier.weight", "classifier.bias"}
    assert torch.equal(classifier.trunk.conv1.weight, base.trunk.conv1.weight)
    assert classifier.classifier.weight.isfinite().all() and classifier.classifier.weight.std() > 0.01


def test_missing_parameters_are_initialised(tmp_path):
    model = build("resnet18")
    gone = ("uncertainty_head.linear.weight", "backbone.layer1.0.conv1.weight", "uncertainty_head.running_norm")
    model.save_pretrained(tmp_path, state_dict={k: v for k, v in model.state_dict().items() if k not in gone})
    loaded, info = IDMLModel.from_pretrained(tmp_path, output_loading_info=True)
    assert info["missing_keys"] == set(gone)
    assert loaded.trunk.layer1[0].conv1.weight.std() < 1
    assert torch.equal(loaded.trunk.conv1.weight, model.trunk.conv1.weight)
    torch.testing.assert_close(loaded.uncertainty_head.running_norm, model.uncertainty_head.running_norm)


@pytest.mark.parametrize("pool", ["avg", "max", "avg_max"])
def test_pooling_of_maps_tokens_and_channels_last_maps(pool):
    for name, size in (("resnet18", 64), ("vit_tiny_patch16_224", 64)):
        model = build(name, pool=pool)
        hidden, pooled = model.features(torch.randn(1, 3, size, size))
        vectors = hidden[0].flatten(1).T if hidden.ndim == 4 else hidden[0, model.trunk.num_prefix_tokens :]
        expected = {"avg": vectors.mean(0), "max": vectors.amax(0), "avg_max": vectors.mean(0) + vectors.amax(0)}[pool]
        torch.testing.assert_close(pooled[0], expected)


def test_token_pooling():
    model = build("vit_tiny_patch16_224", pool="token")
    hidden, pooled = model.features(torch.randn(1, 3, 64, 64))
    assert torch.equal(pooled, hidden[:, 0])
    with pytest.raises(ValueError, match="no class token"):
        build("resnet18", pool="token")(torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize("activation", ["budget", "softplus", "relu", "l2"])
def test_uncertainty_activations(activation):
    head = UncertaintyHead(8, 6, activation, level=2.0)
    head.reset_parameters()
    x = torch.randn(5, 8)
    u = head.train()(x)
    norms = u.norm(dim=1)
    raw = head.linear(x)
    if activation == "budget":
        torch.testing.assert_close(norms.mean(), torch.tensor(2.0))
        scale = nn.functional.softplus(raw) / u
        torch.testing.assert_close(scale, torch.full_like(scale, scale[0, 0].item()))
    expected = {"softplus": nn.functional.softplus(raw), "relu": raw.relu(), "l2": nn.functional.normalize(raw)}
    if activation in expected:
        torch.testing.assert_close(u, expected[activation])
    u.square().sum().backward()
    assert head.linear.weight.grad.isfinite().all()


def test_budget_cannot_be_switched_off():
    """Scaling all uncertainties down changes nothing, in training and (after a while) in inference."""
    head = UncertaintyHead(8, 6, "budget")
    x = torch.randn(64, 8)
    with torch.no_grad():
        head.linear.bias.fill_(-8.0)
        for _ in range(200):
            head.train()(x)
        torch.testing.assert_close(head.eval()(x).norm(dim=1).mean(), torch.tensor(1.0), rtol=1e-3, atol=0)


def test_the_running_norm_stays_in_fp32_under_bf16(tmp_path):
    build("resnet18").save_pretrained(tmp_path)
    model = IDMLModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert model.uncertainty_head.running_norm.dtype == torch.float32
    assert model.semantic_head.weight.dtype == torch.bfloat16


def test_auto_classes(tmp_path):
    from idml_hf import IDMLImageProcessor

    build("resnet18").save_pretrained(tmp_path)
    IDMLImageProcessor.from_backbone("resnet18", image_size=64).save_pretrained(tmp_path)
    assert isinstance(AutoModel.from_pretrained(tmp_path), IDMLModel)
    assert isinstance(AutoImageProcessor.from_pretrained(tmp_path), IDMLImageProcessor)
    assert isinstance(AutoModelForImageClassification.from_pretrained(tmp_path), IDMLForImageClassification)


@pytest.mark.parametrize(
    "first", ["import transformers, idml_hf", "import idml_hf, transformers", "import transformers.trainer, idml_hf"]
)
def test_importing_is_light_and_registers_in_any_order(first, tmp_path):
    build("resnet18").save_pretrained(tmp_path)
    code = f"""
import sys
{first}
if sys.argv[1] == "light": print("torch" in sys.modules)
from transformers import AutoModel
print(type(AutoModel.from_pretrained({str(tmp_path)!r})).__name__)
"""
    lines = subprocess.run(
        [sys.executable, "-c", code, "light"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert lines[-1] == "IDMLModel"
    if first.startswith("import idml_hf"):
        assert lines[0] == "False"


def test_frozen_batch_norm():
    model = build("resnet18", freeze_batch_norm=True).train()
    before = model.trunk.bn1.running_mean.clone()
    model(torch.randn(2, 3, 64, 64)).semantic_embeds.sum().backward()
    assert torch.equal(model.trunk.bn1.running_mean, before)
    assert model.trunk.bn1.weight.grad is None and model.trunk.conv1.weight.grad is not None


class TestGradientCheckpointing:
    TRUNKS = ("resnet18", "vit_tiny_patch16_224", "tf_efficientnet_lite0")

    def model(self, name, cls):
        config = {IDMLForMetricLearning: {"num_train_classes": 2}, IDMLForImageClassification: {"num_labels": 2}}
        torch.manual_seed(0)
        return build(name, cls, uncertainty_detached=False, freeze_batch_norm=True, **config.get(cls, {})).train()

    def step(self, model):
        """Gradients by name, and the bytes that the forward pass kept for them."""
        kept = []
        images, labels = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)), torch.arange(4) // 2
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.nbytes) or x, lambda x: x):
            if isinstance(model, IDMLModel):
                out = model(images)
                loss = out.semantic_embeds[:, 0].sum() + out.uncertainty.sum()
            else:
                loss = model(images, labels=labels).loss
        loss.backward()
        return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}, sum(kept)

    @pytest.mark.parametrize("cls", [IDMLModel, IDMLForMetricLearning, IDMLForImageClassification])
    @pytest.mark.parametrize("name", TRUNKS)
    @pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed in v6")
    def test_the_same_gradients_of_less_memory(self, name, cls):
        expected, usual = self.step(self.model(name, cls))
        model = self.model(name, cls)
        assert model.supports_gradient_checkpointing and not model.is_gradient_checkpointing
        model.gradient_checkpointing_enable()
        assert model.is_gradient_checkpointing and model.is_activation_checkpointing
        gradients, less = self.step(model)
        assert less < 0.6 * usual
        assert gradients.keys() == expected.keys() and len(gradients) > 20
        torch.testing.assert_close(gradients, expected)
        model.gradient_checkpointing_disable()
        assert not model.is_gradient_checkpointing
        model.zero_grad()
        assert self.step(model)[1] == usual

    def test_what_cannot_be_done_is_refused(self):
        with pytest.raises(ValueError, match="every_n_layers must be 1"):
            self.model("resnet18", IDMLModel).activation_checkpointing_enable(every_n_layers=2)
        model = build("inception_v3")
        assert not model.supports_gradient_checkpointing
        with pytest.raises(ValueError, match="does not support"):
            model.activation_checkpointing_enable()


def test_without_ranking_the_ratio_form_reaches_the_uncertainty_head_and_none_does_not():
    x, labels = torch.randn(4, 3, 64, 64), torch.tensor([0, 0, 1, 1])
    for form, reached in (("ratio", True), ("none", False)):
        model = build("resnet18", IDMLForMetricLearning, num_train_classes=3, form=form, uncertainty_ranking=0).train()
        model(x, labels=labels).loss.backward()
        grad = model.idml.uncertainty_head.linear.weight.grad
        assert (grad is not None and grad.norm().item() > 1e-6) == reached


class TestConfig:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"form": "ratoi"}, "Unknown form 'ratoi'. Did you mean 'ratio'?"),
            ({"pool": "avgmax"}, "Did you mean 'avg_max'?"),
            ({"uncertainty_activation": "relu6"}, "Did you mean 'relu'?"),
            ({"backbone": "local-dir:/etc"}, "must be the name of a timm architecture"),
            ({"backbone": "../secret"}, "must be the name of a timm architecture"),
            ({"backbone_kwargs": {"checkpoint_path": "x"}}, "may not set checkpoint_path"),
            ({"backbone_kwargs": {"pretrained_cfg": {"file": "x"}}}, "may not set pretrained_cfg"),
            ({"form": "released"}, 'requires uncertainty_activation="l2"'),
            ({"tau": 0.0}, "must be positive"),
            ({"tau": float("nan")}, "must be positive"),
            ({"tau": float("inf")}, "must be positive"),
            ({"uncertainty_level": float("nan")}, "must be positive"),
            ({"uncertainty_start": float("nan")}, "must be positive"),
            ({"uncertainty_ranking": float("nan")}, "uncertainty_ranking must not be negative"),
            ({"reference_weight": float("nan")}, "reference_weight at least 0 and below 1"),
        ],
    )
    def test_what_is_refused(self, settings, message):
        with pytest.raises(ValueError, match=message.replace("?", r"\?")):
            IDMLConfig(**settings)

    def test_defaults(self):
        config = IDMLConfig()
        assert (config.backbone, config.pool, config.embedding_dim) == ("resnet50", "avg_max", 512)
        assert (config.form, config.uncertainty_activation, config.uncertainty_dim) == ("ratio", "budget", 512)


class TestTrunkWeights:
    def test_from_safetensors_and_from_a_checkpoint(self, tmp_path):
        import timm
        from safetensors.torch import save_file

        source = timm.create_model("resnet18", num_classes=5)
        save_file(source.state_dict(), tmp_path / "weights.safetensors")
        torch.save({"state_dict": source.state_dict()}, tmp_path / "weights.pth")
        for name in ("weights.safetensors", "weights.pth"):
            model = IDMLModel.from_backbone("resnet18", weights=tmp_path / name, embedding_dim=8)
            assert torch.equal(model.trunk.layer4[1].conv2.weight, source.layer4[1].conv2.weight)

    def test_what_is_refused(self, tmp_path):
        import pickle

        import timm
        from safetensors.torch import save_file

        with pytest.raises(FileNotFoundError, match="nothing-here"):
            IDMLModel.from_backbone("resnet18", weights=tmp_path / "nothing-here.safetensors")
        (tmp_path / "evil.pth").write_bytes(pickle.dumps({"x": _Evil()}))
        with pytest.raises(ValueError, match=r"evil.pth is not a checkpoint that can be read safely"):
            IDMLModel.from_backbone("resnet18", weights=tmp_path / "evil.pth")
        assert not _Evil.ran
        save_file(timm.create_model("resnet34").state_dict(), tmp_path / "other.safetensors")
        with pytest.raises(ValueError, match=r"other.safetensors do not fit resnet18"):
            IDMLModel.from_backbone("resnet18", weights=tmp_path / "other.safetensors")

    def test_unknown_architecture(self):
        with pytest.raises(ValueError, match="Did you mean 'resnet18'"):
            IDMLModel.from_backbone("resnet_18", pretrained=False)

    def test_downloading_without_a_network(self):
        with pytest.raises(OSError, match="pretrained weights of 'resnet18' could not be downloaded"):
            IDMLModel.from_backbone("resnet18")


class _Evil:
    ran = False

    def __reduce__(self):
        return (_run_evil, ())


def _run_evil() -> None:
    _Evil.ran = True


def test_only_its_neighbours_are_imported_by_the_model_file():
    import ast

    import idml_hf.modeling_idml as module

    tree = ast.parse(Path(module.__file__).read_text())
    own = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level}
    neighbours = {"feature_statistics", "reference_memory", "similarity", "timm_trunk", "uncertainty_head"}
    assert own == {"configuration_idml", "errors", "files", "weight_files", *neighbours}
