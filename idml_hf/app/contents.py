"""What the app's page shows, as HTML; knows nothing of Gradio."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np

from idml_hf.data import UnreadableImageError
from idml_hf.data.decoding import read_file
from idml_hf.evaluation.plots import collection_map
from idml_hf.index.index import IDMLIndex
from idml_hf.index.results import SearchResult

from .html import Card, Judged, cards, drawing, invitation, pairs, verdict
from .uploads import check_upload

UNCERTAIN_SHOWN = 24
PAIRS_SHOWN = 24
MATCHES = 8
EXAMPLES = 3
ALL_CLASSES = "all classes"
MOST_CLASSES_LISTED = 2000
# cosine from which on two pictures are one
_SAME = 1 - 1e-5


class AppContents:
    """The page's texts and pictures.

    Args:
        index: the index to search.
        title: what to call it.
    """

    def __init__(self, index: IDMLIndex, title: str = "Image search") -> None:
        self.index, self.title = index, title
        self.refresh()

    def refresh(self) -> None:
        """Take note of images that were added or removed."""
        uncertainty = self.index.gallery.uncertainty
        self.most_uncertain = np.argsort(-uncertainty, kind="stable")[:UNCERTAIN_SHOWN]
        self.sorted_uncertainty = np.sort(uncertainty)

    @property
    def heading(self) -> str:
        """Title and size of the collection, as Markdown."""
        return f"# {self.title}\n{len(self.index)} images of {self.index.gallery.num_classes} classes"

    @property
    def classes(self) -> list[str]:
        """Classes to choose one from, `ALL_CLASSES` first; only that one where there are too many to list."""
        labels = np.unique(self.index.gallery.labels)
        names = sorted(self.index.gallery.name_of(label) for label in labels.tolist() if label >= 0)
        return [ALL_CLASSES, *names] if len(names) <= MOST_CLASSES_LISTED else [ALL_CLASSES]

    def examples(self) -> list[bytes]:
        """Small copies of images to try: a certain, a middling and an uncertain one."""
        thumbnails, uncertainty = self.index.gallery.thumbnails, self.index.gallery.uncertainty
        if thumbnails is None or not len(uncertainty):
            return []
        order = np.argsort(uncertainty, kind="stable")
        places = np.unique(np.linspace(0, len(order) - 1, EXAMPLES).astype(int))
        return [thumbnails[int(order[place])] for place in places]

    def search(self, paths: list[str], class_name: str = ALL_CLASSES) -> SearchResult:
        """The matches of an uploaded image, or of several of one thing.

        Args:
            paths: files of the images.
            class_name: look among the images of this class only.

        Raises:
            UnreadableImageError: if one is broken or too large; the message does not tell where it lies.
        """
        where = None if class_name == ALL_CLASSES else {"class": class_name}
        try:
            for path in paths:
                _check_file(path)
            return self.index.search(paths, k=MATCHES, where=where, together=len(paths) > 1)
        except UnreadableImageError as error:
            raise UnreadableImageError(without_places(str(error), paths)) from error

    def verdict(self, result: SearchResult | None, error_percent: float | None) -> str:
        """Whether the first match is an answer, and the bars of confidence and uncertainty."""
        if result is None:
            return invitation(len(self.index), self.index.calibration is not None)
        rank = float(np.searchsorted(self.sorted_uncertainty, result.uncertainty[0]) / len(self.sorted_uncertainty))
        name = str(result.names[0, 0]) or str(result.paths[0, 0]) or f"image {result.ids[0, 0]}"
        judged, calibration = None, self.index.calibration
        if result.verdict is not None and calibration is not None and error_percent is not None:
            error_rate = error_percent / 100
            moved = replace(result.verdict, bar=calibration.bar(error_rate), error_rate=error_rate)
            reason = replace(result, verdict=moved).reason(0)
            judged = Judged(float(moved.confidence[0]), moved.bar, reason)
        return verdict(name, judged, float(result.uncertainty[0]), rank)

    def promise(self, error_percent: float | None) -> str:
        """What an accepted error rate means for how many queries are answered."""
        calibration = self.index.calibration
        if calibration is None or error_percent is None:
            return "This index is not calibrated, so it cannot say when it may be wrong."
        row = calibration.table([error_percent / 100])[0]
        if row["bar"] is None:
            text = f"No confidence is enough to promise at most {error_percent:g} % wrong answers: it always abstains."
            return f"{text} It would take about {row['more_classes']} more classes." if row["more_classes"] else text
        return (
            f"To be wrong in at most {error_percent:g} % of its answers, it answers {row['answered']:.0%} of such "
            f"queries as it was calibrated with, and abstains from {1 - row['answered']:.0%}; at best, in hindsight, "
            f"{row['hindsight']:.0%} could be answered. It reckons with {calibration.absent:.0%} of queries whose "
            "class the collection lacks."
        )

    def matches(self, result: SearchResult | None) -> str:
        """The matches, best first."""
        if result is None:
            return ""
        found = []
        positions = self.index.gallery.positions(result.ids[0][result.ids[0] >= 0])
        for rank, position in enumerate(positions):
            caption = f"{rank + 1}. similarity {result.scores[0, rank]:.3f}"
            found.append(self._card(position, caption, self._also_filed_under(position, positions)))
        return cards(found)

    def _also_filed_under(self, position: int, others: np.ndarray) -> str:
        """The other classes under which the same picture is among the matches."""
        gallery = self.index.gallery
        same = others[gallery.semantic[others] @ gallery.semantic[position] >= _SAME]
        labels = {int(gallery.labels[other]) for other in same} - {int(gallery.labels[position]), -1}
        return ", ".join(gallery.name_of(label) for label in sorted(labels))

    def uncertain(self) -> str:
        """The images of the collection that the model is least certain of."""
        return cards([self._card(position, f"{rank}.") for rank, position in enumerate(self.most_uncertain, 1)])

    def duplicates(self, threshold: float) -> str:
        """Pairs of the collection that look nearly the same."""
        found = self.index.near_duplicates(threshold, PAIRS_SHOWN)
        positions = self.index.gallery.positions(found.ids.ravel()).reshape(-1, 2)
        return pairs(
            [
                (self._card(a, ""), self._card(b, ""), f"similarity {score:.4f}")
                for (a, b), score in zip(positions, found.scores, strict=True)
            ]
        )

    def map(self) -> str:
        """A map of some classes of the collection: what is alike lies together, what is large is uncertain."""
        gallery = self.index.gallery
        known = np.flatnonzero(gallery.labels >= 0)
        rows, uncertainty = gallery.semantic[known], gallery.uncertainty[known]
        names = gallery.class_names or None
        figure = collection_map(rows, gallery.labels[known], uncertainty, names) if len(known) else None
        if figure is None:
            return "<p>There are too few images with a class for a map.</p>"
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130)
        return drawing(buffer.getvalue(), "Map of some classes of the collection")

    def _card(self, position: int, caption: str, also: str = "") -> Card:
        gallery = self.index.gallery
        uncertainty = float(gallery.uncertainty[position])
        file = Path(gallery.paths[int(position)].as_py()).name
        return Card(
            image=None if gallery.thumbnails is None else gallery.thumbnails[int(position)],
            name=gallery.name_of(int(gallery.labels[position])) or file,
            file=file,
            also=also,
            caption=caption,
            uncertainty=uncertainty,
            rank=float(np.searchsorted(self.sorted_uncertainty, uncertainty) / len(self.sorted_uncertainty)),
        )


def without_places(message: str, paths: list[str]) -> str:
    """What is wrong with an upload, without the folder that it lies in here."""
    for path in paths:
        message = message.replace(path, "The image" if len(paths) == 1 else Path(path).name)
    return message


def _check_file(path: str) -> None:
    try:
        check_upload(read_file(path))
    except UnreadableImageError as error:
        raise UnreadableImageError(str(error) if path in str(error) else f"{path} {error}") from error


__all__ = ["ALL_CLASSES", "AppContents", "without_places"]
