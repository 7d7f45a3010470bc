"""Pieces of the app's page. Whatever comes from an index is escaped."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from idml_hf.confidence.verdict import below
from idml_hf.data.decoding import open_image

STYLE = """
.idml-cards {display: grid; grid-template-columns: repeat(auto-fill, minmax(118px, 1fr)); gap: 10px;}
.idml-card, .idml-pair {border: 1px solid var(--border-color-primary); border-radius: 8px; padding: 8px; min-width: 0;}
.idml-card img, .idml-none {width: 100%; aspect-ratio: 1; object-fit: contain; background: #fff; border-radius: 4px;}
.idml-none {display: grid; place-items: center; color: #595959; font-size: 12px;}
.idml-name {font-weight: 600; overflow-wrap: anywhere; line-height: 1.25; margin-top: 4px;}
.idml-caption {font-size: 12px; color: var(--body-text-color);}
.idml-file {font-size: 12px; overflow-wrap: anywhere; color: var(--body-text-color);}
.idml-bar {height: 8px; border-radius: 4px; background: var(--border-color-primary); position: relative;}
.idml-bar > span {display: block; height: 100%; border-radius: 4px;}
.idml-bar > i {display: block; position: absolute; top: -4px; bottom: -4px; width: 2px; background: currentColor;}
.idml-row {display: grid; grid-template-columns: 96px 1fr minmax(76px, max-content); gap: 10px; align-items: center;}
.idml-row {margin-top: 8px;}
.idml-verdict {border-radius: 8px; padding: 14px; border: 2px solid; margin-bottom: 12px; overflow-wrap: anywhere;}
.idml-sure {border-color: #1a9850;} .idml-unsure {border-color: #b8860b; border-style: dashed;}
.idml-plain {border-color: var(--border-color-primary);}
.idml-title {font-size: 20px; font-weight: 700; line-height: 1.3;}
.idml-card summary {list-style: none; cursor: zoom-in;} .idml-card summary::-webkit-details-marker {display: none;}
.idml-card details[open] summary {cursor: zoom-out;}
.idml-card:has(details[open]) {grid-column: 1 / -1; max-width: 480px;}
.idml-also {font-size: 12px; border-left: 3px solid #b8860b; padding-left: 6px; overflow-wrap: anywhere;}
body:not(.dark) button[role=tab].selected {color: #3730a3 !important;}
body:not(.dark) button.primary {background: #4338ca !important;}
.or, .min_value, .max_value {color: var(--body-text-color) !important;}
.idml-invite {padding: 18px; border: 2px dashed var(--border-color-primary); border-radius: 8px; line-height: 1.5;}
.idml-drawing {width: 100%; max-width: 720px; height: auto; background: #fff;}
.idml-pairs {display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 10px;}
.idml-pair {display: grid; grid-template-columns: 1fr 1fr; gap: 8px;}
.idml-pair .idml-card {border: 0; padding: 0;} .idml-pair > .idml-caption {grid-column: 1 / 3;}
"""

# the names of Gradio's buttons say what is written on them
NAMES = """() => {
  const named = () => document.querySelectorAll("button.upload-container[aria-label]")
    .forEach((button) => button.removeAttribute("aria-label"));
  new MutationObserver(named).observe(document.body, {childList: true, subtree: true, attributes: true});
  named();
}"""

ANSWER, NO_ANSWER, UNCERTAINTY = "#1a9850", "#b8860b", "#7b3294"


@dataclass(frozen=True)
class Card:
    """An image of the collection.

    Args:
        image: encoded image, or None.
        name: its class, or its file's name.
        caption: a line below.
        uncertainty: of the image.
        rank: share of the collection that is less uncertain, 0 to 1.
        file: its file's name.
        also: another class under which the same picture is filed.
    """

    image: bytes | None
    name: str
    caption: str
    uncertainty: float
    rank: float
    file: str = ""
    also: str = ""

    def html(self) -> str:
        """The card as HTML, its texts escaped."""
        picture = '<div class="idml-none">no picture kept</div>'
        if self.image is not None:
            seen = f'<img alt="{escape(self.name)}: show it larger or smaller" src="{_data_url(self.image)}">'
            picture = f"<details><summary>{seen}</summary></details>"
        file = f'<div class="idml-file">{escape(self.file)}</div>' if self.file not in ("", self.name) else ""
        also = f'<div class="idml-also">same picture filed under {escape(self.also)}</div>' if self.also else ""
        title = f"uncertainty {self.uncertainty:.3f}, more than {self.rank:.0%} of the collection"
        return (
            f'<div class="idml-card">{picture}<div class="idml-name">{escape(self.name)}</div>{file}{also}'
            f'<div class="idml-caption">{escape(self.caption)}</div>'
            f'<div class="idml-caption" title="{title}">uncertainty {self.uncertainty:.3f}'
            f"{_bar(self.rank, UNCERTAINTY)}</div></div>"
        )


def cards(items: Sequence[Card]) -> str:
    """A grid of cards."""
    return f'<div class="idml-cards">{"".join(item.html() for item in items)}</div>'


def pairs(items: Sequence[tuple[Card, Card, str]]) -> str:
    """A grid of pairs, each with a line below."""
    if not items:
        return "<p>There are no such pairs.</p>"
    each = (
        f'<div class="idml-pair">{a.html()}{b.html()}<div class="idml-caption">{escape(caption)}</div></div>'
        for a, b, caption in items
    )
    return f'<div class="idml-pairs">{"".join(each)}</div>'


@dataclass(frozen=True)
class Judged:
    """The verdict on a query.

    Args:
        confidence: probability that the first match is right.
        bar: confidence that an answer takes; infinite if none is enough.
        reason: why there is no answer; empty if there is one.
    """

    confidence: float
    bar: float
    reason: str


def verdict(name: str, judged: Judged | None, uncertainty: float, rank: float) -> str:
    """What is said of a query: the answer or "not sure", with bars.

    Args:
        name: of the first match.
        judged: the verdict, or None without calibration.
        uncertainty: of the query.
        rank: share of the collection that is less uncertain, 0 to 1.
    """
    kind, title = "plain", f"Nearest: {escape(name)}"
    rows = [_row("Uncertainty", _bar(rank, UNCERTAINTY), f"{uncertainty:.3f}")]
    explained = f"The image is more uncertain than {rank:.0%} of the collection."
    if judged is not None:
        kind, title, why = "sure", escape(name), f"an answer takes a confidence of {below(judged.bar)}"
        if judged.reason:
            kind, title, why = "unsure", f"Not sure. The best guess is {escape(name)}", judged.reason
        bar = _bar(judged.confidence, NO_ANSWER if judged.reason else ANSWER, min(judged.bar, 1))
        rows.insert(0, _row("Confidence", bar, below(judged.confidence)))
        explained = f"{escape(why[:1].upper() + why[1:])}. {explained}"
    return (
        f'<div class="idml-verdict idml-{kind}"><div class="idml-title">{title}</div>{"".join(rows)}'
        f'<div class="idml-caption">{explained}</div></div>'
    )


def invitation(number: int, calibrated: bool) -> str:
    """What the page says before there is a query."""
    trust = "and it says “not sure” where that may be wrong" if calibrated else "and how certain the model is"
    return (
        f'<div class="idml-invite"><b>Which of the {number} images of this collection look like yours?</b><br>'
        "Drop a picture, paste one, or take one with the camera; or try one of the examples. You get the nearest "
        f"images, what the best of them is called, {trust}.</div>"
    )


def drawing(png: bytes, text: str) -> str:
    """A drawing as wide as the page."""
    return f'<img class="idml-drawing" alt="{escape(text)}" src="{_data_url(png)}">'


def _row(label: str, bar: str, value: str) -> str:
    return f'<div class="idml-row"><span>{label}</span>{bar}<span>{value}</span></div>'


def _bar(share: float, color: str, mark: float | None = None) -> str:
    """A bar of 0 to 1, with a line across it at `mark`."""
    line = "" if mark is None else f'<i style="left: {100 * mark:.1f}%"></i>'
    return f'<div class="idml-bar"><span style="width: {100 * share:.1f}%; background: {color}"></span>{line}</div>'


def _data_url(image: bytes) -> str:
    kind = open_image(image).get_format_mimetype() or "image/jpeg"
    return f"data:{kind};base64,{base64.b64encode(image).decode()}"


__all__ = ["ANSWER", "NAMES", "STYLE", "Card", "Judged", "cards", "drawing", "invitation", "pairs", "verdict"]
