"""The settings of a classification run."""

from __future__ import annotations

from dataclasses import dataclass

from .recipe import TrainingRun, option

AUGMENTATIONS = ("crop", "shift", "none")


@dataclass
class ClassificationRun(TrainingRun):
    """All that one classification run depends on: the keys of a recipe and the flags of `train_classification.py`.

    `augmentation` is `"crop"`, a random crop of random size, resized; `"shift"`, a crop of the padded image, and
    `"none"`, both of small images of one size, which are kept in memory.
    """

    form: str = option("released_classification", "released_classification, ratio, or none for the plain classifier")
    uncertainty_level: float = option(1.0, "Mean uncertainty under the budget activation")
    uncertainty_dim: int = option(512, "Length of the uncertainty embedding")
    augmentation: str = option("crop", "crop, shift or none")
    padding: int = option(4, "Pixels added on each side before the crop of --augmentation shift")
    mix: str = option("none", "none, mixup or cutmix")
    mix_alpha: float = option(1.0, "The mixing ratio is drawn from Beta(alpha, alpha)")
    mix_probability: float = option(1.0, "Share of the batches that are mixed")

    def __post_init__(self) -> None:
        super().__post_init__()
        from idml_hf.errors import one_of

        one_of("augmentation", self.augmentation, AUGMENTATIONS)
        if self.uncertainty_activation is None:
            self.uncertainty_activation = "relu"
        if self.pool is None:
            self.pool = "avg"


__all__ = ["AUGMENTATIONS", "ClassificationRun"]
