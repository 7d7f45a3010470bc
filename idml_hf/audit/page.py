"""The findings as one HTML file with its pictures inside, which opens without a network and reads on a phone."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import PIL.Image

from idml_hf.data import ImageSet, UnreadableImageError
from idml_hf.files import write_text

from .findings import KINDS, Finding

MOST = 100  # findings of a kind that are shown
_OTHERS = 3  # pictures of the suggested class
_SIDE = 96  # pixels of a picture in the file


class _Shown(NamedTuple):
    finding: Finding
    pictures: list[tuple[str | None, str]]


def write_page(
    path: str | Path, findings: Sequence[Finding], images: ImageSet, summary: dict[str, Any], title: str = ""
) -> None:
    """Write the page.

    Args:
        path: Where to.
        findings: In the order in which they are to be shown; the first 100 of each kind are.
        images: The collection.
        summary: Of the audit.
        title: Name of the collection.
    """
    pages = jinja2.Environment(
        loader=jinja2.PackageLoader("idml_hf.audit", ""), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    kept: dict[int, str | None] = {}
    examples = _examples(findings, images)
    sections = []
    for kind, words in KINDS.items():
        of_kind = [finding for finding in findings if finding.kind == kind]
        shown = [_Shown(finding, _pictures(finding, images, examples, kept)) for finding in of_kind[:MOST]]
        if shown:
            sections.append({"kind": kind, "title": words, "count": len(of_kind), "shown": shown})
    html = pages.get_template("page.html.jinja").render(title=title, sections=sections, summary=summary)
    write_text(path, html)


def _examples(findings: Sequence[Finding], images: ImageSet) -> dict[str, list[int]]:
    """Pictures of each class that is suggested, whose own label is not in doubt."""
    doubtful = {finding.place for finding in findings if finding.kind not in ("redundant", "tiny")}
    wanted = {finding.suggested_label for finding in findings if finding.kind in ("wrong_label", "ambiguous")}
    out: dict[str, list[int]] = {name: [] for name in wanted}
    for place, label in enumerate(images.labels.tolist()):
        name = images.class_names[label] if label >= 0 else ""
        if name in out and len(out[name]) < _OTHERS and place not in doubtful:
            out[name].append(place)
    return out


def _pictures(
    finding: Finding, images: ImageSet, examples: dict[str, list[int]], kept: dict[int, str | None]
) -> list[tuple[str | None, str]]:
    """The picture of a finding and what it is to be compared with, each with its words."""
    others = [finding.other] if finding.other >= 0 else []
    if finding.kind in ("wrong_label", "ambiguous"):
        others = [place for place in examples[finding.suggested_label] if place != finding.place]
    out = []
    for place in [finding.place, *others]:
        if place not in kept:
            kept[place] = _encoded(images, place)
        label = images.labels[place]
        out.append((kept[place], images.class_names[label] if label >= 0 else ""))
    return out


def _encoded(images: ImageSet, place: int) -> str | None:
    try:
        picture = images.image(place)
    except UnreadableImageError:
        return None
    picture.thumbnail((_SIDE, _SIDE), PIL.Image.Resampling.BICUBIC)
    file = io.BytesIO()
    if len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) <= 256:
        kind = "png"
        picture.save(file, "PNG", optimize=True)
    else:
        kind = "jpeg"
        picture.save(file, "JPEG", quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


__all__ = ["MOST", "write_page"]
