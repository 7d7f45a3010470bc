"""The settings of a training run: the keys of a recipe and the options of `idml-hf train`.

A setting whose default is `None` has its default elsewhere, in the class or the function that it is handed to; see
[`idml_hf.training.effective.effective_settings`]. This file imports nothing heavy: `idml-hf train --help` needs it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .declaration import checked, declared, described, option

TASKS = ("retrieval", "classification")
TRACKERS = ("none", "tensorboard", "wandb", "trackio")
AUGMENTATIONS = ("crop", "shift", "none")
DEFAULT_DATASET = "emoji-mini"
# settings that may differ from machine to machine without making it another experiment
LOCAL = frozenset({"output", "root", "workers", "save_steps", "resume", "overwrite", "compile", "report_to"})
_SECRET = re.compile(r"(^|_)(token|secret|password|passwd|api_?key|credentials?)$", re.IGNORECASE)


@dataclass
class ModelSettings:
    """What the model is. The fields that [`IDMLConfig`] has too get their defaults from its `from_method`."""

    method: str | None = option(None, "plain, published, released or introspective: sets all that they differ in")
    model: str | None = option(None, "IDML model to fine-tune, instead of a backbone", task="retrieval")
    backbone: str | None = option(None, "timm architecture of the backbone")
    backbone_kwargs: dict[str, Any] = field(
        default_factory=dict, metadata=described("Further arguments of timm.create_model")
    )
    weights: str | None = option(None, "Local file of backbone weights in timm's naming")
    pretrained: bool | None = option(None, "Pretrained backbone weights from the Hub; unset: if they can be had")
    pool: str | None = option(None, "avg, max, avg_max, token or statistics")
    image_size: int | None = option(None, "Side of the images in pixels; unset: the backbone's own", at_least=1)
    embedding_dim: int | None = option(None, "Length of the semantic embedding", at_least=1, task="retrieval")
    form: str | None = option(None, "Form of the metric; none is the plain one")
    tau: float | None = option(None, "Temperature of the introspective metric", above=0)
    uncertainty_dim: int | None = option(None, "Length of the uncertainty embedding", at_least=1)
    uncertainty_activation: str | None = option(None, "budget, softplus, relu or l2")
    uncertainty_level: float | None = option(None, "Mean uncertainty under the budget activation", above=0)
    uncertainty_head: str | None = option(None, "stages, or linear as in the paper")
    uncertainty_start: float | None = option(None, "Uncertainty of a fresh head, in units of tau", above=0)
    uncertainty_detached: bool | None = option(None, "Keep the gradient of the uncertainty head from the backbone")
    uncertainty_ranking: float | None = option(
        None, "Weight of the term that ranks the uncertainty; 0 is the paper's loss", at_least=0, task="retrieval"
    )
    reference_size: int | None = option(
        None, "Number of training images that the model remembers", at_least=1, task="retrieval"
    )
    reference_weight: float | None = option(
        None,
        "How much of what an image shares with the nearest training images is taken off",
        at_least=0,
        below=1,
        task="retrieval",
    )
    loss: str | None = option(None, "Training loss", task="retrieval")
    loss_kwargs: dict[str, Any] = field(
        default_factory=dict, metadata=described("Hyper-parameters of the loss", task="retrieval")
    )
    freeze_batch_norm: bool | None = option(None, "Keep batch normalisation at its running statistics")


@dataclass
class DataSettings:
    """What the model is trained on, and how its images are prepared.

    `augmentation` is `"crop"`, a random crop of random size, resized; `"shift"`, a crop of the padded image, and
    `"none"`, both of small images of one size, which are kept in memory.
    """

    dataset: str | None = option(None, "Name, folder, or Hub id of the data set")
    features: str | None = option(
        None, "What `idml-hf features` wrote, or embeddings (.parquet, .npy), instead of a data set", task="retrieval"
    )
    labels: str | None = option(None, "Classes of the embeddings of a .npy file, a .npy file too", task="retrieval")
    root: str | None = option(None, "Where a named data set lies on disk")
    group_column: str | None = option(
        None, "Column of groups; matches of the query's class and group do not count", task="retrieval"
    )
    skip_bad_images: bool = option(False, "Go on without the images that cannot be read")
    exclude: str | None = option(None, "CSV file of training images to leave out, as idml-hf audit writes it")
    test_fraction: float | None = option(
        None,
        "Share of the classes to test on, whatever splits the data have; 0 trains on all",
        at_least=0,
        below=1,
        task="retrieval",
    )
    validation_fraction: float = option(
        0.0, "Share of the training data held out to select the best epoch", at_least=0, below=1
    )
    crop_pct: float | None = option(
        None, "Share of the resized image that the centre crop of evaluation keeps", above=0, at_most=1
    )
    augmentation: str = option("crop", "crop, shift or none", choices=AUGMENTATIONS)
    crop_scale: float = option(
        0.16, "Smallest area of a random training crop, as a share of the image", above=0, at_most=1
    )
    padding: int | None = option(None, "Pixels added on each side before the crop of --augmentation shift", at_least=0)
    flip: float | None = option(None, "Probability of a horizontal flip in training", at_least=0, at_most=1)
    augment_on_device: bool = option(False, "Crop and flip whole batches on the device; all images must have one size")
    workers: int = option(0, "Processes that decode images", at_least=0)


@dataclass
class TrainingSettings:
    """How it is trained."""

    epochs: int = option(20, "Training epochs", at_least=1)
    frozen_trunk: bool = option(
        False, "Leave the backbone as it is and fit the heads to its features, in seconds", task="retrieval"
    )
    head: str = option(
        "closed_form",
        "closed_form, or trained by the loss from there on; with --frozen-trunk",
        choices=("closed_form", "trained"),
        task="retrieval",
    )
    batch_size: int = option(
        120,
        "Images in a batch, on each device; fewer where an epoch would leave out a tenth of all",
        at_least=1,
    )
    learning_rate: float = option(6e-4, "Base learning rate", above=0)
    weight_decay: float = option(1e-4, "Weight decay", at_least=0)
    mixup: bool | None = option(None, "Add the paper's Mixup term to the loss", task="retrieval")
    mix: str | None = option(None, "none, mixup or cutmix", task="classification")
    mix_alpha: float | None = option(
        None, "The mixing ratio is drawn from Beta(alpha, alpha)", above=0, task="classification"
    )
    mix_probability: float | None = option(
        None, "Share of the batches that are mixed", at_least=0, at_most=1, task="classification"
    )
    seed: int = option(0, "Seed of everything random", at_least=0, below=2**32)
    precision: str = option("fp32", "fp32, bf16 or fp16 autocast", choices=("fp32", "bf16", "fp16"))
    compile: bool = option(False, "Compile the model with torch.compile")
    report_to: str = option("none", "Tracker that is told of each step", choices=TRACKERS)
    save_steps: int | None = option(None, "Steps between checkpoints; unset: one each epoch", at_least=1)
    trainer: dict[str, Any] = field(
        default_factory=dict, metadata=described("Further fields of the trainer's arguments")
    )


@dataclass
class Run(TrainingSettings, DataSettings, ModelSettings):
    """All that one training run depends on: its model, its data, its training, and where it is kept.

    Raises:
        ValueError: naming a setting that is missing, of another type, out of range, of the other task, or that names
            a secret, since settings are kept with the model and published with it.

    Example:
        >>> run = Run(output="out", loss="contrastive", epochs=3)
        >>> run.task, run.dataset
        ('retrieval', 'emoji-mini')
    """

    task: str = option("retrieval", "retrieval or classification", choices=TASKS)
    output: str = option("", "Folder for the model and all results")
    resume: bool = option(False, "Go on from the last checkpoint in the output folder")
    overwrite: bool = option(False, "Replace an earlier run in the output folder")

    def __post_init__(self) -> None:
        for name, (spec, _) in declared(Run).items():
            value = checked(Run, name, getattr(self, name))
            setattr(self, name, value)
            unset = spec.default if spec.default is not dataclasses.MISSING else {}
            if spec.metadata["task"] not in (None, self.task) and value != unset:
                raise ValueError(f"{name} is a setting of task {spec.metadata['task']}, not of {self.task}")
        if not self.output:
            raise ValueError("A run needs an output folder")
        self._check_features()
        if not self.dataset and not self.features:
            if self.task != "retrieval":
                raise ValueError("A run needs a data set")
            self.dataset = DEFAULT_DATASET
        if self.resume and self.overwrite:
            raise ValueError("resume goes on with a run and overwrite replaces it: set one of them")
        if self.frozen_trunk and self.mixup:
            raise ValueError("mixup mixes images, and a frozen backbone reads each image once: leave one of them out")
        for key in _keys(self.trainer):
            if _SECRET.search(key):
                raise ValueError(
                    f"trainer may not hold {key}: settings are kept with the model and published with it. Log in with "
                    "`hf auth login`, or set HF_TOKEN"
                )

    def _check_features(self) -> None:
        if self.features is None:
            if self.labels is not None:
                raise ValueError("labels are those of features: give both")
            return
        for name in ("dataset", "root", "model"):
            if getattr(self, name) is not None:
                raise ValueError(f"features take the place of a data set and a model: leave out {name}")
        self.frozen_trunk = True


def _keys(mapping: Mapping[str, Any]) -> Iterator[str]:
    """All keys of a mapping and of the mappings in it."""
    for key, value in mapping.items():
        yield str(key)
        if isinstance(value, Mapping):
            yield from _keys(value)


__all__ = [
    "AUGMENTATIONS",
    "DEFAULT_DATASET",
    "LOCAL",
    "TASKS",
    "TRACKERS",
    "DataSettings",
    "ModelSettings",
    "Run",
    "TrainingSettings",
]
