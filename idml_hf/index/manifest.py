"""What `index.json` says of an index, beside its files."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from idml_hf.confidence.calibration import Calibration
from idml_hf.image_processing_idml import IDMLImageProcessor
from idml_hf.index_files import MANIFEST, IndexFileError, StoredIndex
from idml_hf.model_reference import ModelReference
from idml_hf.search.approximate import ApproximateSearch
from idml_hf.search.arrays import unit_rows

from .gallery import Gallery

ENGINE_FILE = "engine.faiss"
COHORT = "cohort"

logger = logging.getLogger("idml_hf.index")


@dataclass
class IndexParts:
    """What an index consists of. Arguments and attributes are those of [`IDMLIndex`].

    `cohort` are the embeddings of training images, float32 (M, d), that a calibration compares queries with.
    """

    gallery: Gallery
    reference: ModelReference
    tau: float
    processor: IDMLImageProcessor | None
    engine: ApproximateSearch | None
    calibration: Calibration | None
    next_id: int
    cohort: np.ndarray | None = None

    def to_stored(self, folder: Path) -> tuple[StoredIndex, dict[str, Callable[[Path], None]]]:
        """The parts as `write_index` takes them for `folder`, and what writes the file of the engine."""
        engine, gallery = self.engine, self.gallery
        manifest = {
            "images": len(gallery),
            "next_id": self.next_id,
            "tau": self.tau,
            "model": self.reference.relative_to(folder),
            "processor": None if self.processor is None else self.processor.to_dict(),
            "engine": None if engine is None else engine.settings(),
            "calibration": None if self.calibration is None else self.calibration.to_json(),
            "class_names": list(gallery.class_names),
        }
        arrays = gallery.arrays() | ({} if engine is None else engine.arrays())
        if self.calibration is not None and self.cohort is not None:
            arrays[COHORT] = self.cohort.astype(np.float16)
        writers: dict[str, Callable[[Path], None]]
        writers = {} if engine is None or not engine.is_ready else {ENGINE_FILE: engine.write}
        return StoredIndex(manifest, arrays, {"items": gallery.table()}), writers

    @classmethod
    def of_stored(cls, stored: StoredIndex, folder: Path, *, trust_engine: bool = True) -> IndexParts:
        """The parts of an index that `read_index` has opened in `folder`.

        Args:
            trust_engine: whether to read the file of the engine; else the engine is made anew.

        Raises:
            IndexFileError: if they contradict each other, or are none of an index.
        """
        try:
            manifest = stored.manifest
            gallery = Gallery.restore(stored.arrays, stored.tables["items"], _names(manifest["class_names"]))
            next_id, tau = manifest["next_id"], manifest["tau"]
            if not _is_number(next_id, int) or next_id <= gallery.ids.max(initial=-1) or next_id >= 2**62:
                raise ValueError(f"the next id {next_id!r} is none")
            if not _is_number(tau, (int, float)) or not 0 < tau < math.inf:
                raise ValueError(f"tau is {tau!r}")
            processor, calibration = manifest["processor"], manifest["calibration"]
            return cls(
                gallery,
                ModelReference.from_json(manifest["model"], folder),
                tau,
                None if processor is None else IDMLImageProcessor.from_dict(processor),
                _engine(stored, gallery, trust_engine),
                None if calibration is None else Calibration.from_json(calibration),
                next_id,
                _cohort(stored.arrays.get(COHORT), gallery),
            )
        except IndexFileError:
            raise
        except Exception as error:  # whatever the parts stumble over in a file that may come from anywhere
            reason = (str(error) or type(error).__name__).splitlines()[0]
            if isinstance(error, KeyError):
                reason = f"it lacks {reason}"
            raise IndexFileError(f"{folder / MANIFEST} is damaged: {reason}") from error


def _engine(stored: StoredIndex, gallery: Gallery, trust: bool) -> ApproximateSearch | None:
    """The engine as it was saved, or made anew of the gallery."""
    settings = stored.manifest["engine"]
    if settings is None:
        return None
    kind, options = settings["kind"], settings.get("options")
    path = stored.files.get(ENGINE_FILE)
    try:
        if options is None:  # of the first format
            options = _first_format_options(settings, stored.arrays)
        elif (path is not None and path.is_file() and trust) or settings["trained_on"] == 0:
            slots = stored.arrays.get("engine_slots") if path is not None else None
            try:
                return ApproximateSearch.read(settings, slots, path, len(gallery), gallery.semantic.shape[1])
            except (ValueError, OSError) as error:
                raise IndexFileError(f"{path or ENGINE_FILE} is damaged: {error}") from error
        logger.warning("the engine %s of the index is made anew, as its file is missing or of another format", kind)
        engine = ApproximateSearch(kind, **options)
        engine.add(gallery.semantic)
        return engine
    except ImportError as error:
        logger.warning("%s; until then all images are compared", error)
        return None


def _first_format_options(settings: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    if settings["kind"] == "ivf":
        return {"nprobe": settings["nprobe"], "nlist": len(arrays["ivf_centroids"])}
    return {name: settings[name] for name in ("neighbors", "ef_construction", "ef_search")}


def _cohort(stored: np.ndarray | None, gallery: Gallery) -> np.ndarray | None:
    if stored is None:
        return None
    if stored.dtype != np.float16 or stored.ndim != 2 or stored.shape[1] != gallery.semantic.shape[1]:
        raise ValueError("its cohort of training images does not fit")
    return unit_rows(stored.astype(np.float32), "cohort of training images")


def _names(names: Any) -> list[str]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its class names are none")
    return names


def _is_number(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


__all__ = ["ENGINE_FILE", "IndexParts"]
