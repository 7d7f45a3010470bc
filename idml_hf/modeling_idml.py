"""IDML models on timm trunks: a semantic and an uncertainty embedding for each image.

This file imports only its three neighbours, so that it can travel with a checkpoint as remote code.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import torch.distributed as dist
import torch.nn.functional as F
from huggingface_hub import constants, get_session, try_to_load_from_cache
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from .configuration_idml import IDMLConfig
from .errors import clear_loading_errors, one_of
from .reference_memory import ReferenceMemory
from .similarity import introspective_logits
from .weight_files import require_safetensors

# hidden layer of the "stages" uncertainty head
HIDDEN_FEATURES = 256
# norm of the features that a head with a start reads: larger, Adam's first steps carry all units out of the ReLU's
# range; smaller, ProxyNCA, which sees only differences between an image's distances, hardly moves them
READ_NORM = 3.0
# root mean square of an activation on normally distributed values of unit variance
_RMS = {"relu": 0.5**0.5, "softplus": 0.96}


@dataclass
class IDMLModelOutput(ModelOutput):
    """Output of [`IDMLModel`]. All but the last are fp32 (fp64 for an fp64 model).

    Args:
        semantic_embeds: `(B, d)`, unit norm: what one compares.
        uncertainty_embeds: `(B, d_u)`: what the introspective metric adds for a pair of images.
        uncertainty: `(B,)`, its norm: the number to sort or to filter by; larger is less certain.
        pooler_output: The same tensor as `semantic_embeds`, under the name that pipelines look for.
        semantic_norm: `(B,)`, norm of the semantic head's output before normalisation: a baseline for uncertainty.
        last_hidden_state: The trunk's feature map, in the layout of its architecture.
    """

    semantic_embeds: Tensor | None = None
    uncertainty_embeds: Tensor | None = None
    uncertainty: Tensor | None = None
    pooler_output: Tensor | None = None
    semantic_norm: Tensor | None = None
    last_hidden_state: Tensor | None = None


@dataclass
class IDMLImageClassifierOutput(ModelOutput):
    """Output of [`IDMLForImageClassification`].

    Args:
        loss: Cross entropy, when labels were given.
        logits: `(B, C)`; introspective while training, plain in evaluation.
        uncertainty_embeds: `(B, d_u)`.
        uncertainty: `(B,)`, its norm.
        last_hidden_state: The trunk's feature map.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    uncertainty_embeds: Tensor | None = None
    uncertainty: Tensor | None = None
    last_hidden_state: Tensor | None = None


def _upcast(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _mean_over_processes(local_sum: Tensor, local_count: int) -> Tensor:
    """Mean over the joined batch of all processes, with gradient."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return local_sum / local_count
    from torch.distributed.nn.functional import all_reduce

    total = all_reduce(torch.stack([local_sum, local_sum.new_tensor(float(local_count))]))
    return total[0] / total[1]


class UncertaintyHead(nn.Module):
    """One or two layers and an activation that turn features into the uncertainty embedding.

    Under `"budget"` the softplus is divided by the batch's mean norm and multiplied by `level`, so the mean norm is
    always `level`: the loss can say which image is uncertain, but cannot win by making nothing uncertain. Inference
    divides by the running mean, kept in fp32 in the checkpoint and the same on all processes.

    Args:
        in_features: Length of what it reads.
        out_features: Length d_u of the uncertainty embedding.
        activation: `"budget"`, `"softplus"`, `"relu"` or `"l2"`.
        level: Mean norm under `"budget"`.
        momentum: Weight of the newest batch in the running mean.
        hidden_features: Length of the hidden layer, or None for none.
        start: Norm of a fresh head's result under `"relu"` and `"softplus"`, for features of norm 3; None leaves it
            to how the layer is drawn, as the first edition did.
    """

    running_norm: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: str,
        level: float = 1.0,
        momentum: float = 0.1,
        hidden_features: int | None = None,
        start: float | None = None,
    ) -> None:
        super().__init__()
        self.start = start
        # A factor, and no smaller weights: one step of Adam would carry those across the whole of the ReLU's range.
        rms = _RMS.get(activation)
        self.scale = 1.0 if start is None or rms is None else start / (rms * out_features**0.5)
        self.hidden = nn.Linear(in_features, hidden_features) if hidden_features else None
        self.linear = nn.Linear(hidden_features or in_features, out_features)
        self.activation = activation
        self.level = level
        self.momentum = momentum
        # the norm of softplus(0), which is close to that of fresh heads
        self.initial_norm = 0.6931 * out_features**0.5
        self.register_buffer("running_norm", torch.tensor(self.initial_norm, dtype=torch.float32))

    def reset_parameters(self) -> None:
        init.kaiming_normal_(self.linear.weight, mode="fan_out")
        if self.start is not None and self.activation in _RMS:
            # unit variance; a ReLU after a layer drawn from U(-1, 1) / sqrt(fan in) leaves a sixth of the square
            square = READ_NORM**2 if self.hidden is None else self.linear.in_features / 6
            init.normal_(self.linear.weight, std=square**-0.5)
        init.zeros_(self.linear.bias)
        if self.hidden is not None:
            init.kaiming_uniform_(self.hidden.weight, a=5**0.5)
            init.zeros_(self.hidden.bias)
        init.constant_(self.running_norm, self.initial_norm)

    def activate(self, features: Tensor) -> Tensor:
        """Uncertainty embeddings before the budget: those of one batch differ from the result by one factor."""
        if self.hidden is not None:
            features = F.relu(self.hidden(features))
        x = _upcast(self.linear(features))
        if self.activation == "l2":
            return F.normalize(x, dim=-1)
        x = F.relu(x) if self.activation == "relu" else F.softplus(x)
        return x if self.scale == 1.0 else x * self.scale

    def forward(self, features: Tensor) -> Tensor:
        """Map features `(B, in_features)` to uncertainty embeddings `(B, out_features)`."""
        x = self.activate(features)
        if self.activation != "budget":
            return x
        if self.training:
            mean_norm = _mean_over_processes(torch.linalg.vector_norm(x, dim=-1).sum(), len(x))
            with torch.no_grad():
                self.running_norm.lerp_(mean_norm.to(self.running_norm.dtype), self.momentum)
        else:
            mean_norm = self.running_norm.to(x.dtype)
        return x * (self.level / mean_norm)


class IDMLPreTrainedModel(PreTrainedModel):
    """What all IDML models share: how they are built on a timm trunk, initialised and loaded."""

    config_class = IDMLConfig
    # the same on every class of the family: else loading a head's checkpoint into the base starts afresh in silence
    base_model_prefix = "idml"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    model_tags = ["timm", "metric-learning", "image-retrieval", "idml"]
    accepts_loss_kwargs = False
    _task = "retrieval"
    _supports_sdpa = True
    _no_split_modules = ["IDMLModel"]
    _keep_in_fp32_modules_strict = ["running_norm", "reference"]

    @torch.no_grad()
    def _init_weights(self, module: Any) -> None:
        # The default would redraw every layer of the trunk; timm has initialised them already.
        if isinstance(module, (UncertaintyHead, ReferenceMemory)):
            module.reset_parameters()
        elif hasattr(module, "init_non_persistent_buffers"):
            module.init_non_persistent_buffers()
        elif hasattr(module, "_get_pos_embed_values") and getattr(module, "feat_shape", None) is not None:
            old = module.pos_embed
            module.pos_embed = module._get_pos_embed_values(
                feat_shape=module.feat_shape,
                device=None if old is None else old.device,
                dtype=torch.float32 if old is None else old.dtype,
            )
        elif getattr(self, "_loading", False) and hasattr(module, "reset_parameters"):
            own = list(module.parameters(recurse=False))
            if any(not getattr(p, "_is_hf_initialized", False) for p in own):
                module.reset_parameters()

    def _initialize_missing_keys(self, *args: Any, **kwargs: Any) -> None:
        # Only from_pretrained comes here, where parameters absent from the file are uninitialised memory.
        models = [m for m in self.modules() if isinstance(m, IDMLPreTrainedModel)]
        for m in models:
            m._loading = True
        try:
            super()._initialize_missing_keys(*args, **kwargs)
        finally:
            for m in models:
                del m._loading

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a model from a folder or the Hub; takes the arguments of transformers' method of this name.

        Only safetensors files are read. What a checkpoint lacks is not made up, except for a head that is to be
        trained (a classifier, or a loss); with `output_loading_info=True` the caller judges that.

        Raises:
            OSError: saying what is missing: folder, repository, revision, file or connection.
            ValueError: for a model of another kind, or weights that do not fit the configuration.
        """
        name = str(pretrained_model_name_or_path)
        if kwargs.setdefault("use_safetensors", True) is False:
            raise ValueError("IDML models are loaded from safetensors files only")
        asks = kwargs.pop("output_loading_info", False)
        config = kwargs.get("config", args[0] if args else None)
        if isinstance(config, IDMLConfig):
            chosen = getattr(config, "transformers_weights", None)
        else:
            chosen = IDMLConfig.get_config_dict(name, **_where(kwargs))[0].get("transformers_weights")
        with clear_loading_errors(name, kwargs.get("revision")):
            if kwargs.get("state_dict") is None:
                require_safetensors(name, _where(kwargs), variant=kwargs.get("variant"), chosen=chosen)
            try:
                model, info = super().from_pretrained(
                    pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs
                )
            except SafetensorError as error:
                raise ValueError(f"The weights of {name} are damaged: {error}") from error
            except RuntimeError as error:
                if "mismatched" not in str(error):
                    raise
                raise ValueError(f"The weights of {name} have other shapes than its config.json says") from error
        if asks:
            return model, info
        needed = "" if cls is IDMLModel else r"idml\.backbone\."
        missing = sorted(k for k in info["missing_keys"] if re.match(needed, k) and not k.endswith("batches_tracked"))
        if missing:
            raise ValueError(f"{name} is not a whole {cls.__name__}: it lacks {len(missing)} weights, as {missing[0]}")
        return model

    def save_pretrained(
        self,
        save_directory: str | Path,
        is_main_process: bool = True,
        *args: Any,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Save a folder that transformers and sentence-transformers open, with an image processor.

        Takes the arguments of transformers' method of this name.
        """
        to_push = {name: kwargs.pop(name) for name in ("repo_id", "commit_message", "private") if name in kwargs}
        super().save_pretrained(save_directory, is_main_process, *args, **kwargs)
        hub = _hub()
        if hub is not None and is_main_process:
            hub.complete_saved_folder(self, save_directory)
        if push_to_hub:
            self.push_to_hub(to_push.pop("repo_id", Path(save_directory).name), token=kwargs.get("token"), **to_push)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> Any:
        """Push the model with its image processor and a model card; see [`idml_hf.hub.push_model`]."""
        hub = _hub()
        return super().push_to_hub(repo_id, **kwargs) if hub is None else hub.push_model(self, repo_id, **kwargs)

    @property
    def trunk(self) -> Any:
        """The timm model."""
        return self.base_model.backbone

    @classmethod
    def from_backbone(
        cls,
        backbone: str = "resnet50",
        pretrained: bool = True,
        weights: str | Path | None = None,
        method: str | None = None,
        **config: Any,
    ) -> Any:
        """Build a model with fresh heads on a timm trunk.

        Args:
            backbone: Name of a timm architecture.
            pretrained: Whether the trunk gets timm's pretrained weights from the Hub; ignored with `weights`.
            weights: A local file of trunk weights in timm's naming: `.safetensors`, or a checkpoint that torch reads
                with `weights_only=True`. A classifier in it is left out.
            method: Name of a method, whose fields those in `config` replace; see [`IDMLConfig.from_method`].
            config: Fields of [`IDMLConfig`].

        Raises:
            ValueError: for an unknown architecture, or weights that do not fit it.
            FileNotFoundError: if `weights` does not exist.
            OSError: if pretrained weights cannot be downloaded.

        Example:
            >>> from idml_hf import IDMLModel
            >>> model = IDMLModel.from_backbone("resnet18", pretrained=False, embedding_dim=64)
        """
        model = cls(IDMLConfig.from_method(method, cls._task, backbone=backbone, **config))
        if weights is not None:
            load_trunk_weights(model.trunk, Path(weights))
        elif pretrained:
            model.trunk.load_state_dict(_download_trunk(model.config).state_dict())
        return model.eval()


class IDMLModel(IDMLPreTrainedModel):
    """A timm trunk with a semantic and an uncertainty head.

    Args:
        config: The configuration.
        add_semantic_head: Whether there is a semantic head; a classifier uses the trunk without one.

    Example:
        >>> import torch
        >>> from idml_hf import IDMLModel
        >>> model = IDMLModel.from_backbone("resnet18", pretrained=False, embedding_dim=64)
        >>> out = model(torch.zeros(2, 3, 64, 64))
        >>> out.semantic_embeds.shape, out.uncertainty.shape
        (torch.Size([2, 64]), torch.Size([2]))
    """

    _keys_to_ignore_on_load_unexpected = [r"^loss\.", r"^ranking\.", r"^classifier\."]

    # timm's models, and modules that may be None, have more in them than their annotations say
    backbone: Any
    semantic_head: Any

    def __init__(self, config: IDMLConfig, add_semantic_head: bool = True) -> None:
        super().__init__(config)
        self.backbone = _create_trunk(config)
        width = self.backbone.num_features
        self.semantic_head = nn.Linear(width, config.embedding_dim) if add_semantic_head else None
        stages = config.uncertainty_head == "stages"
        remembers = add_semantic_head and config.ranks_uncertainty
        self.reference = ReferenceMemory(config.reference_size, config.embedding_dim) if remembers else None
        self._stages, channels = _stages_of(self.backbone) if stages else ([], 0)
        self.uncertainty_head = UncertaintyHead(
            width + 3 * channels,
            config.uncertainty_dim or config.embedding_dim,
            config.uncertainty_activation,
            config.uncertainty_level,
            hidden_features=HIDDEN_FEATURES if stages else None,
            start=None if config.uncertainty_start is None else config.uncertainty_start * config.tau,
        )
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: Any) -> None:
        if module is self.semantic_head:
            init.kaiming_normal_(module.weight, mode="fan_out")
            init.zeros_(module.bias)
        else:
            super()._init_weights(module)

    def post_init(self) -> None:
        try:
            self.backbone.set_grad_checkpointing(True)
            self.backbone.set_grad_checkpointing(False)
            self.supports_gradient_checkpointing = True
        except (AttributeError, AssertionError, NotImplementedError):
            self.supports_gradient_checkpointing = False
        super().post_init()

    def _set_gradient_checkpointing(self, enable: bool = True, *args: Any, **kwargs: Any) -> None:
        self.backbone.set_grad_checkpointing(enable)

    def get_input_embeddings(self) -> None:
        return None

    def train(self, mode: bool = True) -> IDMLModel:
        super().train(mode)
        if mode and self.config.freeze_batch_norm:
            for module in self.backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
                    module.requires_grad_(False)
        return self

    def features(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """The trunk's feature map, and its pooled vector `(B, width)`."""
        hidden = self.backbone.forward_features(pixel_values)
        return hidden, self._pool(hidden)

    def features_to_read(self, pixel_values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `features`, and what the uncertainty head reads.

        With the `"linear"` head that is the pooled vector, normalised if `uncertainty_start` is set; with `"stages"`
        the pooled vector, and mean, standard deviation and maximum of each channel of
        the earlier feature maps, each of these vectors normalised.
        """
        if not self._stages:
            hidden, pooled = self.features(pixel_values)
            maps = []
        else:
            hidden, maps = self.backbone.forward_intermediates(pixel_values, indices=self._stages)
            pooled = self._pool(hidden)
        read = pooled
        if self.config.uncertainty_detached:
            read, maps = pooled.detach(), [x.detach() for x in maps]
        if self.config.uncertainty_head == "linear":
            if self.config.uncertainty_start is not None:
                read = F.layer_norm(read, read.shape[1:]) * (READ_NORM * read.shape[1] ** -0.5)
            return hidden, pooled, read
        parts = [read]
        for x in maps:
            variance, mean = torch.var_mean(x, dim=(2, 3), correction=0)
            parts += [mean, (variance + 1e-6).sqrt(), x.amax((2, 3))]
        return hidden, pooled, torch.cat([F.layer_norm(part, part.shape[1:]) for part in parts], dim=1)

    def _pool(self, hidden: Tensor) -> Tensor:
        if hidden.ndim == 2:
            return hidden
        if hidden.ndim == 3:
            prefix = getattr(self.backbone, "num_prefix_tokens", 0)
            if self.config.pool == "token":
                if not prefix:
                    raise ValueError(f'pool="token": {self.config.backbone} has no class token')
                return hidden[:, 0]
            tokens = hidden[:, prefix:]
        elif str(getattr(self.backbone, "output_fmt", "NCHW")).endswith("NHWC"):
            tokens = hidden.flatten(1, 2)
        else:
            tokens = hidden.flatten(2).transpose(1, 2)
        if self.config.pool == "avg":
            return tokens.mean(1)
        if self.config.pool == "max":
            return tokens.amax(1)
        if self.config.pool == "avg_max":
            return tokens.mean(1) + tokens.amax(1)
        raise ValueError(f'pool="{self.config.pool}": {self.config.backbone} has no class token')

    def forward(
        self, pixel_values: Tensor, return_dict: bool | None = None, **kwargs: Any
    ) -> IDMLModelOutput | tuple[Tensor, ...]:
        """Embed images.

        In evaluation the trained model looks back at its training images ([`ReferenceMemory`]): what an image has in
        common with the nearest of them, which are not of its class, is taken off its semantic embedding with the
        weight `reference_weight`, and its uncertainty is multiplied by their density.

        Args:
            pixel_values: `(B, 3, H, W)`, normalised as the model's image processor does it.
            return_dict: `False` returns a plain tuple.
        """
        hidden, pooled, read = self.features_to_read(pixel_values)
        raw = _upcast(self.semantic_head(pooled))
        semantic = F.normalize(raw, dim=-1)
        uncertainty_embeds = self.uncertainty_head(read)
        if self.reference is not None and not self.training:
            centre, density = self.reference(semantic)
            semantic = F.normalize(semantic - (self.config.reference_weight or 0.0) * centre, dim=-1)
            uncertainty_embeds = uncertainty_embeds * density.unsqueeze(1)
        out = IDMLModelOutput(
            semantic_embeds=semantic,
            uncertainty_embeds=uncertainty_embeds,
            uncertainty=torch.linalg.vector_norm(uncertainty_embeds, dim=-1),
            pooler_output=semantic,
            semantic_norm=torch.linalg.vector_norm(raw.detach(), dim=-1),
            last_hidden_state=hidden,
        )
        return out.to_tuple() if return_dict is False else out


class IDMLForImageClassification(IDMLPreTrainedModel):
    """A timm trunk with a linear classifier and an uncertainty head (section 4.4 of the paper).

    While training, the logits are introspective (see [`idml_hf.similarity.introspective_logits`]); in evaluation they
    are the plain ones. `from_backbone` builds the authors' setting, the method `"released"`, unless told otherwise.

    Example:
        >>> import torch
        >>> from idml_hf import IDMLForImageClassification
        >>> model = IDMLForImageClassification.from_backbone("resnet18", pretrained=False, num_labels=10)
        >>> model(torch.zeros(2, 3, 64, 64)).logits.shape
        torch.Size([2, 10])
    """

    _task = "classification"

    def __init__(self, config: IDMLConfig) -> None:
        super().__init__(config)
        if config.form == "released":
            raise ValueError('form="released" is a retrieval form; a classifier takes "released_classification"')
        self.idml = IDMLModel(config, add_semantic_head=False)
        self.classifier = nn.Linear(self.idml.backbone.num_features, config.num_labels)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: Any) -> None:
        if module is self.classifier:
            # torch's own range for a linear layer, by functions that leave loaded tensors alone
            bound = module.in_features**-0.5
            init.uniform_(module.weight, -bound, bound)
            init.uniform_(module.bias, -bound, bound)
        else:
            super()._init_weights(module)

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, return_dict: bool | None = None, **kwargs: Any
    ) -> IDMLImageClassifierOutput | tuple[Tensor, ...]:
        """Classify images.

        Args:
            pixel_values: `(B, 3, H, W)`, normalised.
            labels: `(B,)` class indices, or `(B, C)` class probabilities (Mixup, CutMix).
            return_dict: `False` returns a plain tuple.
        """
        hidden, pooled, read = self.idml.features_to_read(pixel_values)
        logits = _upcast(self.classifier(pooled))
        uncertainty_embeds = self.idml.uncertainty_head(read)
        if self.training and self.config.form != "none":
            logits = introspective_logits(
                logits,
                pooled,
                uncertainty_embeds,
                self.classifier.weight,
                self.classifier.bias,
                form=self.config.form,
                tau=self.config.tau,
            )
        out = IDMLImageClassifierOutput(
            loss=None if labels is None else F.cross_entropy(logits, labels),
            logits=logits,
            uncertainty_embeds=uncertainty_embeds,
            uncertainty=torch.linalg.vector_norm(uncertainty_embeds, dim=-1),
            last_hidden_state=hidden,
        )
        return out.to_tuple() if return_dict is False else out


def _stages_of(trunk: Any) -> tuple[list[int], int]:
    """Up to four evenly spaced feature maps before the last one, and how many channels they have together."""
    channels = [info["num_chs"] for info in getattr(trunk, "feature_info", None) or ()][:-1]
    if not channels or not hasattr(trunk, "forward_intermediates"):
        return [], 0
    number = min(4, len(channels))
    chosen = [round(i * (len(channels) - 1) / max(1, number - 1)) for i in range(number)]
    return chosen, sum(channels[i] for i in chosen)


def _create_trunk(config: IDMLConfig, pretrained: bool = False) -> Any:
    if not timm.is_model(config.backbone):
        # the package's own architectures, where this file is part of it
        with contextlib.suppress(ImportError):
            importlib.import_module("idml_hf.architectures")
    if not timm.is_model(config.backbone):
        one_of("timm architecture", config.backbone, timm.list_models() + timm.list_models(pretrained=True))
    try:
        # pretrained only by choice: __init__ also runs on the meta device, inside from_pretrained
        return timm.create_model(
            config.backbone, pretrained=pretrained, num_classes=0, global_pool="", **(config.backbone_kwargs or {})
        )
    except (AssertionError, TypeError) as error:
        raise ValueError(
            f"timm cannot build {config.backbone!r} as a trunk: {error or 'it needs its own pool'}"
        ) from error


def _download_trunk(config: IDMLConfig) -> Any:
    repo = timm.get_pretrained_cfg(config.backbone).hf_hub_id
    advice = "Give a local file as weights=, or pretrained=False."
    if not repo:
        raise OSError(f"timm has no pretrained weights for {config.backbone!r}. {advice}")
    cached = isinstance(try_to_load_from_cache(repo, "model.safetensors"), str)
    try:
        if not cached:
            # the download itself would try for most of a minute before it says that there is no network
            get_session().head(constants.ENDPOINT, timeout=5)
        return _create_trunk(config, pretrained=True)
    except ValueError:
        raise
    except Exception as error:
        reason = type(error).__name__
        raise OSError(
            f"The pretrained weights of {config.backbone!r} could not be downloaded ({reason}). {advice}"
        ) from error


def _hub() -> Any:
    """The module that shares models; None where this file has travelled without its package."""
    try:
        return importlib.import_module("idml_hf.hub")
    except ModuleNotFoundError as error:
        if error.name != "idml_hf":
            raise
        return None


def _where(kwargs: dict[str, Any]) -> dict[str, Any]:
    names = ("cache_dir", "local_files_only", "token", "revision", "subfolder")
    return {name: kwargs[name] for name in names if kwargs.get(name) is not None}


def load_trunk_weights(trunk: Any, path: Path) -> None:
    """Load a file of timm weights into `trunk`; a classifier in the file is left out.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not a checkpoint that can be read safely, or does not fit the trunk.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No trunk weights at {path}")
    try:
        state = timm.models.load_state_dict(str(path), device="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} is not a checkpoint that can be read safely ({type(error).__name__})") from error
    name = trunk.pretrained_cfg.get("architecture", type(trunk).__name__)
    # timm keeps the conversion of older checkpoints, and the resizing of position embeddings, beside each architecture
    filter_fn = getattr(importlib.import_module(type(trunk).__module__), "checkpoint_filter_fn", None)
    if filter_fn is not None:
        try:
            state = filter_fn(state, trunk)
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"The weights in {path} do not fit {name}: {error}") from error
    heads = trunk.pretrained_cfg.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    expected = trunk.state_dict()
    unexpected = [k for k in state if k not in expected and not k.startswith(tuple(f"{h}." for h in heads))]
    missing = [k for k in expected if k not in state and not k.endswith("num_batches_tracked")]
    shapes = [k for k in expected if k in state and state[k].shape != expected[k].shape]
    for what, keys in (("lacks", missing), ("has other shapes for", shapes), ("has unknown", unexpected)):
        if keys:
            raise ValueError(
                f"The weights in {path} do not fit {name}: the file {what} {len(keys)} keys, as {keys[0]!r}"
            )
    trunk.load_state_dict({k: v for k, v in state.items() if k in expected}, strict=False)


__all__ = ["IDMLForImageClassification", "IDMLModel", "IDMLModelOutput", "IDMLPreTrainedModel"]
