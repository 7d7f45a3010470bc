"""What has to be said on a model card about the data: its licence, and who made it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True)
class DataLicence:
    """The terms of a data set.

    Args:
        terms: its licences, in Markdown.
        attribution: lines of Markdown that name its authors, where the licences ask for that.
        model_licence: identifier of the licence that covers a model trained on it, where the terms suggest one.
    """

    terms: str
    attribution: tuple[str, ...] = ()
    model_licence: str | None = None


UNKNOWN = DataLicence(
    "The licence of the training data was not recorded. Whoever publishes this model should state it here."
)


def data_licence(dataset: str | None) -> DataLicence:
    """The terms of a data set known by name, else `UNKNOWN`."""
    if dataset in ("emoji-mini", "emoji"):
        return DataLicence(
            "Published emoji artwork, each picture under the licence of its set: Apache-2.0, MIT, CC-BY-4.0 or "
            "CC-BY-SA-4.0. The model is offered under the strictest of them, CC-BY-SA-4.0, as are the pictures on "
            "this page.",
            tuple(_emoji_sources()),
            "cc-by-sa-4.0",
        )
    terms = {
        "fashion-mnist": "Fashion-MNIST by Zalando SE, MIT.",
        "cub": "Photographs from Flickr whose copyright stays with the photographers; the authors give the data set "
        "for non-commercial research and education.",
        "imagenet": "The terms of access to ImageNet allow non-commercial research and education.",
        "cifar10": "The authors state no licence; they ask that their report be cited.",
        "cifar100": "The authors state no licence; they ask that their report be cited.",
    }
    return DataLicence(terms[dataset]) if dataset in terms else UNKNOWN


def _emoji_sources() -> list[str]:
    readme = (files("idml_hf.data") / "emoji_mini" / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^- (`.*)$", readme, flags=re.MULTILINE)
