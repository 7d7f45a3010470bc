"""Loading in every way: onto a disk, in half precision, from files that lack something or have it in another shape."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from idml_hf import IDMLConfig, IDMLForImageClassification, IDMLForMetricLearning, IDMLImageProcessor, IDMLModel
from idml_hf.timm_trunk import create_trunk
from idml_hf.uncertainty_head import UncertaintyHead

SIZE = 64
TRUNKS = {
    "resnet18": {},
    "vit_tiny_patch16_224": {"img_size": SIZE},
    "swin_tiny_patch4_window7_224": {"img_size": SIZE},
    "vit_small_patch16_dinov3": {"img_size": SIZE},
}
IMAGES = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
OUTPUTS = ("semantic_embeds", "uncertainty_embeds", "last_hidden_state")


def build(name="test_resnet", cls=IDMLModel, **config):
    torch.manual_seed(0)
    sizes = {"embedding_dim": 16, "reference_size": 30, "backbone_kwargs": TRUNKS.get(name) or None}
    return cls.from_backbone(name, pretrained=False, **(sizes | config))


def lived_in(model):
    """A model whose buffers have values that no fresh model has."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
        if isinstance(module, UncertaintyHead):
            module.running_norm.fill_(3.7)
    model.base_model.reference.remember(nn.functional.normalize(torch.randn(12, 16)))
    return model.eval()


class TestOffload:
    @pytest.mark.parametrize("name", TRUNKS)
    @pytest.mark.parametrize(
        "places",
        [
            {"": "disk"},
            {"backbone": "disk", "semantic_head": "cpu", "uncertainty_head": "cpu", "reference": "cpu"},
            {"backbone": "cpu", "semantic_head": "disk", "uncertainty_head": "disk", "reference": "disk"},
        ],
        ids=["all", "trunk", "heads"],
    )
    def test_a_model_on_disk_computes_the_same(self, name, places, tmp_path):
        model = lived_in(build(name))
        model.save_pretrained(tmp_path / "saved")
        loaded = IDMLModel.from_pretrained(tmp_path / "saved", device_map=places, offload_folder=tmp_path / "disk")
        assert any(parameter.is_meta for parameter in loaded.parameters())
        with torch.no_grad():
            ours, theirs = model(IMAGES), loaded(IMAGES)
        assert all(torch.equal(ours[key], theirs[key]) for key in OUTPUTS)

    def test_with_a_loss_and_its_memory_too(self, tmp_path):
        config = {"loss": "margin_dw", "loss_kwargs": {"memory_size": 20, "beta": 2}, "num_train_classes": 3}
        model = build(cls=IDMLForMetricLearning, **config)
        model.train()(torch.randn(12, 3, 32, 32), labels=torch.arange(12) // 4)
        lived_in(model).save_pretrained(tmp_path / "saved")
        places = {"idml": "disk", "loss": "cpu", "ranking": "cpu"}
        loaded = IDMLForMetricLearning.from_pretrained(
            tmp_path / "saved", device_map=places, offload_folder=tmp_path / "disk"
        )
        for key, value in model.loss.state_dict().items():
            assert torch.equal(loaded.loss.state_dict()[key], value), key
        assert torch.equal(loaded.ranking.labels, model.ranking.labels)
        with torch.no_grad():
            assert torch.equal(loaded(IMAGES).semantic_embeds, model(IMAGES).semantic_embeds)


class TestPrecision:
    CLASSES = [IDMLModel, IDMLForMetricLearning]

    def strict(self, model):
        """Types of what is compared or remembered, beside those of counters and labels."""
        names = ("running_norm", "reference", "loss.", "ranking")
        state = {name: tensor for name, tensor in model.state_dict().items() if any(part in name for part in names)}
        assert len(state) >= 3
        assert all(state[name].dtype == torch.int64 for name in state if name.endswith(("seen", "labels", "position")))
        return {tensor.dtype for tensor in state.values() if tensor.is_floating_point()}

    @pytest.mark.parametrize("cls", CLASSES)
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_what_is_compared_or_remembered_stays_float32(self, cls, dtype, tmp_path):
        config = {"loss_kwargs": {"memory_size": 20}, "loss": "contrastive", "num_train_classes": 3}
        model = build(cls=cls, **config)
        for half in (
            cls._from_config(model.config, dtype=dtype),
            self.saved_and_loaded(model, cls, dtype, tmp_path),
        ):
            assert self.strict(half) == {torch.float32}
            assert half.trunk.conv1[0].weight.dtype == dtype
            assert half.base_model.semantic_head.weight.dtype == dtype

    @pytest.mark.parametrize("loss", ["proxy_anchor", "proxy_nca", "margin_dw"])
    def test_what_a_loss_learns_does_too(self, loss, tmp_path):
        model = build(cls=IDMLForMetricLearning, loss=loss, num_train_classes=3)
        for half in (
            IDMLForMetricLearning._from_config(model.config, dtype=torch.bfloat16),
            self.saved_and_loaded(model, IDMLForMetricLearning, torch.bfloat16, tmp_path),
        ):
            assert {parameter.dtype for parameter in half.loss.parameters()} == {torch.float32}
            images = torch.randn(4, 3, 32, 32, dtype=torch.bfloat16)
            half.train()(images, labels=torch.tensor([0, 0, 1, 1])).loss.backward()

    def saved_and_loaded(self, model, cls, dtype, folder):
        model.save_pretrained(folder)
        return cls.from_pretrained(folder, dtype=dtype)


class TestWhatAFileLacks:
    @pytest.mark.parametrize("name", TRUNKS)
    def test_other_shapes_leave_no_uninitialised_memory(self, name, tmp_path):
        """Whatever is drawn afresh is as timm draws it: no value is huge, and none is NaN."""
        model = build(name)
        state = model.state_dict()
        odd = [key for key, value in state.items() if value.ndim >= 1 and key.startswith("backbone.")][::3]
        for key in odd:
            state[key] = torch.full((*state[key].shape[:-1], state[key].shape[-1] + 1), 1e30).to(state[key].dtype)
        model.save_pretrained(tmp_path, state_dict=state)
        torch.manual_seed(5)
        with poisoned_memory():
            loaded, info = IDMLModel.from_pretrained(tmp_path, ignore_mismatched_sizes=True, output_loading_info=True)
        assert {key for key, *_ in info["mismatched_keys"]} == set(odd)
        fresh = build(name).state_dict()
        for key in odd:
            new, usual = loaded.state_dict()[key].double(), fresh[key].double()
            assert new.isfinite().all() and new.abs().max() <= 3 * usual.abs().max() + 1e-6, key
        assert loaded(IMAGES).semantic_embeds.isfinite().all()

    def test_missing_statistics_are_those_of_a_fresh_layer_and_the_others_stay(self, tmp_path):
        model = lived_in(build("resnet18"))
        gone = ("backbone.bn1.weight", "backbone.layer1.0.bn1.running_mean")
        model.save_pretrained(tmp_path, state_dict={k: v for k, v in model.state_dict().items() if k not in gone})
        with poisoned_memory():
            loaded, info = IDMLModel.from_pretrained(tmp_path, output_loading_info=True)
        assert info["missing_keys"] == set(gone)
        expected = model.state_dict() | {gone[0]: torch.ones(64), gone[1]: torch.zeros(64)}
        assert all(torch.equal(value, expected[key]) for key, value in loaded.state_dict().items())

    def test_half_a_memory_is_none(self, tmp_path):
        model = build(cls=IDMLForMetricLearning, num_train_classes=3)
        model.train()(torch.randn(6, 3, 32, 32), labels=torch.arange(6) // 2)
        state = model.state_dict()
        del state["idml.reference.embeddings"]
        model.save_pretrained(tmp_path, state_dict=state)
        with poisoned_memory():
            loaded = IDMLForMetricLearning.from_pretrained(tmp_path)
        assert not loaded.idml.reference.embeddings.any() and loaded.idml.reference.seen == 0
        assert loaded.ranking.labels.unique().tolist() == [torch.iinfo(torch.int64).min]

    def test_a_classifier_for_other_classes_keeps_its_trunk(self, tmp_path):
        model = build(cls=IDMLForImageClassification, num_labels=4)
        model.save_pretrained(tmp_path)
        with poisoned_memory():
            loaded = IDMLForImageClassification.from_pretrained(tmp_path, num_labels=7, ignore_mismatched_sizes=True)
        assert loaded.classifier.weight.abs().max() <= loaded.classifier.in_features**-0.5
        assert torch.equal(loaded.trunk.conv1[0].weight, model.trunk.conv1[0].weight)


class poisoned_memory:
    """Uninitialised memory, which is often zero by chance, holds NaN, or the largest integer, in here."""

    def __enter__(self):
        self.old = torch.utils.deterministic.fill_uninitialized_memory, torch.are_deterministic_algorithms_enabled()
        torch.utils.deterministic.fill_uninitialized_memory = True
        torch.use_deterministic_algorithms(True, warn_only=True)

    def __exit__(self, *error):
        torch.utils.deterministic.fill_uninitialized_memory = self.old[0]
        torch.use_deterministic_algorithms(self.old[1])


class TestImageSize:
    @pytest.mark.parametrize(
        "name", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224", "swin_tiny_patch4_window7_224"]
    )
    def test_a_trunk_of_fixed_size_is_built_for_the_images(self, name, tmp_path):
        torch.manual_seed(0)
        whole = create_trunk(name)
        save_file(whole.state_dict(), tmp_path / "weights.safetensors")
        size = 56 if "patch14" in name else 64
        model = IDMLModel.from_backbone(name, weights=tmp_path / "weights.safetensors", image_size=size)
        assert model.config.backbone_kwargs == {"img_size": size} and model.config.image_size == size
        images = torch.randn(2, 3, size, size)
        with torch.no_grad():
            expected = model(images).semantic_embeds
        assert expected.isfinite().all()
        if hasattr(whole, "pos_embed"):
            assert model.trunk.pos_embed.shape[1] < whole.pos_embed.shape[1]
            # resized, and not drawn afresh
            torch.testing.assert_close(
                model.trunk.pos_embed.mean(), whole.pos_embed.mean(), atol=whole.pos_embed.std().item() / 4, rtol=0
            )
        model.save_pretrained(tmp_path / "model")
        with torch.no_grad():
            assert torch.equal(IDMLModel.from_pretrained(tmp_path / "model")(images).semantic_embeds, expected)

    def test_where_any_size_will_do_nothing_is_added(self):
        assert build("resnet18", image_size=64).config.backbone_kwargs is None
        native = IDMLModel.from_backbone("vit_tiny_patch16_224", pretrained=False, image_size=224)
        assert native.config.backbone_kwargs is None
        own = IDMLModel.from_backbone(
            "vit_tiny_patch16_224", pretrained=False, image_size=64, backbone_kwargs={"img_size": 32}
        )
        assert own.config.backbone_kwargs == {"img_size": 32}

    def test_a_size_that_no_patches_fill_is_refused(self):
        with pytest.raises(ValueError, match=r"image_size=50.*vit_tiny_patch16_224.*patches of 16"):
            IDMLModel.from_backbone("vit_tiny_patch16_224", pretrained=False, image_size=50)

    def test_old_configurations_are_built_as_they_were(self):
        """A saved model says itself what its trunk is built with."""
        config = IDMLConfig(backbone="vit_small_patch16_dinov3", image_size=SIZE, embedding_dim=8)
        assert IDMLModel(config).config.backbone_kwargs is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", {"shortest_edge": "64"}),
        ("size", {"shortest_edge": 10**9}),
        ("crop_size", {"height": 0, "width": 64}),
        ("crop_size", {"height": 64.5, "width": 64}),
        ("image_mean", ["a", 0, 0]),
        ("image_std", [float("nan"), 1, 1]),
    ],
)
def test_an_image_processor_says_which_of_its_settings_is_none(field, value, tmp_path):
    IDMLImageProcessor.from_backbone("test_resnet", 32).save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(ValueError, match=f"{field} of the image processor must"):
        IDMLImageProcessor.from_pretrained(tmp_path)
