"""Configuration of the IDML models."""

from __future__ import annotations

import math
import re
from typing import Any, ClassVar

from transformers import PreTrainedConfig

from .errors import clear_loading_errors, one_of
from .similarity import CLASSIFICATION_FORMS, TAU
from .similarity import FORMS as RETRIEVAL_FORMS

# the backbone that hands on vectors, see `idml_hf.architectures.vectors`
VECTORS = "vectors"
POOLS = ("avg", "max", "avg_max", "token", "statistics")
FORMS = (*RETRIEVAL_FORMS, *(form for form in CLASSIFICATION_FORMS if form not in RETRIEVAL_FORMS))
UNCERTAINTY_HEADS = ("stages", "linear")
UNCERTAINTY_ACTIVATIONS = ("budget", "softplus", "relu", "l2")
TASKS = ("retrieval", "classification")
# reference_weight of introspective models, unless told otherwise
REFERENCE_WEIGHT = 0.7
# how the names of losses begin that compare images with class proxies
PROXY_PREFIX = "proxy_"
# ||u|| of fresh heads of the published method, in units of tau: so large that the metric differs from the plain one,
# and so small that its gradient has not vanished
UNCERTAINTY_START = 0.2

_AS_PUBLISHED: dict[str, Any] = {
    "uncertainty_head": "linear",
    "uncertainty_detached": False,
    "uncertainty_ranking": 0.0,
    "reference_weight": 0.0,
}
_CLASSIFIER: dict[str, Any] = _AS_PUBLISHED | {"uncertainty_activation": "relu", "uncertainty_dim": 512, "pool": "avg"}
# What each method sets for each task; all else has the default of its field.
_METHODS: dict[str, dict[str, dict[str, Any]]] = {
    "retrieval": {
        "plain": {"form": "none", "reference_weight": 0.0},
        "published": _AS_PUBLISHED | {"form": "ratio", "uncertainty_start": UNCERTAINTY_START},
        "released": _AS_PUBLISHED | {"form": "released", "uncertainty_activation": "l2"},
        "introspective": {"form": "ratio", "reference_weight": REFERENCE_WEIGHT},
    },
    "classification": {
        "plain": _CLASSIFIER | {"form": "none"},
        "published": _CLASSIFIER | {"form": "ratio"},
        "released": _CLASSIFIER | {"form": "released_classification"},
        "introspective": _CLASSIFIER | {"form": "ratio", "uncertainty_activation": "budget", "uncertainty_level": 1.0},
    },
}
METHODS = ("plain", "published", "released", "introspective")
"""Names that stand for a whole set of fields; see `IDMLConfig.from_method`."""

# timm resolves "hf-hub:...", "local-dir:..." and paths in model names; a configuration may only name an architecture
_BACKBONE_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?")
# What a configuration from anywhere may ask for. Names of so many labels would fill the memory before anything is
# known of the weights.
_LARGEST = {
    "num_labels": 2**20,
    "num_train_classes": 2**26,
    "embedding_dim": 2**16,
    "uncertainty_dim": 2**16,
    "image_size": 2**14,
    "reference_size": 2**24,
}
# create_model arguments that read files, or that the model sets itself
_RESERVED_BACKBONE_KWARGS = frozenset(
    {"model_name", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"}
    | {"num_classes", "global_pool", "features_only", "scriptable", "exportable", "no_jit"}
)


def default_reference_weight(form: str) -> float:
    """The `reference_weight` of a model with this form of the metric: the plain one stays plain."""
    return 0.0 if form == "none" else REFERENCE_WEIGHT


def method_of_form(form: str | None, task: str = "retrieval") -> str:
    """The method that is meant where only the form of the metric is named, or nothing."""
    if form is None:
        return "introspective" if task == "retrieval" else "released"
    one_of("form", form, FORMS)
    ratio = "introspective" if task == "retrieval" else "published"
    return {"none": "plain", "ratio": ratio}.get(form, "released")


def method_fields(method: str, task: str = "retrieval", loss: str | None = None) -> dict[str, Any]:
    """The fields of [`IDMLConfig`] that a method sets.

    Args:
        method: `"plain"`, `"published"`, `"released"` or `"introspective"`, see [`IDMLConfig.from_method`].
        task: `"retrieval"` or `"classification"`.
        loss: Name of the training loss of retrieval, on which the published uncertainty depends.

    Raises:
        ValueError: for an unknown method or task, or a loss that the authors' code does not have.

    Example:
        >>> method_fields("plain")
        {'form': 'none', 'reference_weight': 0.0}
    """
    one_of("task", task, TASKS)
    loss = loss or IDMLConfig.loss
    fields = dict(_METHODS[task][one_of("method", method, METHODS)])
    if task == "retrieval" and method == "published":
        # Unit norm has a gradient between images, where u_i + u_j still has a length, and none against proxies.
        fields["uncertainty_activation"] = "relu" if loss.startswith(PROXY_PREFIX) else "l2"
    if task == "retrieval" and method == "released" and loss != "proxy_anchor":
        raise ValueError(f"method 'released' is the authors' code, which has loss 'proxy_anchor' only, not {loss!r}")
    return fields


class IDMLConfig(PreTrainedConfig):
    """Configuration of [`IDMLModel`], [`IDMLForMetricLearning`] and [`IDMLForImageClassification`].

    Args:
        backbone: Name of a timm architecture, with or without a pretrained tag (`"resnet50"`, `"resnet50.a1_in1k"`).
        backbone_kwargs: Further arguments of `timm.create_model`, for example `{"img_size": 64}` for a ViT.
        image_size: Side in pixels of the square images the model was made for; `None` means the architecture's own.
        pool: How feature maps become one vector: `"avg"`, `"max"`, `"avg_max"` (the paper's sum of both), `"token"`
            (the class token of a ViT), or `"statistics"` (mean and maximum of the last map, mean, standard deviation
            and maximum of earlier ones: what a head on frozen features reads; see
            [`idml_hf.feature_statistics.root_statistics`]).
        embedding_dim: Length d of the semantic embedding.
        uncertainty_dim: Length d_u of the uncertainty embedding; `None` means `embedding_dim`.
        uncertainty_activation: `"budget"` (softplus, normalised so that uncertainty can be moved between images but
            not switched off), `"softplus"`, `"relu"`, or `"l2"` (unit norm, as in the authors' released code).
        uncertainty_level: Mean norm of the uncertainty embedding under `"budget"`.
        uncertainty_head: `"stages"` (two layers, which read the pooled feature and statistics of the trunk's earlier
            feature maps, where degradation shows) or `"linear"` (the paper's one layer on the pooled feature).
        uncertainty_start: Norm of the uncertainty of a fresh head, in units of `tau`, for the activations that nothing
            else keeps at a level (`"relu"`, `"softplus"`); whatever the activation, the head then reads normalised
            features. `None` is the first edition's start, which reads a pooled feature of any norm as it is: with
            `"relu"` on strong features the uncertainty then begins so large that no gradient is left.
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
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["last_hidden_state", "pooler_output", "hidden_states"]

    backbone: str = "resnet50"
    backbone_kwargs: dict | None = None
    image_size: int | None = None
    pool: str = "avg_max"
    embedding_dim: int = 512
    uncertainty_dim: int | None = None
    uncertainty_activation: str = "budget"
    uncertainty_level: float = 0.2
    uncertainty_head: str = "stages"
    uncertainty_start: float | None = None
    uncertainty_detached: bool = True
    uncertainty_ranking: float = 1.0
    reference_size: int = 8192
    reference_weight: float | None = None
    form: str = "ratio"
    tau: float = TAU
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
        start = 1.0 if self.uncertainty_start is None else self.uncertainty_start
        sizes = (self.embedding_dim, self.uncertainty_dim, self.tau, self.uncertainty_level, start)
        if not all(0 < size < math.inf for size in sizes):
            raise ValueError(
                "embedding_dim, uncertainty_dim, tau, uncertainty_level and uncertainty_start must be positive"
            )
        if not 0 <= self.uncertainty_ranking < math.inf:
            raise ValueError(f"uncertainty_ranking must not be negative, not {self.uncertainty_ranking}")
        if self.reference_size < 1 or not 0 <= self.reference_weight < 1:
            raise ValueError("reference_size must be positive, and reference_weight at least 0 and below 1")
        asked = {name: getattr(self, name) for name in _LARGEST if hasattr(self, name)} | kwargs
        for name, largest in _LARGEST.items():
            if isinstance(size := asked.get(name), (int, float)) and not size <= largest:
                raise ValueError(f"{name} is {size}, and at most {largest}")
        super().__post_init__(**kwargs)

    @classmethod
    def from_method(cls, method: str | None = None, task: str = "retrieval", **fields: Any) -> IDMLConfig:
        """Build a configuration from the name of a method.

        - `"plain"`: form `none`, the loss as it is. Uncertainty is learnt by ranking, and no embedding depends on it.
        - `"published"`: form `ratio` and the paper's uncertainty: one attached layer that the metric alone trains,
          with a ReLU, or of unit norm for the losses between images. No ranking, no memory of training images.
        - `"released"`: the authors' code: form `released` with unit norm (ProxyAnchor only), or
          `released_classification` with a ReLU.
        - `"introspective"`: form `ratio` and our uncertainty: a budget, two detached layers, learnt by ranking, and
          training images remembered for evaluation.

        Args:
            method: One of these; `None` means that of the field `form`, and without one `"introspective"` for
                retrieval and `"released"` for classification.
            task: `"retrieval"` or `"classification"`.
            fields: Further fields, in the place of the method's; those that are `None` are left to the method.

        Raises:
            ValueError: for an unknown method, a form that is not the method's, or whatever the class refuses.

        Example:
            >>> config = IDMLConfig.from_method("published", backbone="resnet50", loss="contrastive")
            >>> config.form, config.uncertainty_activation, config.method
            ('ratio', 'l2', 'published')
        """
        fields = {name: value for name, value in fields.items() if value is not None}
        form = fields.get("form")
        method = method_of_form(form, task) if method is None else method
        chosen = method_fields(method, task, fields.get("loss", cls.loss))
        if form not in (None, chosen["form"]):
            raise ValueError(f"method {method!r} has form {chosen['form']!r}, not {form!r}")
        return cls(**(chosen | fields))

    @property
    def method(self) -> str | None:
        """The method that these fields make up, whatever its sizes and weights; `None` if they make up none."""
        if self.form != "ratio":
            return method_of_form(self.form)
        how = (self.uncertainty_activation, self.uncertainty_head, self.uncertainty_detached, self.ranks_uncertainty)
        if how in {("relu", "linear", False, False), ("l2", "linear", False, False)}:
            return "published"
        # a classifier of ours keeps the budget, and its head is the paper's
        ours = {("budget", "stages", True, True), ("budget", "linear", False, False)}
        return "introspective" if how in ours else None

    @property
    def takes_vectors(self) -> bool:
        """Whether the model takes vectors, as embeddings of another model, and no images."""
        return self.backbone == VECTORS

    @property
    def ranks_uncertainty(self) -> bool:
        """Whether the uncertainty is trained by ranking, and training images are remembered for it."""
        # an uncertainty of unit norm cannot be ranked
        return self.uncertainty_ranking > 0 and self.uncertainty_activation != "l2"

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON, without what a kind of model says of its outputs."""
        fields = super().to_dict()
        fields.pop("keys_to_ignore_at_inference", None)
        return fields

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
        for key in ("attn_implementation", "_attn_implementation", "experts_implementation"):
            if "/" in str(config.get(key)):
                raise ValueError(f"The config.json of {name} asks for code from the Hub, {config[key]!r}: refused")
        weights = str(config.get("transformers_weights") or "model.safetensors")
        if re.search(r"[/\\]|\.\.", weights):
            raise ValueError(f"The config.json of {name} names weights outside of it, {weights!r}: refused")
        return config, rest


__all__ = ["IDMLConfig"]
