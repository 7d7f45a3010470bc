"""`IDMLIndex`: a collection of embedded images that can be asked with images."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from huggingface_hub import CommitInfo
from tqdm.auto import tqdm

from idml_hf.confidence.calibration import ABSENT, DELTA, Calibration
from idml_hf.confidence.collection import Collection
from idml_hf.confidence.labelled_queries import MOST_QUERIES, LabelledQueries, judge_among_themselves
from idml_hf.confidence.lists import level, levels_of, surprise_of_right_classes, surprises
from idml_hf.data import ImageSet, VectorSet
from idml_hf.embedding import Embeddings, embed_dataset, training_cohort
from idml_hf.embedding_shards import read_shards
from idml_hf.errors import one_of
from idml_hf.hub.trained_on import TrainedOn
from idml_hf.image_processing_idml import IDMLImageProcessor
from idml_hf.index_files import read_index, write_index
from idml_hf.model_reference import ModelReference, load_model
from idml_hf.modeling_idml import IDMLModel
from idml_hf.search.approximate import ApproximateSearch
from idml_hf.search.arrays import as_count, as_positive
from idml_hf.similarity import TAU

from .calibration_images import labelled_queries, queries_of, warnings_of
from .duplicates import NearDuplicates, near_duplicates, near_duplicates_by
from .gallery import Gallery
from .hub import HUB_ID, pull_index, push_index, push_space
from .images import Images, gallery_images, known_of
from .manifest import IndexParts
from .queries import read_queries
from .results import SearchResult
from .searcher import Searcher
from .selection import rows_of, rows_of_class, rows_where
from .thumbnails import THUMBNAIL_SIZE, Thumbnails
from .together import one_query

logger = logging.getLogger("idml_hf.index")

_CONTENT = ("semantic", "labels", "cohort")  # what makes it another collection

if TYPE_CHECKING:
    from typing_extensions import Self


class IDMLIndex:
    """Embedded images, their classes, and the model that embedded them.

    Made by `build`, `from_embeddings`, `from_shards` or `load`. One index is not for several threads that change it.

    Args:
        gallery: the images.
        reference: the model that embedded them.
        tau: temperature of the introspective metric.
        processor: the model's image processor.

    Attributes:
        device: where to search.
        engine: an approximate search, or None if all images are compared; see `use_engine`.
        calibration: what tells right matches from doubtful ones, or None; see `calibrate`.

    Example:
        >>> import numpy as np
        >>> index = IDMLIndex.from_embeddings(np.eye(3), labels=[4, 4, 5])
        >>> result = index.search_embeddings(np.array([[0.9, 0.1, 0.0]]), k=2)
        >>> result.ids.tolist(), result.names.tolist()
        ([[0, 1]], [['4', '4']])
    """

    def __init__(
        self,
        gallery: Gallery,
        reference: ModelReference,
        tau: float = TAU,
        processor: IDMLImageProcessor | None = None,
    ) -> None:
        self.gallery, self.reference, self.tau, self.processor = gallery, reference, as_positive(tau, "tau"), processor
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.engine: ApproximateSearch | None = None
        self.calibration: Calibration | None = None
        self._model: IDMLModel | None = None
        self._next_id = int(gallery.ids.max(initial=-1)) + 1
        self._origin: tuple[Path, str] | None = None
        self._collection: Collection | None = None
        self._cohort: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.gallery)

    def __repr__(self) -> str:
        size = f"{len(self)} images, {self.gallery.semantic.shape[1]} dimensions"
        return f"{type(self).__name__}({size}, model {self.reference.location})"

    @classmethod
    def build(
        cls,
        model: IDMLModel | str | Path,
        dataset: Images,
        processor: IDMLImageProcessor | None = None,
        *,
        batch_size: int = 64,
        device: torch.device | str | None = None,
        num_workers: int = 0,
        thumbnail_size: int | None = THUMBNAIL_SIZE,
        metadata: Mapping[str, Any] | None = None,
        progress: bool = True,
    ) -> Self:
        """Embed a collection of images.

        Args:
            model: the model, its folder or its Hub id.
            dataset: an [`~idml_hf.data.ImageSet`]; what `idml_hf.data.load_images` takes; or a list of images, PIL
                images or paths. For a model of vectors an [`~idml_hf.data.VectorSet`].
            processor: the model's image processor; default: the one saved with the model.
            batch_size: images at a time.
            device: where to embed and to search; default: a GPU if there is one.
            num_workers: processes that decode.
            thumbnail_size: side in pixels of the copies that are kept to show matches; None keeps none.
            metadata: further columns, with a value for each image: `{"shop": ["A", "B", ...]}`; beside those that a
                table of `datasets` or a metadata file has.
            progress: whether to show a progress bar.

        Raises:
            FileNotFoundError, ValueError: if model or images are not there or cannot be read.
        """
        source, model = model, load_model(model)
        images = gallery_images(dataset)
        processor = processor or _processor_for(model)
        embeddings = embed_dataset(model, processor, images, batch_size, device, num_workers, progress)
        known = known_of(images) | dict(metadata or {})
        gallery = Gallery.of_images(images, embeddings, thumbnail_size, metadata=known)
        index = cls(gallery, ModelReference.of(model, source), model.config.tau, processor)
        if device is not None:
            index.device = torch.device(device)
        index._model = model
        return index

    @classmethod
    def from_embeddings(
        cls,
        semantic: Any,
        uncertainty_embeds: Any = None,
        *,
        labels: Any = None,
        class_names: Sequence[str] = (),
        paths: Sequence[str] | None = None,
        ids: Any = None,
        thumbnails: Thumbnails | None = None,
        metadata: Mapping[str, Any] | None = None,
        tau: float = TAU,
        model: IDMLModel | str | Path | None = None,
        processor: IDMLImageProcessor | None = None,
    ) -> Self:
        """Index embeddings that are there already.

        Args:
            semantic: (N, d); rows are normalised.
            uncertainty_embeds: (N, d_u); None means 0.
            labels: integers (N,), -1 where unknown.
            class_names: name of each label, all different; without them labels are plain numbers.
            paths: one string an image.
            ids: integers (N,), different from each other; default 0, 1, ...
            thumbnails: small copies of the images.
            metadata: further columns, as for `build`.
            tau: temperature of the introspective metric; a given `model` has its own.
            model: the model that made the embeddings, to search with images.
            processor: its image processor.

        Raises:
            ValueError: naming the column that does not fit.
        """
        gallery = Gallery.create(
            semantic,
            uncertainty_embeds,
            ids=ids,
            labels=labels,
            class_names=class_names,
            paths=paths,
            thumbnails=thumbnails,
            metadata=metadata,
        )
        if model is None:
            return cls(gallery, ModelReference(), tau, processor)
        source, model = model, load_model(model)
        processor = processor or _processor_for(model)
        index = cls(gallery, ModelReference.of(model, source), model.config.tau, processor)
        index._model = model
        return index

    @classmethod
    def from_shards(cls, folder: str | Path) -> Self:
        """Index what [`~idml_hf.embedding_shards.embed_to_shards`] has written into `folder`.

        Raises:
            FileNotFoundError: if there are no shards, or some are missing.
        """
        shards = read_shards(folder)
        gallery = Gallery.create(
            shards.embeddings.semantic,
            shards.embeddings.uncertainty_embeds,
            labels=shards.labels,
            class_names=shards.class_names,
            paths=shards.paths,
        )
        return cls(gallery, shards.model, shards.tau, shards.processor)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        model: IDMLModel | str | Path | None = None,
        *,
        revision: str | None = None,
        token: str | None = None,
        verify: bool = True,
    ) -> Self:
        """Open a saved index. Its arrays are mapped from their files, so this takes little time and memory.

        Args:
            folder: the folder; or a repository on the Hub, `org/name`, which is downloaded.
            model: the model that made it, if it is not where it was; it must have the same weights.
            revision: commit, tag or branch on the Hub.
            token: Hub token; default: the one of the login or of HF_TOKEN.
            verify: whether to compare all files with their checksums, which reads them once.

        Raises:
            FileNotFoundError: if there is no index.
            IndexFileError: naming the file that is cut off or damaged.
            ModelMismatchError: if `model` is another one.
        """
        on_hub = not os.path.isdir(folder) and HUB_ID.fullmatch(str(folder)) is not None
        if on_hub:
            folder = pull_index(str(folder), revision, token)
        folder = Path(folder).absolute()
        stored = read_index(folder, verify=verify)
        parts = IndexParts.of_stored(stored, folder, trust_engine=not on_hub)
        index = cls(parts.gallery, parts.reference, parts.tau, parts.processor)
        index.engine, index.calibration, index._next_id = parts.engine, parts.calibration, parts.next_id
        index._cohort = parts.cohort
        index._origin = (folder, stored.version)
        if model is not None:
            index._model = index.reference.check(load_model(model))
        return index

    def save(self, folder: str | Path, *, overwrite: bool = True) -> None:
        """Save into a folder, which is made if needed.

        The folder changes in one step: a kill or a full disk leaves the index that was there. An index that was loaded
        from this folder is not saved over one that another process has saved there since.

        Args:
            folder: where to.
            overwrite: whether another index that is there may be replaced.

        Raises:
            FileExistsError: if there is another index, and `overwrite` is False.
            OSError: if it cannot be written.
            RuntimeError: if another process is writing there, or has changed the index there since it was loaded.
        """
        folder = Path(folder).absolute()
        stored, writers = self._parts().to_stored(folder)
        expected = self._origin[1] if self._origin is not None and self._origin[0] == folder else None
        self._origin = (folder, write_index(folder, stored, expected, overwrite=overwrite, writers=writers))

    def _parts(self) -> IndexParts:
        parts = self.gallery, self.reference, self.tau, self.processor, self.engine, self.calibration, self._next_id
        return IndexParts(*parts, cohort=self._cohort)

    def save_for_others(self, folder: str | Path) -> None:
        """Save for other machines: with the model unless that is on the Hub or unknown, without folders of this one.

        An approximate search is made anew there, since its file is read only where it is from the same machine.
        """
        folder = Path(folder).absolute()
        whole = copy.copy(self)
        paths = [os.path.basename(path) if os.path.isabs(path) else path for path in self.gallery.paths.to_pylist()]
        whole.gallery = replace(self.gallery, paths=pa.array(paths, type=pa.string()))
        if self.reference.weights is not None and not self.reference.on_hub:
            self.model.save_pretrained(folder / "model")
            if (processor := self._processor()) is not None:
                processor.save_pretrained(folder / "model")
            whole.reference = replace(self.reference, location=str(folder / "model"))
        write_index(folder, whole._parts().to_stored(folder)[0])

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
        model = self.reference.location if self.reference.on_hub and self.reference.location else "its own model"
        about: dict[str, Any] = {"number": len(self), "model": model, "calibration": self.calibration}
        return push_index(self.save_for_others, repo_id, private, token, **about)

    def push_space(self, repo_id: str, *, private: bool = False, token: str | None = None) -> CommitInfo:
        """Push as a Space on the Hub: a page where anybody can search the index.

        Arguments and errors are those of `push_to_hub`.
        """
        return push_space(self.save_for_others, repo_id, private, token, number=len(self))

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

    def _processor(self) -> IDMLImageProcessor | None:
        if self.processor is None:
            self.processor = _processor_for(self.model, self.reference.revision)
        return self.processor

    def embed(
        self, images: ImageSet | VectorSet | Sequence[Any], batch_size: int = 64, progress: bool = False
    ) -> Embeddings:
        """Embeddings of images by the index's model."""
        return embed_dataset(self.model, self._processor(), images, batch_size, self.device, progress=progress)

    def add(
        self,
        dataset: Images,
        *,
        metadata: Mapping[str, Any] | None = None,
        batch_size: int = 64,
        progress: bool = True,
    ) -> np.ndarray:
        """Embed more images and put them at the end; classes are matched by their names.

        Args:
            dataset: as for `build`.
            metadata: as for `build`; what the images of the index do not have is missing for them.
            batch_size: images at a time.
            progress: whether to show a progress bar.

        Returns:
            int64 (M,), the ids of the new images.

        Raises:
            FileNotFoundError, ValueError: if images or the model cannot be read, or only one side names its classes.
        """
        return self._add(self._embedded(dataset, metadata, batch_size, progress))

    def upsert(
        self,
        dataset: Images,
        *,
        metadata: Mapping[str, Any] | None = None,
        batch_size: int = 64,
        progress: bool = True,
    ) -> np.ndarray:
        """As `add`, but an image whose path is in the index already takes its place and keeps its id.

        Raises:
            ValueError: also if images have no paths, or one is there twice.
        """
        new = self._embedded(dataset, metadata, batch_size, progress)
        paths = new.paths.to_pylist()
        if not all(paths) or len(set(paths)) < len(paths):
            raise ValueError("images are put in the place of others by their paths: each needs one of its own")
        number = {path: row for row, path in enumerate(self.gallery.paths.to_pylist()) if path}
        rows = np.array([number.get(path, -1) for path in paths], dtype=np.int64)
        old = rows >= 0
        ids = np.where(old, self.gallery.ids[rows] if len(self) else -1, -1)
        ids[~old] = self._next_id + np.arange(np.count_nonzero(~old))
        rest = self.gallery.select(np.delete(np.arange(len(self)), rows[old]))
        both = rest.concatenate(replace(new, ids=ids))  # before anything changes, since it may be refused
        self._keep(np.delete(np.arange(len(self)), rows[old]), rest)
        self._take(both, ids)
        return ids

    def add_embeddings(self, semantic: Any, uncertainty_embeds: Any = None, **columns: Any) -> np.ndarray:
        """Put embedded images at the end.

        Args:
            semantic: (M, d).
            uncertainty_embeds: (M, d_u); None means 0.
            columns: `labels`, `class_names`, `paths`, `ids`, `thumbnails` and `metadata` as for `from_embeddings`.

        Returns:
            int64 (M,), the ids of the new images.

        Raises:
            ValueError: naming the column that does not fit.
        """
        if uncertainty_embeds is None:
            uncertainty_embeds = np.zeros((len(semantic), self.gallery.uncertainty_embeds.shape[1]), np.float32)
        return self._add(Gallery.create(semantic, uncertainty_embeds, first_id=self._next_id, **columns))

    def _embedded(
        self, dataset: Images, metadata: Mapping[str, Any] | None, batch_size: int, progress: bool
    ) -> Gallery:
        images = gallery_images(dataset)
        size = None if self.gallery.thumbnails is None else THUMBNAIL_SIZE
        embeddings = self.embed(images, batch_size, progress)
        known = known_of(images) | dict(metadata or {})
        return Gallery.of_images(images, embeddings, size, self._next_id, known)

    def _add(self, new: Gallery) -> np.ndarray:
        self._take(self.gallery.concatenate(new), new.ids)
        return new.ids

    def _take(self, gallery: Gallery, ids: np.ndarray) -> None:
        """Take the place of a gallery that has more images, of these `ids`, at its end."""
        if self.engine is not None:
            self.engine.add(gallery.semantic)
        self.gallery = gallery
        self._next_id = max(self._next_id, int(ids.max(initial=-1)) + 1)

    def remove(self, ids: Any = None, *, class_name: str | None = None) -> None:
        """Take images out; the others keep their ids, and no new image gets an old one.

        Args:
            ids: ids; or a bool mask (N,) of the images in their order; or paths.
            class_name: instead, the class whose images to take out.

        Raises:
            KeyError: for an id, path or class that is not there; nothing is removed then.
            ValueError: for anything else that is no id.
        """
        if (ids is None) == (class_name is None):
            raise ValueError("give either ids (or paths) or class_name")
        gone = rows_of(self.gallery, ids) if class_name is None else rows_of_class(self.gallery, class_name)
        kept = np.delete(np.arange(len(self)), gone)
        self._keep(kept, self.gallery.select(kept))

    def _keep(self, kept: np.ndarray, gallery: Gallery) -> None:
        if self.engine is not None:
            self.engine.keep(gallery.semantic, kept)
        self.gallery = gallery

    def use_engine(self, kind: str, **options: int) -> None:
        """Choose between comparing all images and a faster search that may miss some.

        Args:
            kind: `"flat"` compares all; `"ivf"` looks into the groups nearest to the query; `"hnsw"` walks a graph; or
                a string of faiss's `index_factory`, as `"IVF256,Flat"`, `"IVF1024,SQ8"` or `"HNSW32"`.
            options: `nlist` (groups), `nprobe` (groups looked into) for `"ivf"`; `neighbors`, `ef_construction`,
                `ef_search` for `"hnsw"`, as faiss has them.

        Raises:
            ImportError: if faiss is not installed.
            ValueError: for an unknown kind or option, or one that is out of range.
        """
        if kind == "flat":
            if options:
                raise ValueError(f'"flat" has no option {min(options)!r}')
            self.engine = None
            return
        engine = ApproximateSearch(kind, **options)
        engine.add(self.gallery.semantic)
        self.engine = engine

    def near_duplicates(self, threshold: float = 0.98, max_pairs: int = 10_000) -> NearDuplicates:
        """Pairs of images that look nearly the same to the model.

        All are compared, so the time grows with the square of their number; an engine looks at the nearest 16 of each.

        Args:
            threshold: cosine similarity from which on a pair counts, -1 to 1, at which the model sees no difference.
            max_pairs: how many pairs to return at most, the most alike.

        Raises:
            ValueError: for a threshold or a number out of range.
        """
        if not -1 <= threshold <= 1:
            raise ValueError(f"threshold must be a cosine, -1 to 1, got {threshold}")
        max_pairs = as_count(max_pairs, "max_pairs")
        semantic = self.gallery.semantic
        if self.engine is None or not self.engine.is_ready:
            positions, scores = near_duplicates(semantic, threshold, max_pairs, self.device)
        else:
            positions, scores = near_duplicates_by(self.engine, semantic, threshold, max_pairs)
        return NearDuplicates(self.gallery.ids[positions], scores)

    def calibrate(
        self,
        validation: ImageSet | VectorSet | LabelledQueries | str | Path | None = None,
        *,
        against: str = "itself",
        absent: float = ABSENT,
        error_rate: float = 0.1,
        delta: float = DELTA,
        metric: str = "cosine",
        queries: int | None = MOST_QUERIES,
        batch_size: int = 64,
        seed: int = 0,
        progress: bool = True,
    ) -> Calibration:
        """Learn from labelled images how probable it is that a first match is right, and from when on to say so.

        Each image is searched for twice, as it is and with its class left out of the gallery: that shows what it looks
        like when the class of a query is not there. The classes of the images must be new to the model: of those that
        it was trained on, as far as its folder says, a warning is kept with the calibration. A promise made from the
        images holds for queries and galleries like them; a gallery many times larger, say, is harder. Where the images
        of the index have no classes, the confidence is that the first match shows the same thing, and is learnt
        without looking at the classes of what is found.

        Args:
            validation: labelled images, or what `idml_hf.data.load_images` takes; or such images, embedded; default:
                the images of the index.
            against: `"itself"`: each image is searched for among the others, except those of its class and group if
                the images have groups. `"index"`: it is searched for in this index, which must not hold it; classes
                are matched by their names, and for a class that the index does not have every match is wrong.
            absent: share of the queries to come whose class the collection lacks, from 0 to below 1.
            error_rate: promise to keep where a search names none: share of wrong first matches among those given.
            delta: chance that a promise is broken.
            metric: ranking whose first match is judged.
            queries: images to search for, drawn at random; None: all.
            batch_size: images embedded at a time.
            seed: chooses which classes are learnt from and which tested on.
            progress: whether to show a progress bar.

        Raises:
            ValueError: if the images are too few or not labelled, or there is nothing to learn from them.
        """
        one_of("against", against, ("itself", "index"))
        images, self._cohort = None, self._training_cohort()
        if isinstance(validation, LabelledQueries):
            labelled = validation
        elif validation is None:
            labelled = queries_of(self.gallery)
        else:
            images = gallery_images(validation)
            labelled = labelled_queries(self.embed(images, batch_size, progress), images)
        labelled = replace(labelled, cohort=self._cohort)
        size = len(self) if against == "itself" else None
        warnings = warnings_of(self._trained_on(), labelled, images if isinstance(images, ImageSet) else None, size)
        for warning in warnings:
            logger.warning("%s", warning)
        if against == "itself":
            number = len(labelled.labels) if queries is None else min(queries, len(labelled.labels))
            with tqdm(total=number, desc="Calibrating", disable=not progress) as bar:
                outcomes = judge_among_themselves(
                    labelled,
                    metric,
                    self.tau,
                    self.device,
                    most=queries,
                    seed=seed,
                    # learnt as it is going to be used
                    hide_labels=len(self) > 0 and not (self.gallery.labels >= 0).any(),
                    progress=bar.update,
                )
        else:
            outcomes = self._searcher().judge(labelled, metric)
        calibration = Calibration.fit(
            outcomes, absent=absent, error_rate=error_rate, delta=delta, metric=metric, seed=seed
        )
        right = surprise_of_right_classes(labelled, seed) if against == "itself" else np.zeros(0)
        levels = [bound if np.isfinite(bound) else None for bound in levels_of(right)]
        self.calibration = replace(calibration, warnings=warnings, surprise=levels)
        return self.calibration

    def _training_cohort(self) -> np.ndarray | None:
        if self._model is None and self.reference.location is None:
            return None
        try:
            return training_cohort(self.model)
        except (ValueError, OSError):  # it has gone, but its embeddings can be calibrated without it
            return None

    def _trained_on(self) -> TrainedOn:
        found = TrainedOn.read(self.reference.location, self.reference.revision)
        # the model may be elsewhere than it was
        return found or TrainedOn.read(None if self._model is None else self._model.name_or_path)

    def search(
        self,
        images: Any,
        k: int = 5,
        *,
        metric: str = "cosine",
        error_rate: float | None = None,
        where: Mapping[str, Any] | None = None,
        together: bool = False,
        batch_size: int = 64,
    ) -> SearchResult:
        """The best matches of images.

        Args:
            images: a path, a PIL image or a uint8 array (H, W, 3); a list of these; or an `ImageSet`.
            k: matches an image; fewer are returned where the index holds fewer.
            metric: `"cosine"`, or `"introspective"` to rank by the distance D that counts uncertainty.
            error_rate: for a calibrated index, the accepted share of wrong first matches among those it does not
                abstain from; default: what it was calibrated for.
            where: look only among images whose metadata, or `"class"`, have these values: `{"shop": "A"}`, or
                `{"shop": ["A", "B"]}`. All of these are compared. A promise was made for the whole index, and a part
                of it may be harder.
            together: whether the images show one thing, which is searched for by all of them; the certain ones count
                more. The result is that of one query.
            batch_size: images embedded at a time.

        Raises:
            FileNotFoundError, ValueError: if an image or the model cannot be read.
        """
        queries, names = read_queries(images)
        embeddings = self.embed(queries, batch_size)
        semantic, uncertainty_embeds = embeddings.semantic, embeddings.uncertainty_embeds
        if together:
            typical = float(np.median(self.gallery.uncertainty)) if len(self) else 0.0
            semantic, uncertainty_embeds = one_query(semantic, uncertainty_embeds, typical)
            names = (" + ".join(names),)
        return self.search_embeddings(
            semantic,
            uncertainty_embeds,
            k,
            metric=metric,
            error_rate=error_rate,
            where=where,
            queries=names,
        )

    def shortlist(self, images: Any, miss: float = 0.1, *, batch_size: int = 64) -> list[list[str]]:
        """For each image the shortest list of classes that holds the right one, but for a share `miss` of the lists.

        The list is as long as it has to be: of one class for a clear picture, of many for a doubtful one. The promise
        is for images whose class the index has; see [`idml_hf.confidence.lists`].

        Args:
            images: as for `search`.
            miss: accepted share of the lists that miss the right class, in (0, 1), in steps of half a percent.
            batch_size: images embedded at a time.

        Returns:
            Names of classes, the likeliest first; all classes where the calibration had too few images for a promise.

        Raises:
            ValueError: if the index is not calibrated with images among themselves, or `miss` is out of range.
        """
        if self.calibration is None or not len(self.calibration.surprise):
            raise ValueError("the index is not calibrated for lists: calibrate it with labelled images")
        bound = level([np.inf if one is None else one for one in self.calibration.surprise], miss)
        semantic = self.embed(read_queries(images)[0], batch_size).semantic
        collection = self._searcher().collection
        means = collection.class_means
        found = surprises(semantic, collection.semantic, means, collection.labels)
        order = np.argsort(found, axis=1, kind="stable")
        names = self.gallery.names_of(means.labels)
        return [
            [str(names[at]) for rank, at in enumerate(row) if not rank or found[query, at] <= bound]
            for query, row in enumerate(order)
        ]

    def search_embeddings(
        self,
        semantic: Any,
        uncertainty_embeds: Any = None,
        k: int = 5,
        *,
        metric: str = "cosine",
        error_rate: float | None = None,
        where: Mapping[str, Any] | None = None,
        queries: Sequence[str] = (),
    ) -> SearchResult:
        """The best matches of embedded images.

        Args:
            semantic: (Q, d); rows are normalised.
            uncertainty_embeds: (Q, d_u); None means 0.
            k: matches an image; fewer are returned where the index holds fewer.
            metric, error_rate, where: as for `search`.
            queries: what to call the images in the result.

        Raises:
            ValueError: for embeddings that are not finite or not of the index's size, or an unknown metric.
        """
        searcher = self._searcher() if where is None else self._searcher_among(where)
        return searcher.search(semantic, uncertainty_embeds, k, metric, error_rate, queries)

    def _searcher(self) -> Searcher:
        gallery, known = self.gallery, self._collection
        now = Collection(gallery.semantic, gallery.uncertainty, gallery.labels, self._cohort)
        if known is None or any(getattr(known, part) is not getattr(now, part) for part in _CONTENT):
            self._collection = now
        return Searcher(gallery, self.engine, self.tau, self.device, self.calibration, self._collection)

    def _searcher_among(self, where: Mapping[str, Any]) -> Searcher:
        rows = rows_where(self.gallery, where)
        if not len(rows):
            raise ValueError(f"the index has no image where {dict(where)}")
        gallery = self.gallery.select(rows, thumbnails=False)
        return Searcher(gallery, None, self.tau, self.device, self.calibration, cohort=self._cohort)


def _processor_for(model: IDMLModel, revision: str | None = None) -> IDMLImageProcessor | None:
    """The model's image processor; None for a model of vectors."""
    return None if model.config.takes_vectors else IDMLImageProcessor.for_model(model, revision)


__all__ = ["IDMLIndex"]
