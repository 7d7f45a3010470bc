"""Changes of the index from the page: by whoever sits at this machine, or knows the password."""

from __future__ import annotations

import hmac
import ipaddress
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from idml_hf.index.index import IDMLIndex

from .uploads import read_uploads


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass
class Editor:
    """Adds images to an index and removes them, one change at a time.

    Args:
        index: the index.
        folder: where to save it after each change, or None.
        password: what a change takes; None: nothing, for a page that only this machine reaches.
    """

    index: IDMLIndex
    folder: Path | None = None
    password: str | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, paths: Sequence[str], class_name: str, password: str = "") -> str:
        """Add uploaded pictures to a class; says what was done.

        Raises:
            PermissionError: for a wrong password.
            ValueError: if there is no picture that can be read.
        """
        self._check(password)
        images, bad = read_uploads(paths)
        if not len(images):
            raise ValueError("There is no picture that can be read")
        if class_name.strip():
            images = images.with_labels(np.zeros(len(images), dtype=np.int64), (class_name.strip(),))
        with self._lock:
            ids = self.index.add(images, progress=False)
            self._save()
        left_out = f"; {len(bad)} that cannot be read are left out" if bad else ""
        return f"Added {len(ids)} images, with the ids {ids[0]} to {ids[-1]}{left_out}."

    def remove(self, ids: str, password: str = "") -> str:
        """Remove images by their ids, numbers with commas or spaces between; says what was done.

        Raises:
            PermissionError: for a wrong password.
            ValueError: for what is no id, or an id that is not there; nothing is removed then.
        """
        self._check(password)
        words = ids.replace(",", " ").split()
        if not words or not all(word.isascii() and word.isdigit() for word in words):
            raise ValueError("Give the ids of images: numbers, with commas between them")
        with self._lock:
            try:
                self.index.remove([int(word) for word in words])
            except KeyError as error:
                raise ValueError(str(error.args[0])) from None
            self._save()
        return f"Removed {len(set(words))} images; {len(self.index)} are left."

    def _check(self, password: str) -> None:
        if self.password is not None and not hmac.compare_digest(password.encode(), self.password.encode()):
            raise PermissionError("The password is wrong")

    def _save(self) -> None:
        if self.folder is not None:
            self.index.save(self.folder)


__all__ = ["Editor", "is_loopback"]
