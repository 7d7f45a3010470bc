"""An index at rest: in a folder, on the Hub, and with the model that made it."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import torch
from huggingface_hub import CommitInfo

from idml_hf.confidence.calibration import Calibration
from idml_hf.image_processing_idml import IDMLImageProcessor
from idml_hf.index_files import StoredIndex, read_index, write_index
from idml_hf.modeling_idml import IDMLModel
from idml_hf.search.engines import Engine, restore_engine

from .gallery import Gallery
from .hub import HUB_ID, IndexToPush, pull_index, push_index, push_space
from .model_reference import ModelReference, load_model, processor_of

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(eq=False, repr=False)
class PersistentIndex:
    """What [`IDMLIndex`] consists of, and how it is saved, loaded and shared.

    Args:
        gallery: the images.
        reference: the model that embedded them.
        tau: temperature of the introspective metric.
        processor: the model's image processor.
    """

    gallery: Gallery
    reference: ModelReference
    tau: float = 5.0
    processor: IDMLImageProcessor | None = None

    def __post_init__(self) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.engine: Engine | None = None
        self.calibration: Calibration | None = None
        self._model: IDMLModel | None = None
        self._next_id = int(self.gallery.ids.max(initial=-1)) + 1
        self._origin: tuple[Path, str] | None = None

    def __len__(self) -> int:
        return len(self.gallery)

    def __repr__(self) -> str:
        size = f"{len(self)} images, {self.gallery.semantic.shape[1]} dimensions"
        return f"{type(self).__name__}({size}, model {self.reference.location})"

    @property
    def model(self) -> IDMLModel:
        """The model, loaded when first asked for.

        Raises:
            ValueError: if it is unknown where it is, or it is not the one that made the index.
            FileNotFoundError: if its folder is gone.
        """
        if self._model is None:
            self._model = self.reference.load()
        return self._model

    def _processor(self) -> IDMLImageProcessor:
        if self.processor is None:
            self.processor = processor_of(self.model, self.reference.revision)
        return self.processor

    def save(self, folder: str | Path) -> None:
        """Save into a folder, which is made if needed.

        The folder changes in one step: a kill or a full disk leaves the index that was there. An index that was loaded
        from this folder is not saved over one that another process has saved there since.

        Raises:
            OSError: if it cannot be written.
            RuntimeError: if another process is writing there, or has changed the index there since it was loaded.
        """
        folder = Path(folder).absolute()
        arrays = self.gallery.arrays() | ({} if self.engine is None else self.engine.arrays())
        manifest = {
            "images": len(self),
            "next_id": self._next_id,
            "tau": self.tau,
            "model": self.reference.relative_to(folder),
            "processor": None if self.processor is None else self.processor.to_dict(),
            "engine": None if self.engine is None else self.engine.settings(),
            "calibration": None if self.calibration is None else self.calibration.to_json(),
            "class_names": list(self.gallery.class_names),
        }
        expected = self._origin[1] if self._origin is not None and self._origin[0] == folder else None
        version = write_index(folder, StoredIndex(manifest, arrays, {"items": self.gallery.table()}), expected)
        self._origin = (folder, version)

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> CommitInfo:
        """Push to a data set repository on the Hub, which is made if it is not there.

        A model that is itself on the Hub is named by its id and revision; any other goes with the index.

        Args:
            repo_id: `org/name`.
            private: make a new repository private.
            token: Hub token; default: the one of the login or of HF_TOKEN.

        Raises:
            PermissionError: if the Hub does not accept the token, or the token may not write there.
            ConnectionError: if the Hub cannot be reached, or offline mode is on.
        """
        return push_index(self._to_push(), repo_id, private, token)

    def push_space(self, repo_id: str, *, private: bool = False, token: str | None = None) -> CommitInfo:
        """Push as a Space on the Hub: a page where anybody can search the index.

        Arguments and errors are those of `push_to_hub`.
        """
        return push_space(self._to_push(), repo_id, private, token)

    def _to_push(self) -> IndexToPush:
        name = self.reference.location if self.reference.on_hub and self.reference.location else "its own model"
        return IndexToPush(self._save_whole, len(self), name)

    def _save_whole(self, folder: Path) -> None:
        """Save for others: with the model unless that is on the Hub or unknown, without folders of this machine."""
        whole = copy.copy(self)
        paths = [os.path.basename(path) if os.path.isabs(path) else path for path in self.gallery.paths.to_pylist()]
        whole.gallery = replace(self.gallery, paths=pa.array(paths, type=pa.string()))
        if self.reference.weights is not None and not self.reference.on_hub:
            self.model.save_pretrained(folder / "model")
            self._processor().save_pretrained(folder / "model")
            whole.reference = replace(self.reference, location=str(folder / "model"))
        whole.save(folder)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        model: IDMLModel | str | Path | None = None,
        *,
        revision: str | None = None,
        token: str | None = None,
    ) -> Self:
        """Open a saved index. Its arrays are mapped from their files, so this takes little time and memory.

        Args:
            folder: the folder; or a repository on the Hub, `org/name`, which is downloaded.
            model: the model that made it, if it is not where it was; it must have the same weights.
            revision: commit, tag or branch on the Hub.
            token: Hub token; default: the one of the login or of HF_TOKEN.

        Raises:
            FileNotFoundError: if there is no index.
            IndexFileError: naming the file that is cut off or damaged.
            ModelMismatchError: if `model` is another one.
        """
        if not os.path.isdir(folder) and HUB_ID.fullmatch(str(folder)):
            folder = pull_index(str(folder), revision, token)
        folder = Path(folder).absolute()
        stored = read_index(folder)
        manifest = stored.manifest
        gallery = Gallery.restore(stored.arrays, stored.tables["items"], manifest["class_names"])
        processor = manifest["processor"]
        index = cls(
            gallery,
            ModelReference.from_json(manifest["model"], folder),
            manifest["tau"],
            None if processor is None else IDMLImageProcessor.from_dict(processor),
        )
        index.engine = restore_engine(manifest["engine"], stored.arrays, len(gallery))
        calibration = manifest["calibration"]
        index.calibration = None if calibration is None else Calibration.from_json(calibration)
        index._next_id = manifest["next_id"]
        index._origin = (folder, stored.version)
        if model is not None:
            index._model = index.reference.check(load_model(model))
        return index


__all__ = ["PersistentIndex"]
