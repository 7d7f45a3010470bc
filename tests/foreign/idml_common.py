"""The models and the image processor under transformers' common tests; `run.py` says how."""

from __future__ import annotations

import copy
import unittest
from collections.abc import Callable

import torch
from tests.test_image_processing_common import ImageProcessingTester, ImageProcessingTestMixin
from tests.test_modeling_common import ModelTesterMixin

from idml_hf import IDMLConfig, IDMLForImageClassification, IDMLForMetricLearning, IDMLImageProcessor, IDMLModel

BATCH, SIZE = 4, 32

# why a test is left out
LAYERS = "looks for transformers' GradientCheckpointingLayer; timm's blocks checkpoint themselves, and "
LAYERS += "tests/test_modeling.py compares their gradients and the memory that they keep"
STATES = "asks for one state a layer of a transformer; ours are feature maps, which tests/test_model_outputs.py checks"
EXCLUDED = {
    "test_gradient_checkpointing_enable_disable": LAYERS,
    "test_training_gradient_checkpointing": LAYERS,
    "test_training_gradient_checkpointing_use_reentrant_false": LAYERS,
    "test_training_gradient_checkpointing_use_reentrant_true": LAYERS,
    "test_hidden_states_output": STATES,
    "test_model_get_set_embeddings": "images are not looked up in an input embedding",
}
WITHOUT_LOSS = {"test_training": "the model that embeds has no loss; the two that train have this test"}


def left_out(excluded: dict[str, str]) -> Callable[[type], type]:
    """Skip tests, each with its reason.

    Raises:
        AttributeError: for a test that does not exist.
    """

    def skip(cls: type) -> type:
        for name, reason in excluded.items():
            setattr(cls, name, unittest.skip(reason)(getattr(cls, name)))
        return cls

    return skip


class ModelTester:
    """Small models, and inputs for them."""

    is_training = True
    batch_size = BATCH

    def __init__(self, parent: unittest.TestCase) -> None:
        self.parent = parent

    def get_config(self) -> IDMLConfig:
        """The configuration of all three classes."""
        return IDMLConfig(
            backbone="test_resnet",
            embedding_dim=16,
            uncertainty_dim=8,
            reference_size=32,
            num_train_classes=4,
            num_labels=4,
            image_size=SIZE,
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[IDMLConfig, dict[str, torch.Tensor]]:
        """The configuration, and a batch."""
        return self.get_config(), {"pixel_values": torch.randn(BATCH, 3, SIZE, SIZE)}


class CommonTests(ModelTesterMixin):
    """The tests of one class of models."""

    has_attentions = False
    test_resize_embeddings = False
    test_resize_tokens_embeddings = False

    def setUp(self) -> None:
        self.model_tester = ModelTester(self)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = copy.deepcopy(inputs_dict)
        if return_labels and model_class is not IDMLModel:
            inputs["labels"] = torch.arange(BATCH) % 2
        return inputs


@left_out(EXCLUDED | WITHOUT_LOSS)
class TestIDMLModel(CommonTests, unittest.TestCase):
    all_model_classes = (IDMLModel,)


@left_out(EXCLUDED)
class TestIDMLForMetricLearning(CommonTests, unittest.TestCase):
    all_model_classes = (IDMLForMetricLearning,)


@left_out(EXCLUDED)
class TestIDMLForImageClassification(CommonTests, unittest.TestCase):
    all_model_classes = (IDMLForImageClassification,)


class ProcessorTester(ImageProcessingTester):
    """A small image processor, and pictures for it."""

    def __init__(self, parent: unittest.TestCase) -> None:
        settings = {"size": {"shortest_edge": 20}, "crop_size": {"height": 18, "width": 18}}
        super().__init__(parent, image_mean=[0.5] * 3, image_std=[0.5] * 3, **settings)

    def _get_image_processing_classes(self) -> dict[str, type]:
        return {"torchvision": IDMLImageProcessor}


class TestIDMLImageProcessor(ImageProcessingTestMixin, unittest.TestCase):
    image_processor_tester_class = ProcessorTester
