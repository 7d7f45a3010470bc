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

from idml_hf.similarity import Metric

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


def build_loss(
    name: str,
    num_classes: int | None,
    embedding_dim: int,
    form: str = "ratio",
    tau: float = 5.0,
    **hyper_parameters: Any,
) -> MetricLoss:
    """Build a loss by name.

    Args:
        name: one of `LOSSES`.
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
    loss = LOSSES.get(name)
    if loss is None:
        raise ValueError(f"unknown loss {name!r}{_suggestion(name, LOSSES)}")
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


__all__ = ["LOSSES", "PROXY_LOSSES", "MetricLoss", "PairLoss", "Pairs", "ProxyLoss", "build_loss"]
