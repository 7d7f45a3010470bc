"""Build, download, load and pool the timm backbone of a model.

This file travels with a checkpoint as remote code.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import constants, get_session, try_to_load_from_cache
from torch import Tensor

from .errors import one_of


def create_trunk(name: str, pretrained: bool = False, **kwargs: Any) -> Any:
    """Build a timm architecture without classifier and pooling.

    Args:
        name: Name of the architecture, with or without a pretrained tag.
        pretrained: Whether timm loads its pretrained weights from the Hub.
        kwargs: Further arguments of `timm.create_model`.

    Raises:
        ValueError: for an unknown architecture, or one that cannot be built without its pool.
    """
    _require_architecture(name)
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, global_pool="", **kwargs)
    except (AssertionError, TypeError) as error:
        raise ValueError(f"timm cannot build {name!r} as a trunk: {error or 'it needs its own pool'}") from error


def size_arguments(name: str, image_size: int | None) -> dict[str, Any]:
    """What `create_trunk` must be told to take square images of this side: nothing where any size will do.

    Raises:
        ValueError: for an unknown architecture, or a size that its patches do not fill.

    Example:
        >>> size_arguments("vit_tiny_patch16_224", 64), size_arguments("resnet50", 64)
        ({'img_size': 64}, {})
    """
    _require_architecture(name)
    config = timm.get_pretrained_cfg(name)
    if image_size is None or config is None or not config.fixed_input_size or image_size == config.input_size[-1]:
        return {}
    patch = re.search(r"_patch(\d+)", name)
    if patch and image_size % int(patch[1]):
        raise ValueError(f"image_size={image_size}: {name} takes whole patches of {patch[1]} pixels")
    return {"img_size": image_size}


def _require_architecture(name: str) -> None:
    if not timm.is_model(name):
        # the package's own architectures, where this file is part of it
        with contextlib.suppress(ImportError):
            importlib.import_module("idml_hf.architectures")
    if not timm.is_model(name):
        one_of("timm architecture", name, timm.list_models() + timm.list_models(pretrained=True))


def download_trunk(name: str, **kwargs: Any) -> Any:
    """As `create_trunk`, with timm's pretrained weights from the Hub.

    Raises:
        OSError: if there are none, or they cannot be downloaded.
        ValueError: as `create_trunk`.
    """
    repo = timm.get_pretrained_cfg(name).hf_hub_id
    advice = "Give a local file as weights=, or pretrained=False."
    if not repo:
        raise OSError(f"timm has no pretrained weights for {name!r}. {advice}")
    cached = isinstance(try_to_load_from_cache(repo, "model.safetensors"), str)
    try:
        if not cached:
            # the download itself would try for most of a minute before it says that there is no network
            get_session().head(constants.ENDPOINT, timeout=5)
        return create_trunk(name, pretrained=True, **kwargs)
    except ValueError:
        raise
    except Exception as error:
        reason = type(error).__name__
        raise OSError(f"The pretrained weights of {name!r} could not be downloaded ({reason}). {advice}") from error


def load_trunk_weights(trunk: Any, path: Path) -> None:
    """Load a file of timm weights into `trunk`; a classifier in the file is left out.

    Position embeddings made for another image size are resized.

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


@torch.no_grad()
def draw_again(trunk: Any, keys: Iterable[str], name: str, **kwargs: Any) -> None:
    """Give some entries of a trunk's state the values that they have in a freshly built one.

    Args:
        trunk: What `create_trunk` built with the same name and arguments.
        keys: Keys of its state dict.
        name: Name of the architecture.
        kwargs: Further arguments of `timm.create_model`.
    """
    fresh = create_trunk(name, **kwargs).state_dict()
    state = trunk.state_dict()
    for key in keys:
        if not state[key].is_meta:
            state[key].copy_(fresh[key])


@torch.no_grad()
def rebuild_buffers(module: Any) -> None:
    """Compute those buffers of a timm module that no checkpoint holds."""
    if hasattr(module, "init_non_persistent_buffers"):
        if not any(parameter.is_meta for parameter in module.parameters()):
            module.init_non_persistent_buffers()
            return
        # Parameters that lie on disk have no device to compute on, a copy without their values has.
        copied = copy.deepcopy(module).to_empty(device="cpu")
        copied.init_non_persistent_buffers()
        saved = module.state_dict()
        for name, buffer in copied.named_buffers(recurse=False):
            if name not in saved:
                module.register_buffer(name, buffer, persistent=False)
    elif hasattr(module, "_get_pos_embed_values") and getattr(module, "feat_shape", None) is not None:
        old = module.pos_embed
        module.pos_embed = module._get_pos_embed_values(
            feat_shape=module.feat_shape,
            device=None if old is None else old.device,
            dtype=torch.float32 if old is None else old.dtype,
        )


def run_trunk(trunk: Any, method: str, *args: Any, **kwargs: Any) -> Any:
    """Call a method of the trunk that is not its `forward`, with accelerate's hook around it if there is one.

    A trunk that is offloaded gets its own parameters (a class token, position embeddings) from that hook.
    """
    hook = getattr(trunk, "_hf_hook", None)
    if hook is None:
        return getattr(trunk, method)(*args, **kwargs)
    args, kwargs = hook.pre_forward(trunk, *args, **kwargs)
    return hook.post_forward(trunk, getattr(trunk, method)(*args, **kwargs))


def can_checkpoint(trunk: Any) -> bool:
    """Whether a trunk can compute its activations again in the backward pass instead of keeping them."""
    try:
        trunk.set_grad_checkpointing(True)
        trunk.set_grad_checkpointing(False)
    except (AttributeError, AssertionError, NotImplementedError):
        return False
    return True


def stages_of(trunk: Any) -> tuple[list[int], int]:
    """Up to four evenly spaced feature maps before the last one, and how many channels they have together."""
    channels = [info["num_chs"] for info in getattr(trunk, "feature_info", None) or ()][:-1]
    if not channels or not hasattr(trunk, "forward_intermediates"):
        return [], 0
    number = min(4, len(channels))
    chosen = [round(i * (len(channels) - 1) / max(1, number - 1)) for i in range(number)]
    return chosen, sum(channels[i] for i in chosen)


def as_tokens(trunk: Any, hidden: Tensor) -> Tensor:
    """A trunk's feature map as `(B, positions, C)`, without class and register tokens.

    Args:
        trunk: Where the map comes from.
        hidden: `(B, C)`, `(B, tokens, C)`, `(B, C, H, W)` or `(B, H, W, C)`.
    """
    if hidden.ndim == 2:
        return hidden.unsqueeze(1)
    if hidden.ndim == 3:
        return hidden[:, getattr(trunk, "num_prefix_tokens", 0) :]
    if str(getattr(trunk, "output_fmt", "NCHW")).endswith("NHWC"):
        return hidden.flatten(1, 2)
    return hidden.flatten(2).transpose(1, 2)


def pool_features(trunk: Any, hidden: Tensor, pool: str) -> Tensor:
    """One vector an image of a trunk's feature map, whatever its layout.

    Args:
        trunk: Where the map comes from.
        hidden: `(B, C)`, `(B, tokens, C)`, `(B, C, H, W)` or `(B, H, W, C)`.
        pool: `"avg"`, `"max"`, `"avg_max"` (the sum of both) or `"token"` (the class token).

    Returns:
        `(B, C)`; a map that is one vector already stays as it is.

    Raises:
        ValueError: for `"token"` where there is none.
    """
    if hidden.ndim == 2:
        return hidden
    if pool == "token":
        if hidden.ndim != 3 or not getattr(trunk, "num_prefix_tokens", 0):
            raise ValueError(f'pool="{pool}": {type(trunk).__name__} has no class token')
        return hidden[:, 0]
    tokens = as_tokens(trunk, hidden)
    if pool == "avg":
        return tokens.mean(1)
    if pool == "max":
        return tokens.amax(1)
    return tokens.mean(1) + tokens.amax(1)


__all__ = [
    "as_tokens",
    "can_checkpoint",
    "create_trunk",
    "download_trunk",
    "draw_again",
    "load_trunk_weights",
    "pool_features",
    "rebuild_buffers",
    "run_trunk",
    "size_arguments",
    "stages_of",
]
