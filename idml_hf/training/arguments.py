"""Arguments of the trainers."""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import TrainingArguments

from idml_hf.errors import one_of
from idml_hf.processes import join_processes, launched_processes

from .mixing import MIXES


@dataclass
class IDMLTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` and what metric learning adds.

    Args:
        batch_sampling: `"random"`, `"pk"` (P classes, K images of each), or `"auto"`: random for losses with proxies
            (P x K batches hurt ProxyAnchor), P x K for the others, with a smaller P where there are too few classes.
        images_per_class: K of P x K batches; P is the batch size divided by K.
        learning_rate_multipliers: Regular expression on a parameter's name -> factor on its learning rate. The first
            that matches counts.
        frozen_trunk_epochs: For so many epochs at the start only the heads and the loss are trained.
        lr_step_epochs: One value k: the learning rate falls every k epochs. Several: it falls after each of these
            epochs. None: `lr_scheduler_type` decides.
        lr_step_gamma: Factor of each fall.
        clip_grad_value: Gradients are clipped to [-value, value]; `None` leaves them alone.
        mixup: Add the paper's Mixup term to the loss, whatever its form.
        mixup_alpha: lam ~ Beta(alpha, alpha).
        degraded_share: Share of each batch of which the uncertainty also sees two degraded copies, under
            `uncertainty_ranking`; 0 for none.
        channels_last: Keep the trunk and the images in channels-last memory order, which convolutions prefer.
        collapse_threshold: Warn when the spread of the uncertainty over an epoch (standard deviation over mean of its
            norm) is below this.

    Example:
        >>> from idml_hf import IDMLTrainingArguments
        >>> args = IDMLTrainingArguments("out", batch_sampling="pk", per_device_train_batch_size=32, use_cpu=True)
        >>> args.classes_per_batch
        8
    """

    batch_sampling: str = field(default="auto", metadata={"help": "auto, random or pk"})
    images_per_class: int = field(default=4, metadata={"help": "K of P x K batches"})
    learning_rate_multipliers: dict[str, float] | str | None = field(
        default_factory=lambda: {r"(^|\.)proxies$": 100.0},
        metadata={"help": "Regular expression on parameter names -> factor on the learning rate"},
    )
    frozen_trunk_epochs: int = field(default=0, metadata={"help": "Epochs at the start in which the trunk is frozen"})
    lr_step_epochs: list[int] | None = field(
        default=None, metadata={"help": "Epochs between falls of the learning rate, or the epochs of the falls"}
    )
    lr_step_gamma: float = field(default=0.5, metadata={"help": "Factor of each fall of the learning rate"})
    clip_grad_value: float | None = field(default=10.0, metadata={"help": "Clip each gradient value to this size"})
    mixup: bool = field(default=False, metadata={"help": "Add the paper's Mixup term to the loss"})
    mixup_alpha: float = field(default=1.0, metadata={"help": "lam ~ Beta(alpha, alpha)"})
    degraded_share: float = field(default=0.25, metadata={"help": "Share of a batch to degrade, for the uncertainty"})
    channels_last: bool = field(default=True, metadata={"help": "Channels-last memory order"})
    collapse_threshold: float = field(default=0.01, metadata={"help": "Warn below this spread of uncertainty"})

    # Value clipping takes the place of norm clipping; decoded images carry nothing that the model's forward names.
    max_grad_norm: float = field(default=0.0, metadata={"help": "Max norm of the gradients; 0 means no limit"})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Unused; images are decoded on access"})

    _VALID_DICT_FIELDS = [*TrainingArguments._VALID_DICT_FIELDS, "learning_rate_multipliers"]

    def __post_init__(self) -> None:
        # before transformers joins them, which without a GPU it would do for processes that were told so only
        if launched_processes() > 1 and not self.deepspeed:
            join_processes(self.use_cpu)
        super().__post_init__()
        if self.world_size != launched_processes():
            raise ValueError(f"WORLD_SIZE is {launched_processes()}, but the trainer's world has {self.world_size}")
        one_of("batch_sampling", self.batch_sampling, ("auto", "random", "pk"))
        if self.images_per_class < 1:
            raise ValueError(f"images_per_class must be at least 1, not {self.images_per_class}")
        if self.per_device_train_batch_size % self.images_per_class and self.batch_sampling == "pk":
            raise ValueError(
                f"per_device_train_batch_size ({self.per_device_train_batch_size}) must be a multiple of "
                f"images_per_class ({self.images_per_class})"
            )
        if self.mixup and self.mixup_alpha <= 0:
            raise ValueError(f"mixup_alpha must be positive, not {self.mixup_alpha}")
        if not 0 <= self.degraded_share <= 1:
            raise ValueError(f"degraded_share must lie in [0, 1], not {self.degraded_share}")

    @property
    def classes_per_batch(self) -> int:
        """P of P x K batches."""
        return self.per_device_train_batch_size // self.images_per_class


@dataclass
class ClassificationArguments(IDMLTrainingArguments):
    """[`IDMLTrainingArguments`] and what classification adds.

    Args:
        mix: `"none"`, `"mixup"` or `"cutmix"`, of each batch with itself.
        mix_alpha: lam ~ Beta(alpha, alpha).
        mix_probability: Share of the batches that are mixed.
        decay_all: Let weight decay act on biases and normalisation too, as plain SGD does.
    """

    mix: str = field(default="none", metadata={"help": "none, mixup or cutmix"})
    mix_alpha: float = field(default=1.0, metadata={"help": "lam ~ Beta(alpha, alpha)"})
    mix_probability: float = field(default=1.0, metadata={"help": "Share of the batches that are mixed"})
    decay_all: bool = field(default=False, metadata={"help": "Weight decay on biases and normalisation too"})

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("mix", self.mix, MIXES)
        if self.mixup:
            raise ValueError('mixup is a term of retrieval losses; classification takes mix="mixup"')
        if self.mix_alpha <= 0 or not 0 <= self.mix_probability <= 1:
            raise ValueError(
                f"mix_alpha must be positive and mix_probability in [0, 1], not {self.mix_alpha} and "
                f"{self.mix_probability}"
            )


ARGUMENTS: dict[str, type[IDMLTrainingArguments]] = {
    "retrieval": IDMLTrainingArguments,
    "classification": ClassificationArguments,
}
"""The class of the arguments for each task."""

__all__ = ["ARGUMENTS", "ClassificationArguments", "IDMLTrainingArguments"]
