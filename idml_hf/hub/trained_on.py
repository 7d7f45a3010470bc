"""Which classes and pictures a model was trained on, told by hashes, so that a promise is not learnt from them.

A model knows the classes that it was trained on better than any new one, so what they say of its mistakes is too good.
The file beside the weights names none of them: it holds sorted hashes. Who has a picture, or guesses a name, can check
whether it is among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub.errors import HFValidationError
from transformers.utils import cached_file

from idml_hf.data import ImageSet, UnreadableImageError, VectorSet
from idml_hf.files import read_json, write_json

TRAINED_ON_FILE = "trained_on.json"


@dataclass(frozen=True)
class TrainedOn:
    """Hashes of training classes, by name, and of training pictures, by the bytes of their files.

    Args:
        classes: of each name, whatever its case; numbers name nothing, and have none.
        pictures: of each picture.
    """

    classes: frozenset[str] = frozenset()
    pictures: frozenset[str] = frozenset()

    @classmethod
    def of(cls, images: ImageSet | VectorSet) -> TrainedOn:
        """Those of training images; of vectors the names of their classes.

        Example:
            >>> from idml_hf.data import load_images
            >>> test = load_images("emoji-mini")
            >>> trained_on = TrainedOn.of(test.select(test.labels < 10))
            >>> len(trained_on.classes), int(trained_on.known_classes(test).sum())
            (10, 10)
        """
        present = [images.class_names[label] for label in np.unique(images.labels[images.labels >= 0])]
        names = frozenset(filter(None, map(_name, present)))
        if not isinstance(images, ImageSet):
            return cls(names)
        return cls(names, frozenset(filter(None, (_picture(images, row) for row in range(len(images))))))

    @classmethod
    def read(cls, model: str | Path | None, revision: str | None = None, *, ask_hub: bool = True) -> TrainedOn:
        """Those of a model's folder or Hub repository; empty where it does not say.

        Args:
            model: folder or Hub id; None for a model that was only in memory.
            revision: commit, tag or branch on the Hub.
            ask_hub: whether to download what is not here.

        Raises:
            ValueError: if the file there is damaged.
        """
        if not model:
            return cls()
        quiet = ("gated_repo", "missing_entries", "connection_errors")
        try:
            path = cached_file(
                str(model),
                TRAINED_ON_FILE,
                revision=revision,
                local_files_only=not ask_hub,
                **{f"_raise_exceptions_for_{kind}": False for kind in quiet},
            )
        except (OSError, HFValidationError):  # a folder that has gone
            return cls()
        if path is None:
            return cls()
        entry = read_json(path)
        lists = [entry.get(name) for name in ("classes", "pictures")]
        if not all(isinstance(part, list) and all(isinstance(text, str) for text in part) for part in lists):
            raise ValueError(f"{path} is damaged: it holds no hashes of classes and pictures")
        return cls(frozenset(entry["classes"]), frozenset(entry["pictures"]))

    def write(self, folder: str | Path) -> None:
        """Write the file into a model's folder."""
        content = {"classes": sorted(self.classes), "pictures": sorted(self.pictures)}
        write_json(Path(folder) / TRAINED_ON_FILE, content)

    def __or__(self, other: TrainedOn) -> TrainedOn:
        """Those of both, as of a model that was trained twice."""
        return TrainedOn(self.classes | other.classes, self.pictures | other.pictures)

    def __bool__(self) -> bool:
        return bool(self.classes or self.pictures)

    def known_names(self, class_names: Sequence[str]) -> np.ndarray:
        """Which of C names are those of training classes, bool (C,)."""
        return np.array([_name(name) in self.classes for name in class_names], dtype=bool)

    def known_classes(self, images: ImageSet) -> np.ndarray:
        """Which classes of images are training classes, by name or by a picture, bool (C,)."""
        known = self.known_names(images.class_names)
        for row in range(len(images)) if self.pictures else ():
            label = images.labels[row]
            if label >= 0 and not known[label]:
                known[label] = _picture(images, row) in self.pictures
        return known


def _name(name: str) -> str | None:
    plain = " ".join(name.casefold().split())
    return None if not plain or plain.isdecimal() else _hash(b"class", plain.encode())


def _picture(images: ImageSet, row: int) -> str | None:
    try:
        return _hash(b"picture", images.file_bytes(row))
    except UnreadableImageError:
        return None


def _hash(kind: bytes, content: Any) -> str:
    return blake2b(content, digest_size=8, person=b"idml " + kind).hexdigest()


__all__ = ["TRAINED_ON_FILE", "TrainedOn"]
