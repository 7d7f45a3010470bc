"""Losses of deep metric learning on the introspective metric, and the registry a configuration names them by.

A new loss is one file with a subclass of `PairLoss` (images against images) or `ProxyLoss` (images against classes)
and one line in `LOSSES`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

from idml_hf import plugins
from idml_hf.similarity import TAU, Metric

from .base import MetricLoss
from .contrastive import ContrastiveLoss
from .fast_ap import FastAPLoss
from .margin_dw import MarginLoss
from .multi_similarity import MultiSimilarityLoss
from .pair import MEMORY_PARAMETERS, PairLoss, Pairs
from .proxy import ProxyLoss
from .proxy_anchor import ProxyAnchorLoss
from .proxy_nca import ProxyNCALoss
from .triplet_semihard import TripletSemihardLoss

LOSSES: dict[str, type[MetricLoss]] = {
    "contrastive": ContrastiveLoss,
    "triplet_semihard": TripletSemihardLoss,
    "margin_dw": MarginLoss,
    "multi_similarity": MultiSimilarityLoss,
    "fast_ap": FastAPLoss,
    "proxy_nca": ProxyNCALoss,
    "proxy_anchor": ProxyAnchorLoss,
}
"""Loss classes by name."""

PROXY_LOSSES = frozenset(name for name, loss in LOSSES.items() if issubclass(loss, ProxyLoss))
"""Names of the losses that compare images with learned class proxies."""


def loss_class(name: str, *, trusted: bool = False) -> type[MetricLoss]:
    """The class of a loss: one of `LOSSES`, of an installed package, or of a module.

    An installed package offers losses as entry points in the group `idml_hf.losses`.

    Args:
        name: its name; or `module:Class`, which is then one of `LOSSES`.
        trusted: whether to import the module, which runs its code: only where the user has named it, since a
            configuration may come from anywhere.

    Raises:
        ImportError: if the module is not there, or has no such class.
        ValueError: for an unknown name, or what is no loss.
    """
    found: Any = LOSSES.get(name)
    if found is None and trusted and plugins.is_plugin_name(name):
        found = plugins.imported(name)
    elif found is None:
        found = plugins.installed(plugins.LOSSES, name)
    if found is None:
        unasked = f"; {name!r} is imported only where it is asked for, by --loss" if ":" in name else ""
        known = [*LOSSES, *plugins.installed_names(plugins.LOSSES)]
        raise ValueError(f"unknown loss {name!r}{unasked or _suggestion(name, known)}")
    if not (isinstance(found, type) and issubclass(found, MetricLoss)):
        raise ValueError(f"{name} is no loss: it must be a subclass of PairLoss or ProxyLoss")
    LOSSES[name] = found
    return found


def is_proxy_loss(name: str) -> bool:
    """Whether the loss of this name compares images with learned class proxies."""
    return issubclass(loss_class(name), ProxyLoss)


def build_loss(
    name: str,
    num_classes: int | None,
    embedding_dim: int,
    form: str = "ratio",
    tau: float = TAU,
    **hyper_parameters: Any,
) -> MetricLoss:
    """Build a loss by name.

    Args:
        name: one of `LOSSES`, or of an installed package, see `loss_class`.
        num_classes: number of training classes; the losses between images do without (None).
        embedding_dim: values d of a semantic embedding.
        form: form of the introspective metric, one of `idml_hf.similarity.FORMS`; ``"none"`` is the plain loss.
        tau: temperature of the introspective metric, > 0.
        **hyper_parameters: those of the loss, see its class.

    Returns:
        A module called as ``loss(semantic, uncertainty, labels)``.

    Raises:
        ValueError: an unknown name or hyper-parameter (the message suggests the nearest one), or a value out of range.

    Example:
        >>> import torch
        >>> loss = build_loss("contrastive", num_classes=None, embedding_dim=2, form="none", neg_margin=1.0)
        >>> loss(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]]), None, torch.tensor([7, 7, 9]))
        tensor(0.1056)
    """
    loss = loss_class(name)
    known = loss.hyper_parameters()
    for given, value in hyper_parameters.items():
        if given not in known:
            raise ValueError(f"loss {name!r} has no hyper-parameter {given!r}{_suggestion(given, known)}")
        _check_number(f"{given} of loss {name!r}", value, known[given])
    memory = {key: hyper_parameters.pop(key) for key in MEMORY_PARAMETERS if key in hyper_parameters}
    metric = Metric(form, tau)
    built = loss(embedding_dim=embedding_dim, num_classes=num_classes, metric=metric, **hyper_parameters)
    return built.with_memory(**memory) if isinstance(built, PairLoss) else built


def _check_number(what: str, value: Any, default: Any) -> None:
    """Refuse what is not a finite number where the default is a number, and no whole one where that is whole."""
    if isinstance(default, bool) or not isinstance(default, Real):
        return
    kind, name = (Integral, "an integer") if isinstance(default, int) else (Real, "a finite number")
    if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value):
        raise ValueError(f"{what} must be {name}; got {value!r}")


def _suggestion(given: str, known: Iterable[str]) -> str:
    known = sorted(known)
    near = difflib.get_close_matches(str(given), known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"


__all__ = [
    "LOSSES",
    "PROXY_LOSSES",
    "MetricLoss",
    "PairLoss",
    "Pairs",
    "ProxyLoss",
    "build_loss",
    "is_proxy_loss",
    "loss_class",
]
