"""Configuration of the IDML models."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from transformers import PreTrainedConfig

from .errors import clear_loading_errors, one_of

POOLS = ("avg", "max", "avg_max", "token")
FORMS = ("ratio", "released", "released_classification", "none")
UNCERTAINTY_HEADS = ("stages", "linear")
UNCERTAINTY_ACTIVATIONS = ("budget", "softplus", "relu", "l2")
# reference_weight of introspective models, unless told otherwise
REFERENCE_WEIGHT = 0.7

# timm resolves "hf-hub:...", "local-dir:..." and paths in model names; a configuration may only name an architecture
_BACKBONE_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?")
# create_model arguments that read files, or that the model sets itself
_RESERVED_BACKBONE_KWARGS = frozenset(
    {"model_name", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"}
    | {"num_classes", "global_pool", "features_only", "scriptable", "exportable", "no_jit"}
)


def default_reference_weight(form: str) -> float:
    """The `reference_weight` of a model with this form of the metric: the plain one stays plain."""
    return 0.0 if form == "none" else REFERENCE_WEIGHT


class IDMLConfig(PreTrainedConfig):
    """Configuration of [`IDMLModel`], [`IDMLForMetricLearning`] and [`IDMLForImageClassification`].

    Args:
        backbone: Name of a timm architecture, with or without a pretrained tag (`"resnet50"`, `"resnet50.a1_in1k"`).
        backbone_kwargs: Further arguments of `timm.create_model`, for example `{"img_size": 64}` for a ViT.
        image_size: Side in pixels of the square images the model was made for; `None` means the architecture's own.
        pool: How the feature map becomes one vector: `"avg"`, `"max"`, `"avg_max"` (the paper's sum of both), or
            `"token"` (the class token of a ViT).
        embedding_dim: Length d of the semantic embedding.
        uncertainty_dim: Length d_u of the uncertainty embedding; `None` means `embedding_dim`.
        uncertainty_activation: `"budget"` (softplus, normalised so that uncertainty can be moved between images but
            not switched off), `"softplus"`, `"relu"`, or `"l2"` (unit norm, as in the authors' released code).
        uncertainty_level: Mean norm of the uncertainty embedding under `"budget"`.
        uncertainty_head: `"stages"` (two layers, which read the pooled feature and statistics of the trunk's earlier
            feature maps, where degradation shows) or `"linear"` (the paper's one layer on the pooled feature).
        uncertainty_detached: Whether the uncertainty head reads features without sending a gradient back: it
            then learns from what the trunk sees, and cannot change it.
        uncertainty_ranking: Weight, in the training loss of retrieval, of the term by which the uncertainty learns to
            order images by how hard they are (see [`idml_hf.losses.uncertainty_ranking`]). The metric then reads the
            uncertainty and does not train it; at 0 it alone does, as in the paper.
        reference_size: Number of training images whose embeddings the model remembers while its uncertainty is ranked
            (see [`idml_hf.reference_memory`]). They are saved with it.
        reference_weight: How much of what an image has in common with the training images nearest to it is taken off
            its semantic embedding in evaluation, in [0, 1); `None` means 0.7, and 0 under the form `"none"`.
        form: Form of the introspective metric: `"ratio"`, `"released"`, `"released_classification"` or `"none"`.
        tau: Temperature of the introspective metric, > 0.
        freeze_batch_norm: Keep the trunk's batch normalisation at its running statistics while training, with its
            scale and shift fixed too.
        loss: Name of the training loss, see [`idml_hf.losses.LOSSES`].
        loss_kwargs: Hyper-parameters of that loss.
        num_train_classes: Number of training classes (the losses with proxies keep one per class).

    Raises:
        ValueError: for an unknown form, pool or activation, or a backbone that is not a plain architecture name.

    Example:
        >>> from idml_hf import IDMLConfig
        >>> IDMLConfig(backbone="resnet18", embedding_dim=128).hidden_size
        128
    """

    model_type = "idml"
    attribute_map: ClassVar[dict[str, str]] = {"hidden_size": "embedding_dim"}
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["last_hidden_state", "pooler_output"]

    backbone: str = "resnet50"
    backbone_kwargs: dict | None = None
    image_size: int | None = None
    pool: str = "avg_max"
    embedding_dim: int = 512
    uncertainty_dim: int | None = None
    uncertainty_activation: str = "budget"
    uncertainty_level: float = 0.2
    uncertainty_head: str = "stages"
    uncertainty_detached: bool = True
    uncertainty_ranking: float = 1.0
    reference_size: int = 8192
    reference_weight: float | None = None
    form: str = "ratio"
    tau: float = 5.0
    freeze_batch_norm: bool = False
    loss: str = "proxy_anchor"
    loss_kwargs: dict | None = None
    num_train_classes: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.uncertainty_dim is None:
            self.uncertainty_dim = self.embedding_dim
        if self.reference_weight is None:
            self.reference_weight = default_reference_weight(self.form)
        one_of("form", self.form, FORMS)
        one_of("pool", self.pool, POOLS)
        one_of("uncertainty_head", self.uncertainty_head, UNCERTAINTY_HEADS)
        one_of("uncertainty_activation", self.uncertainty_activation, UNCERTAINTY_ACTIVATIONS)
        if not _BACKBONE_NAME.fullmatch(self.backbone):
            raise ValueError(f"backbone must be the name of a timm architecture, not {self.backbone!r}")
        if reserved := _RESERVED_BACKBONE_KWARGS.intersection(self.backbone_kwargs or {}):
            raise ValueError(f"backbone_kwargs may not set {', '.join(sorted(reserved))}")
        if self.form == "released" and self.uncertainty_activation != "l2":
            raise ValueError('form="released" requires uncertainty_activation="l2", as in the authors\' code')
        if min(self.embedding_dim, self.uncertainty_dim) < 1 or self.tau <= 0 or self.uncertainty_level <= 0:
            raise ValueError("embedding_dim, uncertainty_dim, tau and uncertainty_level must be positive")
        if self.uncertainty_ranking < 0:
            raise ValueError(f"uncertainty_ranking must not be negative, not {self.uncertainty_ranking}")
        if self.reference_size < 1 or not 0 <= self.reference_weight < 1:
            raise ValueError("reference_size must be positive, and reference_weight at least 0 and below 1")
        super().__post_init__(**kwargs)

    @property
    def ranks_uncertainty(self) -> bool:
        """Whether the uncertainty is trained by ranking, and training images are remembered for it."""
        # an uncertainty of unit norm cannot be ranked
        return self.uncertainty_ranking > 0 and self.uncertainty_activation != "l2"

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> tuple[dict, dict]:
        """As in transformers, but refuses a folder or repository that holds no IDML model.

        Raises:
            OSError: saying what is missing: folder, repository, revision, file or connection.
            ValueError: for a model of another kind, or one that names weights elsewhere.
        """
        name = str(pretrained_model_name_or_path)
        with clear_loading_errors(name, kwargs.get("revision")):
            config, rest = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
            if not config:
                raise FileNotFoundError(f"{name} holds no model: it has no config.json")
        if config.get("model_type") != cls.model_type:
            kind = config.get("model_type", "no kind of model")
            raise ValueError(f"{name} is not an IDML model: its config.json describes {kind}")
        weights = str(config.get("transformers_weights") or "model.safetensors")
        if re.search(r"[/\\]|\.\.", weights):
            raise ValueError(f"The config.json of {name} names weights outside of it, {weights!r}: refused")
        return config, rest


__all__ = ["IDMLConfig"]
