"""IDML models on timm trunks: a semantic and an uncertainty embedding for each image.

This file imports only its neighbours, so that it can travel with a checkpoint as remote code.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from .configuration_idml import IDMLConfig
from .errors import clear_loading_errors
from .feature_statistics import normalised, root_statistics, with_statistics
from .files import clear_writing_errors
from .reference_memory import PastImages, ReferenceMemory
from .similarity import at_least_float32, introspective_logits, introspective_similarity
from .timm_trunk import (
    as_tokens,
    can_checkpoint,
    create_trunk,
    download_trunk,
    draw_again,
    load_trunk_weights,
    pool_features,
    rebuild_buffers,
    run_trunk,
    size_arguments,
    stages_of,
)
from .uncertainty_head import HIDDEN_FEATURES, UncertaintyHead
from .weight_files import require_safetensors


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
        hidden_states: The trunk's feature maps, from the first to the last, when they were asked for.
    """

    semantic_embeds: Tensor | None = None
    uncertainty_embeds: Tensor | None = None
    uncertainty: Tensor | None = None
    pooler_output: Tensor | None = None
    semantic_norm: Tensor | None = None
    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class TrunkFeatures(NamedTuple):
    """What the trunk says about a batch of images."""

    hidden: Tensor
    """The feature map, in the layout of its architecture."""
    pooled: Tensor
    """`(B, width)`."""
    read: Tensor
    """`(B, F)`, what the uncertainty head reads."""
    maps: tuple[Tensor, ...] | None = None
    """All feature maps, if they were asked for."""


@dataclass
class IDMLImageClassifierOutput(ModelOutput):
    """Output of [`IDMLForImageClassification`].

    Args:
        loss: Cross entropy, when labels were given.
        logits: `(B, C)`; introspective while training, plain in evaluation.
        uncertainty_embeds: `(B, d_u)`.
        uncertainty: `(B,)`, its norm.
        last_hidden_state: The trunk's feature map.
        hidden_states: All of its feature maps, when they were asked for.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    uncertainty_embeds: Tensor | None = None
    uncertainty: Tensor | None = None
    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class IDMLPreTrainedModel(PreTrainedModel):
    """What all IDML models share: how they are built on a timm trunk, initialised and loaded."""

    config_class = IDMLConfig
    # the same on every class of the family: else loading a head's checkpoint into the base starts afresh in silence
    base_model_prefix = "idml"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    model_tags = ["timm", "metric-learning", "image-retrieval", "idml"]
    accepts_loss_kwargs = False
    # of nearly all trunks; each model says whether it is true of its own
    supports_gradient_checkpointing = True
    _task = "retrieval"
    _supports_sdpa = True
    _no_split_modules = ["IDMLModel"]

    @torch.no_grad()
    def _init_weights(self, module: Any) -> None:
        # The default would redraw every layer of the trunk; timm has initialised them already.
        if isinstance(module, (UncertaintyHead, PastImages)):
            module.reset_parameters()
        elif isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            init.zeros_(module.running_mean)
            init.ones_(module.running_var)
            init.zeros_(module.num_batches_tracked)
        else:
            rebuild_buffers(module)

    def post_init(self) -> None:
        """Say whether the trunk can recompute activations instead of keeping them, and finish the construction."""
        self.supports_gradient_checkpointing = can_checkpoint(self.trunk)
        super().post_init()

    def _set_gradient_checkpointing(
        self, enable: bool = True, *args: Any, every_n_layers: int = 1, **kwargs: Any
    ) -> None:
        if every_n_layers != 1:
            raise ValueError("timm's trunks checkpoint each of their blocks: every_n_layers must be 1")
        self.trunk.set_grad_checkpointing(enable)
        # where transformers looks for the state
        self.base_model.gradient_checkpointing = enable

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
        _make_up_for(model, {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
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
        with clear_writing_errors(save_directory):
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

    def _wants_maps(self, asked: bool | None) -> bool:
        return bool(self.config.output_hidden_states if asked is None else asked)

    def _wants_dict(self, asked: bool | None) -> bool:
        return bool(self.config.return_dict if asked is None else asked)

    @property
    def trunk(self) -> Any:
        """The timm model."""
        return self.base_model.backbone

    @classmethod
    def from_backbone(
        cls,
        backbone: str = IDMLConfig.backbone,
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
        sized = size_arguments(backbone, config.get("image_size")) | (config.pop("backbone_kwargs", None) or {})
        model = cls(
            IDMLConfig.from_method(method, cls._task, backbone=backbone, backbone_kwargs=sized or None, **config)
        )
        if weights is not None:
            load_trunk_weights(model.trunk, Path(weights))
        elif pretrained:
            model.trunk.load_state_dict(download_trunk(backbone, **sized).state_dict())
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
        self.backbone = create_trunk(config.backbone, **(config.backbone_kwargs or {}))
        self._reads_statistics = config.pool == "statistics"
        stages = config.uncertainty_head == "stages"
        self._stages, channels = stages_of(self.backbone) if stages or self._reads_statistics else ([], 0)
        width = self.backbone.num_features
        if self._reads_statistics:
            # the heads read one vector, in which the earlier maps are already
            width, channels = 2 * width + 3 * channels, 0
        self.feature_width = width
        self.semantic_head = nn.Linear(width, config.embedding_dim) if add_semantic_head else None
        remembers = add_semantic_head and config.ranks_uncertainty
        self.reference = ReferenceMemory(config.reference_size, config.embedding_dim) if remembers else None
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

    def get_input_embeddings(self) -> None:
        """Return None, for images have no table of embeddings."""
        return None

    def train(self, mode: bool = True) -> IDMLModel:
        """Switch between training and evaluation; frozen batch normalisation stays in evaluation."""
        super().train(mode)
        if mode and self.config.freeze_batch_norm:
            for module in self.backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
                    module.requires_grad_(False)
        return self

    def features(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """The trunk's feature map, and its pooled vector `(B, feature_width)`."""
        hidden, _, pooled = self._run_trunk(pixel_values, self._stages if self._reads_statistics else [])
        return hidden, pooled

    def features_to_read(self, pixel_values: Tensor, all_maps: bool = False) -> TrunkFeatures:
        """As `features`, with what the uncertainty head reads.

        With the `"linear"` head that is the pooled vector, normalised if `uncertainty_start` is set; with `"stages"`
        the pooled vector, and mean, standard deviation and maximum of each channel of earlier feature maps, each of
        these vectors normalised.

        Args:
            pixel_values: `(B, 3, H, W)`, normalised.
            all_maps: Whether to return all feature maps of the trunk as well.

        Raises:
            ValueError: if all maps are asked of an architecture that does not give them.
        """
        if all_maps and not hasattr(self.backbone, "forward_intermediates"):
            raise ValueError(f"output_hidden_states: {self.config.backbone} does not give its feature maps")
        hidden, maps, pooled = self._run_trunk(pixel_values, None if all_maps else self._stages)
        read, stages = pooled, self._earlier(maps)
        if self.config.uncertainty_detached:
            read, stages = pooled.detach(), [x.detach() for x in stages]
        if self.config.uncertainty_head == "stages":
            # pooled statistics are those of the stages already
            read = with_statistics(read, [] if self._reads_statistics else stages)
        elif self.config.uncertainty_start is not None:
            read = normalised(read)
        return TrunkFeatures(hidden, pooled, read, tuple(maps) if all_maps else None)

    def _run_trunk(self, pixel_values: Tensor, indices: list[int] | None) -> tuple[Tensor, list[Tensor], Tensor]:
        """The last feature map, those at `indices` (None means all), and the pooled vector."""
        maps: list[Tensor] = []
        # the image processor gives float32, whatever the layers compute in
        pixel_values = pixel_values.to(self.dtype)
        if indices is None or indices:
            hidden, maps = run_trunk(self.backbone, "forward_intermediates", pixel_values, indices=indices)
        else:
            hidden = run_trunk(self.backbone, "forward_features", pixel_values)
        if self._reads_statistics:
            return hidden, maps, root_statistics(as_tokens(self.backbone, hidden), self._earlier(maps))
        return hidden, maps, pool_features(self.backbone, hidden, self.config.pool)

    def _earlier(self, maps: list[Tensor]) -> list[Tensor]:
        """The maps of the stages that are read, out of these or of all maps."""
        return maps if len(maps) == len(self._stages) else [maps[i] for i in self._stages]

    def forward(
        self,
        pixel_values: Tensor,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> IDMLModelOutput | tuple[Tensor, ...]:
        """Embed images.

        In evaluation the trained model looks back at its training images ([`ReferenceMemory`]): what an image has in
        common with the nearest of them, which are not of its class, is taken off its semantic embedding with the
        weight `reference_weight`, and its uncertainty is multiplied by their density.

        Args:
            pixel_values: `(B, 3, H, W)`, normalised as the model's image processor does it.
            output_hidden_states: Whether to return the trunk's feature maps; `None` means as the configuration says.
            return_dict: `False` returns a plain tuple.
        """
        hidden, pooled, read, maps = self.features_to_read(pixel_values, self._wants_maps(output_hidden_states))
        raw = at_least_float32(self.semantic_head(pooled))
        semantic = F.normalize(raw, dim=-1)
        uncertainty_embeds = self.uncertainty_head(read)
        if self.reference is not None and not self.training:
            semantic, density = self.centred(semantic)
            uncertainty_embeds = uncertainty_embeds * density.unsqueeze(1)
        out = IDMLModelOutput(
            semantic_embeds=semantic,
            uncertainty_embeds=uncertainty_embeds,
            uncertainty=torch.linalg.vector_norm(uncertainty_embeds, dim=-1),
            pooler_output=semantic,
            semantic_norm=torch.linalg.vector_norm(raw.detach(), dim=-1),
            last_hidden_state=hidden,
            hidden_states=maps,
        )
        return out if self._wants_dict(return_dict) else out.to_tuple()

    def centred(self, semantic: Tensor) -> tuple[Tensor, Tensor]:
        """Semantic embeddings `(B, d)` without what they share with the remembered images nearest to them.

        Returns:
            Unit rows `(B, d)`, and the density of the remembered images there `(B,)`; see [`ReferenceMemory`].
        """
        assert self.reference is not None
        centre, density = self.reference(semantic)
        return F.normalize(semantic - (self.config.reference_weight or 0.0) * centre, dim=-1), density

    def encode(
        self,
        images: Any,
        batch_size: int = 64,
        device: torch.device | str | None = None,
        precision: str = "fp32",
        progress: bool = False,
    ) -> Any:
        """Embed images: from files to arrays in one call.

        Args:
            images: Paths, PIL images, arrays or tensors, mixed and of any sizes; an [`idml_hf.data.ImageSet`]; a
                `datasets.Dataset`, also streaming. For a model of vectors a matrix `(N, width)`.
            batch_size: Images at a time.
            device: Where to compute; `None` means a GPU if there is one.
            precision: `"fp32"`, or `"bf16"` for faster layers where the processor has them.
            progress: Whether to show a progress bar.

        Returns:
            [`idml_hf.embedding.Embeddings`], whose `semantic` `(N, d)`, `uncertainty_embeds` `(N, d_u)` and
            `uncertainty` `(N,)` are float32 NumPy arrays.

        Raises:
            ImportError: where the model came with its code, and the package idml_hf is not installed.
            FileNotFoundError: naming a file that is not there.
            ValueError, TypeError: for no images, or what is none.

        Example:
            >>> from PIL import Image
            >>> from idml_hf import IDMLModel
            >>> model = IDMLModel.from_backbone("resnet18", pretrained=False, embedding_dim=16, image_size=32)
            >>> e = model.encode([Image.new("RGB", (40, 30), color) for color in ("red", "blue")])
            >>> e.semantic.shape, e.uncertainty.shape
            ((2, 16), (2,))
            >>> model.similarity(e, e).shape
            (2, 2)
        """
        embedding = _of_package("idml_hf.embedding")
        if embedding is None:
            raise ImportError(
                "encode needs the package: pip install idml-hf. Without it, "
                'model(**image_processor(images, return_tensors="pt")) embeds images'
            )
        return embedding.encode(self, images, batch_size, device, precision, progress)

    def similarity(self, a: Any, b: Any, introspective: bool = False) -> Any:
        """Compare all images of two sets.

        Args:
            a: What `encode` returned, or semantic embeddings `(A, d)` as an array or a tensor.
            b: The same for the other set, B images.
            introspective: Whether to take the uncertainty into account as the configuration's `form` and `tau` say;
                else it is the cosine, by which one searches.

        Returns:
            `(A, B)`, a NumPy array, in [-1, 1].

        Raises:
            ValueError: for an introspective comparison of embeddings without uncertainty, or under a form that
                compares images with class proxies only.
        """
        form = "none"
        if introspective:
            form = self.config.form
            if form not in ("ratio", "none"):
                raise ValueError(f"form {form!r} compares images with proxies, not with each other")
        sides: list[Tensor | None] = []
        for side in (a, b):
            uncertainty = getattr(side, "uncertainty_embeds", None)
            if introspective and uncertainty is None:
                raise ValueError("an introspective comparison needs what encode returned, with its uncertainty_embeds")
            sides += [torch.as_tensor(getattr(side, "semantic", side)), uncertainty]
        s_a, u_a, s_b, u_b = (None if side is None else torch.as_tensor(side) for side in sides)
        assert s_a is not None and s_b is not None
        with torch.no_grad():
            return introspective_similarity(s_a, u_a, s_b, u_b, form, self.config.tau).numpy()


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
        if config.problem_type == "regression":
            raise ValueError('problem_type="regression": a classifier has classes; train another head for it')
        self.idml = IDMLModel(config, add_semantic_head=False)
        # so that the predictions of transformers' Trainer are the logits alone, as its users expect of a classifier
        left_out = [*type(config).keys_to_ignore_at_inference, "uncertainty_embeds", "uncertainty"]
        config.keys_to_ignore_at_inference = left_out  # type: ignore[misc]
        self.classifier = nn.Linear(self.idml.feature_width, config.num_labels)
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
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> IDMLImageClassifierOutput | tuple[Tensor, ...]:
        """Classify images.

        Args:
            pixel_values: `(B, 3, H, W)`, normalised.
            labels: `(B,)` class indices, or `(B, C)` class probabilities (Mixup, CutMix); under the `problem_type`
                `"multi_label_classification"` `(B, C)`, 1 for each class that an image is of and 0 for the others.
            output_hidden_states: Whether to return the trunk's feature maps; `None` means as the configuration says.
            return_dict: `False` returns a plain tuple.
        """
        hidden, pooled, read, maps = self.idml.features_to_read(pixel_values, self._wants_maps(output_hidden_states))
        logits = at_least_float32(self.classifier(pooled))
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
            loss=None if labels is None else self._loss(logits, labels),
            logits=logits,
            uncertainty_embeds=uncertainty_embeds,
            uncertainty=torch.linalg.vector_norm(uncertainty_embeds, dim=-1),
            last_hidden_state=hidden,
            hidden_states=maps,
        )
        return out if self._wants_dict(return_dict) else out.to_tuple()

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.config.problem_type == "multi_label_classification":
            return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
        return F.cross_entropy(logits, labels)


def _hub() -> Any:
    return _of_package("idml_hf.hub")


def _of_package(name: str) -> Any:
    """A module of the package that this file may not import; None where it has travelled without its package."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != "idml_hf":
            raise
        return None


def _where(kwargs: dict[str, Any]) -> dict[str, Any]:
    names = ("cache_dir", "local_files_only", "token", "revision", "subfolder")
    return {name: kwargs[name] for name in names if kwargs.get(name) is not None}


def _make_up_for(model: Any, absent: set[str]) -> None:
    """Give what a checkpoint lacks, or has in another shape, the values of a fresh model, where loading left it open.

    Heads and losses are drawn by `_init_weights`.
    """
    config, trunk = model.config, model.trunk
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    keys = [key.removeprefix(f"{prefix}backbone.") for key in absent if key.startswith(f"{prefix}backbone.")]
    if keys:
        draw_again(trunk, keys, config.backbone, **(config.backbone_kwargs or {}))
    memories = [(name, module) for name, module in model.named_modules() if isinstance(module, PastImages)]
    # a part of a memory is none, and what follows another one goes with it
    forgotten = [module for name, module in memories if any(key.startswith(f"{name}.") for key in absent)]
    if any(isinstance(module, ReferenceMemory) for module in forgotten):
        forgotten += [module for _, module in memories if module.counter is None]
    for module in forgotten:
        module.forget()


__all__ = ["IDMLForImageClassification", "IDMLModel", "IDMLModelOutput", "IDMLPreTrainedModel"]
