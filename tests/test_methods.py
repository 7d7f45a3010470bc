"""The four methods: what they set, how they are recognised, and that both heads of each can learn from the start."""

from __future__ import annotations

import pytest
import torch

from idml_hf import IDMLConfig, IDMLForImageClassification, IDMLForMetricLearning, IDMLModel
from idml_hf.configuration_idml import METHODS, PROXY_PREFIX, TASKS, method_fields
from idml_hf.losses import LOSSES, PROXY_LOSSES
from idml_hf.modeling_idml import TrunkFeatures
from idml_hf.uncertainty_head import READ_NORM, UncertaintyHead

LOSSES_OF = {method: ["proxy_anchor"] if method == "released" else list(LOSSES) for method in METHODS}
CASES = [(method, loss) for method in METHODS for loss in LOSSES_OF[method]]


class TestFields:
    @pytest.mark.parametrize(("method", "loss"), CASES)
    def test_a_method_is_recognised_by_what_it_sets(self, method, loss):
        config = IDMLConfig.from_method(method, loss=loss)
        assert config.method == method
        assert IDMLConfig.from_dict(config.to_dict()).method == method

    @pytest.mark.parametrize("method", METHODS)
    def test_that_of_a_classifier_too(self, method):
        config = IDMLConfig.from_method(method, "classification")
        assert (config.method, config.pool, config.uncertainty_dim) == (method, "avg", 512)

    def test_published_is_the_papers(self):
        for loss in LOSSES:
            config = IDMLConfig.from_method("published", loss=loss)
            assert (config.form, config.tau, config.uncertainty_head) == ("ratio", 5.0, "linear")
            assert not config.uncertainty_detached and not config.ranks_uncertainty and config.reference_weight == 0
            assert config.uncertainty_activation == ("relu" if loss in PROXY_LOSSES else "l2")
        assert (
            IDMLConfig.from_method("published", loss="contrastive", uncertainty_activation="relu").method
            == "published"
        )

    def test_names_of_losses_tell_those_with_proxies(self):
        assert {loss for loss in LOSSES if loss.startswith(PROXY_PREFIX)} == PROXY_LOSSES

    def test_introspective_is_the_default(self):
        assert IDMLConfig.from_method("introspective").to_dict() == IDMLConfig().to_dict()
        assert IDMLConfig.from_method().to_dict() == IDMLConfig().to_dict()

    def test_plain_looks_back_at_nothing_unless_told(self):
        assert IDMLConfig.from_method("plain").reference_weight == 0
        with_memory = IDMLConfig.from_method("plain", reference_weight=0.7)
        assert (with_memory.form, with_memory.reference_weight, with_memory.method) == ("none", 0.7, "plain")

    def test_a_form_alone_says_which_method_is_meant(self):
        for form, method in (("none", "plain"), ("ratio", "introspective"), ("released", "released")):
            assert IDMLConfig.from_method(form=form).method == method
        for form, method in (("none", "plain"), ("ratio", "published"), ("released_classification", "released")):
            assert IDMLConfig.from_method(task="classification", form=form).method == method
        assert IDMLConfig.from_method(task="classification").method == "released"

    def test_fields_that_are_none_are_left_to_the_method(self):
        unset = {"uncertainty_activation": None, "tau": None, "reference_weight": None, "pool": None}
        for method in METHODS:
            assert IDMLConfig.from_method(method, **unset).to_dict() == IDMLConfig.from_method(method).to_dict()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"method": "publshed"}, "Unknown method 'publshed'. Did you mean 'published'?"),
            ({"method": "plain", "task": "detection"}, "Unknown task 'detection'"),
            ({"method": "plain", "form": "ratio"}, "method 'plain' has form 'none', not 'ratio'"),
            ({"method": "released", "loss": "contrastive"}, "has loss 'proxy_anchor' only, not 'contrastive'"),
            ({"method": "published", "uncertainty_start": -1.0}, "uncertainty_start must be positive"),
        ],
    )
    def test_what_is_refused(self, arguments, message):
        with pytest.raises(ValueError) as error:
            IDMLConfig.from_method(**arguments)
        assert message in str(error.value)

    def test_a_set_of_fields_without_a_name_has_none(self):
        assert IDMLConfig(uncertainty_activation="softplus").method is None
        assert IDMLConfig(uncertainty_head="linear").method is None

    def test_models_are_built_by_method(self):
        model = IDMLModel.from_backbone("test_resnet", pretrained=False, method="published", embedding_dim=8)
        assert model.config.method == "published" and model.reference is None
        classifier = IDMLForImageClassification.from_backbone("test_resnet", pretrained=False)
        assert classifier.config.method == "released"
        assert {method for task in TASKS for method in METHODS if method_fields(method, task)} == set(METHODS)


class TestStart:
    @pytest.mark.parametrize("activation", ["relu", "softplus"])
    @pytest.mark.parametrize("hidden", [None, 256])
    @pytest.mark.parametrize("out_features", [16, 512])
    def test_a_fresh_head_starts_at_the_norm_it_is_told(self, activation, hidden, out_features):
        head = UncertaintyHead(640, out_features, activation, hidden_features=hidden, start=0.7)
        head.reset_parameters()
        features = torch.randn(64, 640)
        if hidden is None:
            features = READ_NORM * torch.nn.functional.normalize(features)
        assert head(features).norm(dim=1).mean().item() == pytest.approx(0.7, rel=0.25)

    @pytest.mark.parametrize("tau", [1.0, 5.0])
    @pytest.mark.parametrize("factor", [0.01, 1.0, 100.0])
    def test_whatever_the_norm_of_the_trunks_features(self, tau, factor):
        model = IDMLModel.from_backbone(
            "test_resnet", pretrained=False, method="published", loss="proxy_anchor", embedding_dim=64, tau=tau
        )
        forward = model.trunk.forward_features
        model.trunk.forward_features = lambda x: forward(x) * factor
        norm = model(torch.randn(8, 3, 32, 32)).uncertainty.mean().item()
        assert 0.1 * tau < norm < 0.5 * tau

    def test_without_one_the_head_computes_as_it_always_did(self):
        """What the first edition saved has no such field."""
        torch.manual_seed(3)
        head = UncertaintyHead(20, 6, "relu")
        head.reset_parameters()
        features = torch.randn(4, 20) * 50
        assert torch.equal(head(features), (features @ head.linear.weight.T).relu())


LEARNING_RATE = 6e-4  # of `idml-hf train`


def heads_gradients(method, loss, steps=20):
    """Norms of the gradients of the uncertainty and of the semantic head, at the first step and `steps` later."""
    torch.manual_seed(0)
    config = {"embedding_dim": 64, "num_train_classes": 8, "freeze_batch_norm": True}
    model = IDMLForMetricLearning.from_backbone(
        "tf_efficientnet_lite0", pretrained=False, method=method, loss=loss, **config
    ).train()
    # the pooled features of the pretrained trunk have this norm
    with torch.no_grad():
        model.trunk.bn2.weight.mul_(12.0)
        images = (torch.randn(8, 1, 3, 32, 32) + 0.7 * torch.randn(8, 4, 3, 32, 32)).flatten(0, 1)
        labels = torch.arange(8).repeat_interleave(4)
        trunk_says = model.idml.features_to_read(images)[:3]
    assert 80 < trunk_says[1].norm(dim=1).mean() < 220
    model.idml.features_to_read = lambda x, *_: TrunkFeatures(*(part[: len(x)] for part in trunk_says))
    heads = [p for name, p in model.named_parameters() if "backbone" not in name]
    optimizer = torch.optim.Adam(heads, LEARNING_RATE)
    norms = []
    for _ in range(steps + 1):
        optimizer.zero_grad()
        model(images, labels=labels, degraded_pixel_values=images[:8]).loss.backward()
        both = (model.idml.uncertainty_head.linear.weight, model.idml.semantic_head.weight)
        norms.append([0.0 if head.grad is None else head.grad.norm().item() for head in both])
        optimizer.step()
    return norms[0], norms[-1]


@pytest.fixture(scope="module")
def plain_gradients():
    return {loss: heads_gradients("plain", loss) for loss in LOSSES}


@pytest.mark.parametrize(("method", "loss"), CASES)
def test_both_heads_learn_from_the_start_and_go_on(method, loss, plain_gradients):
    for (uncertainty, semantic), (_, plain) in zip(heads_gradients(method, loss), plain_gradients[loss], strict=True):
        assert semantic > 1e-3 * plain
        if method == "released":
            # The authors' ProxyAnchor reads only the norm of an uncertainty, and theirs has unit norm.
            assert uncertainty < 1e-6
        else:
            assert uncertainty > 1e-3 * plain


@pytest.mark.parametrize("method", METHODS)
def test_both_parts_of_a_classifier_learn_from_the_start(method):
    model = IDMLForImageClassification.from_backbone(
        "tf_efficientnet_lite0", pretrained=False, method=method, num_labels=8, freeze_batch_norm=True
    ).train()
    with torch.no_grad():
        model.trunk.bn2.weight.mul_(12.0)
    model(torch.randn(8, 3, 32, 32), labels=torch.arange(8)).loss.backward()
    classifier, head = model.classifier.weight.grad, model.idml.uncertainty_head.linear.weight.grad
    assert classifier.norm() > 1e-2
    if method == "plain":
        assert head is None
    elif method == "introspective":
        assert head.norm() > 1e-6 * classifier.norm(), "a budget of 1 against features of norm 100"
    else:
        assert head.norm() > 1e-3 * classifier.norm()
