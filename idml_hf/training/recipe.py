"""The settings of a training run, and recipes: YAML files that hold some of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


def option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass
class TrainingRun:
    """What runs of every kind depend on."""

    output: str = option("", "Folder for the model and all results")
    dataset: str = option("", "Name, folder, or Hub id of the data set")
    root: str | None = option(None, "Where a named data set lies on disk")
    skip_bad_images: bool = option(False, "Go on without the images that cannot be read")
    validation_fraction: float = option(0.0, "Share of the training data held out to select the best epoch")
    form: str = option("ratio", "Form of the metric; none is the plain one")
    tau: float = option(5.0, "Temperature of the introspective metric")
    uncertainty_activation: str | None = option(None, "budget, softplus, relu or l2")
    uncertainty_level: float = option(0.2, "Mean uncertainty under the budget activation")
    backbone: str = option("resnet50", "timm architecture of the trunk")
    backbone_kwargs: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "Further arguments of timm.create_model"}
    )
    weights: str | None = option(None, "Local file of trunk weights in timm's naming")
    pretrained: bool | None = option(None, "Pretrained trunk weights from the Hub; unset: if they can be had")
    pool: str | None = option(None, "avg, max, avg_max, token or statistics")
    image_size: int | None = option(None, "Side of the images in pixels")
    crop_pct: float | None = option(None, "Share of the resized image that the centre crop of evaluation keeps")
    crop_scale: float = option(0.16, "Smallest area of a random training crop, as a share of the image")
    flip: float = option(0.5, "Probability of a horizontal flip in training")
    augment_on_device: bool = option(False, "Crop and flip whole batches on the device; all images must have one size")
    epochs: int = option(20, "Training epochs")
    batch_size: int = option(120, "Images in a batch, on each device")
    learning_rate: float = option(6e-4, "Base learning rate")
    weight_decay: float = option(1e-4, "Weight decay")
    freeze_batch_norm: bool = option(False, "Keep batch normalisation at its running statistics")
    seed: int = option(0, "Seed of everything random")
    workers: int = option(0, "Processes that decode images")
    precision: str = option("fp32", "fp32, bf16 or fp16 autocast")
    compile: bool = option(False, "Compile the model with torch.compile")
    save_steps: int | None = option(None, "Steps between checkpoints; unset: one each epoch")
    resume: bool = option(False, "Go on from the last checkpoint in the output folder")
    overwrite: bool = option(False, "Replace an earlier run in the output folder")
    trainer: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "Further fields of the trainer's arguments"}
    )

    def __post_init__(self) -> None:
        if not self.output:
            raise ValueError("A run needs an output folder")
        if not self.dataset:
            raise ValueError("A run needs a data set")
        from idml_hf.errors import one_of

        one_of("precision", self.precision, ("fp32", "bf16", "fp16"))


@dataclass
class RetrievalRun(TrainingRun):
    """All that one training run depends on: the keys of a recipe and the flags of `idml-hf train`."""

    dataset: str = option("emoji-mini", "Name, folder, or Hub id of the data set")
    group_column: str | None = option(None, "Column of groups; matches of the query's class and group do not count")
    loss: str = option("proxy_anchor", "Training loss")
    loss_kwargs: dict[str, Any] = field(default_factory=dict, metadata={"help": "Hyper-parameters of the loss"})
    model: str | None = option(None, "IDML model to fine-tune, instead of a trunk")
    embedding_dim: int | None = option(None, "Length of the semantic embedding")
    mixup: bool = option(False, "Add the paper's Mixup term to the loss")
    uncertainty_head: str | None = option(None, "stages, or linear as in the paper")
    uncertainty_detached: bool = option(True, "Keep the gradient of the uncertainty head from the trunk")
    uncertainty_ranking: float = option(1.0, "Weight of the term that ranks the uncertainty; 0 is the paper's loss")
    reference_weight: float | None = option(
        None, "How much of what an image shares with the nearest training images is taken off; unset: 0.7, plain 0"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        from idml_hf.configuration_idml import default_reference_weight

        if self.uncertainty_activation is None:
            self.uncertainty_activation = "l2" if self.form == "released" else "budget"
        if self.uncertainty_head is None:
            self.uncertainty_head = "linear" if self.form == "released" else "stages"
        if self.reference_weight is None:
            self.reference_weight = default_reference_weight(self.form)


def load_recipe(*paths: str | Path, settings: type[TrainingRun] = RetrievalRun) -> dict[str, Any]:
    """Read a recipe: a YAML file with fields of a run; of several, later ones replace the keys of earlier ones.

    The key `base` names one or more other recipes, relative to this one, whose keys come first; mappings are merged.
    So a recipe is put together from a data set's, a loss's and a form's part.

    Args:
        paths: Files.
        settings: [`RetrievalRun`] or [`ClassificationRun`]: whose fields the keys are.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for an unknown key (with a suggestion), or a file that is not a YAML mapping.

    Example (a file `cub_proxy_anchor.yaml`)::

        base: [datasets/cub.yaml, losses/proxy_anchor.yaml]
        form: ratio
        epochs: 60
    """
    from idml_hf.errors import one_of

    known = [f.name for f in dataclasses.fields(settings)]
    merged: dict[str, Any] = {}
    for path in paths:
        recipe = _read_recipe(Path(path), ())
        for key in recipe:
            try:
                one_of("recipe key", key, known)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from None
        merged = _merge(merged, recipe)
    return merged


def _read_recipe(path: Path, parents: tuple[Path, ...]) -> dict[str, Any]:
    if path in parents:
        raise ValueError(f"{parents[0]}: {path} is its own base")
    if not path.is_file():
        raise FileNotFoundError(f"No recipe at {path}")
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} must hold keys and values")
    bases = settings.pop("base", [])
    merged: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        merged = _merge(merged, _read_recipe(path.parent / base, (*parents, path)))
    return _merge(merged, settings)


def _merge(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    both = {
        k: _merge(first[k], v) if isinstance(v, dict) and isinstance(first.get(k), dict) else v
        for k, v in second.items()
    }
    return first | both


__all__ = ["RetrievalRun", "TrainingRun", "load_recipe"]
