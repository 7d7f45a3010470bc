"""The model of a run: built on a backbone, or taken from a folder or the Hub to be fine-tuned."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers.utils import logging

from idml_hf.configuration_idml import IDMLConfig, method_fields, method_of_form
from idml_hf.image_processing_idml import IDMLImageProcessor
from idml_hf.modeling_idml import IDMLForImageClassification, IDMLPreTrainedModel
from idml_hf.modeling_metric_learning import IDMLForMetricLearning

from .settings import ModelSettings, Run

logger = logging.get_logger(__name__)

MODEL_CLASSES: dict[str, type[IDMLPreTrainedModel]] = {
    "retrieval": IDMLForMetricLearning,
    "classification": IDMLForImageClassification,
}
CONFIG_FIELDS = frozenset(f.name for f in dataclasses.fields(IDMLConfig)) & {
    f.name for f in dataclasses.fields(ModelSettings)
}

# Heads on frozen features read all that the backbone says, and gain nothing from taking off what is near.
FROZEN_FIELDS: dict[str, Any] = {"pool": "statistics", "reference_weight": 0.0}


def model_fields(run: Run) -> dict[str, Any]:
    """The fields of [`IDMLConfig`] that a run sets itself; all others are left to the method or the model."""
    given = {name: getattr(run, name) for name in CONFIG_FIELDS}
    given = {name: value for name, value in given.items() if value is not None and value != {}}
    return (FROZEN_FIELDS if run.frozen_trunk and run.model is None else {}) | given


def run_config(run: Run) -> IDMLConfig:
    """The configuration of the model that a run builds on a backbone.

    Raises:
        ValueError: for an unknown method, form, pool, ..., or fields that do not go together.
    """
    return IDMLConfig.from_method(run.method, run.task, **model_fields(run))


def class_fields(run: Run, class_names: Sequence[str]) -> dict[str, Any]:
    """The fields of [`IDMLConfig`] that the training classes set."""
    if run.task == "retrieval":
        return {"num_train_classes": len(class_names)}
    return {"id2label": dict(enumerate(class_names)), "label2id": {name: i for i, name in enumerate(class_names)}}


def build_model(run: Run, class_names: Sequence[str]) -> tuple[Any, IDMLImageProcessor, str]:
    """The model to train, its image processor, and where its weights come from.

    Args:
        run: The settings.
        class_names: Names of the training classes.

    Raises:
        ValueError, OSError: if it cannot be built, or the weights cannot be had.
    """
    fields = class_fields(run, class_names)
    if run.model is not None:
        return _model_to_tune(run, fields)
    config = run_config(run)
    processor = IDMLImageProcessor.from_backbone(config.backbone, run.image_size, run.crop_pct)
    fields = {"method": run.method} | model_fields(run) | fields
    build = MODEL_CLASSES[run.task].from_backbone
    if run.weights is not None:
        return build(weights=run.weights, **fields), processor, Path(run.weights).name
    if run.pretrained is not False:
        try:
            return build(**fields), processor, "pretrained"
        except OSError as error:
            if run.pretrained:
                raise
            logger.warning(f"{str(error).split(' Give ')[0]} Training starts from random weights.")
    return build(pretrained=False, **fields), processor, "random"


def _model_to_tune(run: Run, fields: dict[str, Any]) -> tuple[Any, IDMLImageProcessor, str]:
    """A model with what it was trained by, but for what the run sets."""
    assert run.model is not None
    own = IDMLConfig.from_pretrained(run.model)
    given = model_fields(run)
    for name in ("backbone", "backbone_kwargs", "pool", "image_size", "embedding_dim"):
        if name in given and given[name] != getattr(own, name):
            raise ValueError(f"{name} is {getattr(own, name)!r} in {run.model}, and cannot become {given[name]!r}")
    if run.method is not None or run.form is not None:
        method = run.method or method_of_form(run.form, run.task)
        given = method_fields(method, run.task, run.loss or own.loss) | given
    if given.get("loss", own.loss) != own.loss:
        # hyper-parameters of the loss it was trained by
        given.setdefault("loss_kwargs", None)
    model = MODEL_CLASSES[run.task].from_pretrained(run.model, **(given | fields))
    if model.base_model.reference is not None:
        # what it remembers are embeddings of other images, by the model that it was
        model.base_model.reference.forget()
    return model, IDMLImageProcessor.from_pretrained(run.model), run.model


__all__ = ["MODEL_CLASSES", "build_model", "model_fields", "run_config"]
