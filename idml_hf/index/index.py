"""`IDMLIndex`: a collection of embedded images that can be asked with images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from idml_hf.confidence.calibration import DELTA, Calibration, fit_calibration
from idml_hf.confidence.labelled_queries import judge_among_themselves
from idml_hf.data import ImageSet, load_images
from idml_hf.embedding import Embeddings, embed_dataset
from idml_hf.embedding_shards import read_shards
from idml_hf.image_processing_idml import IDMLImageProcessor
from idml_hf.modeling_idml import IDMLModel
from idml_hf.search.engines import create_engine

from .calibration_images import labelled_queries, queries_of
from .duplicates import NearDuplicates, near_duplicates, near_duplicates_by
from .gallery import Gallery
from .model_reference import ModelReference, load_model, processor_of
from .persistence import PersistentIndex
from .queries import read_queries
from .results import SearchResult
from .searcher import Searcher
from .thumbnails import THUMBNAIL_SIZE, Thumbnails


class IDMLIndex(PersistentIndex):
    """Embedded images, their classes, and the model that embedded them.

    Made by `build`, `from_embeddings`, `from_shards` or `load`.

    Example:
        >>> import numpy as np
        >>> index = IDMLIndex.from_embeddings(np.eye(3), labels=[4, 4, 5])
        >>> result = index.search_embeddings(np.array([[0.9, 0.1, 0.0]]), k=2)
        >>> result.ids.tolist(), result.names.tolist()
        ([[0, 1]], [['4', '4']])
    """

    @classmethod
    def build(
        cls,
        model: IDMLModel | str | Path,
        dataset: ImageSet | Sequence[Any] | str | Path,
        processor: IDMLImageProcessor | None = None,
        *,
        batch_size: int = 64,
        device: torch.device | str | None = None,
        num_workers: int = 0,
        thumbnail_size: int | None = THUMBNAIL_SIZE,
        progress: bool = True,
    ) -> IDMLIndex:
        """Embed a collection of images.

        Args:
            model: the model, its folder or its Hub id.
            dataset: an [`~idml_hf.data.ImageSet`], a list of PIL images, or what `idml_hf.data.load_images` takes.
            processor: the model's image processor; default: the one saved with the model.
            batch_size: images at a time.
            device: where to embed and to search; default: a GPU if there is one.
            num_workers: processes that decode.
            thumbnail_size: side in pixels of the copies that are kept to show matches; None keeps none.
            progress: whether to show a progress bar.

        Raises:
            FileNotFoundError, ValueError: if model or images are not there or cannot be read.
        """
        source, model = model, load_model(model)
        images = load_images(dataset) if isinstance(dataset, (str, Path)) else dataset
        processor = processor or processor_of(model)
        embeddings = embed_dataset(model, processor, images, batch_size, device, num_workers, progress)
        gallery = Gallery.of_images(images, embeddings, thumbnail_size)
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
        tau: float = 5.0,
        model: IDMLModel | str | Path | None = None,
        processor: IDMLImageProcessor | None = None,
    ) -> IDMLIndex:
        """Index embeddings that are there already.

        Args:
            semantic: (N, d); rows are normalised.
            uncertainty_embeds: (N, d_u); None means 0.
            labels: integers (N,), -1 where unknown.
            class_names: name of each label; without them labels are plain numbers.
            paths: one string an image.
            ids: integers (N,), different from each other; default 0, 1, ...
            thumbnails: small copies of the images.
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
        )
        if model is None:
            return cls(gallery, ModelReference(), tau, processor)
        source, model = model, load_model(model)
        index = cls(gallery, ModelReference.of(model, source), model.config.tau, processor or processor_of(model))
        index._model = model
        return index

    @classmethod
    def from_shards(cls, folder: str | Path) -> IDMLIndex:
        """Index what [`~idml_hf.embedding_shards.embed_to_shards`] has written into `folder`.

        Raises:
            FileNotFoundError: if there are no shards, or some are missing.
        """
        gallery, plan = read_shards(folder)
        reference = ModelReference.from_json(plan["model"], Path(folder))
        return cls(gallery, reference, plan["tau"], IDMLImageProcessor.from_dict(plan["processor"]))

    def add(
        self, dataset: ImageSet | Sequence[Any] | str | Path, *, batch_size: int = 64, progress: bool = True
    ) -> np.ndarray:
        """Embed more images and put them at the end; classes are matched by their names.

        Args:
            dataset: as for `build`.
            batch_size: images at a time.
            progress: whether to show a progress bar.

        Returns:
            int64 (M,), the ids of the new images.

        Raises:
            FileNotFoundError, ValueError: if images or the model cannot be read, or only one side names its classes.
        """
        images = load_images(dataset) if isinstance(dataset, (str, Path)) else dataset
        size = None if self.gallery.thumbnails is None else THUMBNAIL_SIZE
        return self._add(Gallery.of_images(images, self.embed(images, batch_size, progress), size, self._next_id))

    def add_embeddings(self, semantic: Any, uncertainty_embeds: Any = None, **columns: Any) -> np.ndarray:
        """Put embedded images at the end.

        Args:
            semantic: (M, d).
            uncertainty_embeds: (M, d_u); None means 0.
            columns: `labels`, `class_names`, `paths`, `ids` and `thumbnails` as for `from_embeddings`.

        Returns:
            int64 (M,), the ids of the new images.

        Raises:
            ValueError: naming the column that does not fit.
        """
        if uncertainty_embeds is None:
            uncertainty_embeds = np.zeros((len(semantic), self.gallery.uncertainty_embeds.shape[1]))
        return self._add(Gallery.create(semantic, uncertainty_embeds, first_id=self._next_id, **columns))

    def _add(self, new: Gallery) -> np.ndarray:
        gallery = self.gallery.concatenate(new)
        self.engine = None if self.engine is None else self.engine.added(gallery.semantic)
        self.gallery = gallery
        self._next_id = max(self._next_id, int(new.ids.max(initial=-1)) + 1)
        return new.ids

    def remove(self, ids: Any) -> None:
        """Take images out; the others keep their ids, and no new image gets an old one.

        Raises:
            KeyError: for an id that is not there; nothing is removed then.
        """
        kept = np.delete(np.arange(len(self)), self.gallery.positions(ids))
        gallery = self.gallery.select(kept)
        self.engine = None if self.engine is None else self.engine.kept(gallery.semantic, kept)
        self.gallery = gallery

    def use_engine(self, kind: str, **options: int) -> None:
        """Choose between comparing all images and a faster search that may miss some.

        Args:
            kind: `"flat"` compares all; `"ivf"` looks into the groups nearest to the query; `"hnsw"` walks a graph.
            options: `nlist` (groups), `nprobe` (groups looked into) for `"ivf"`; `neighbors`, `ef_construction`,
                `ef_search` for `"hnsw"`, as faiss has them.

        Raises:
            ImportError: if faiss is not installed.
            ValueError: for an unknown kind.
        """
        self.engine = create_engine(kind, self.gallery.semantic, **options)

    def near_duplicates(self, threshold: float = 0.98, max_pairs: int = 10_000) -> NearDuplicates:
        """Pairs of images that look nearly the same to the model.

        All are compared, so the time grows with the square of their number; an engine looks at the nearest 16 of each.

        Args:
            threshold: cosine similarity from which on a pair counts, -1 to 1.
            max_pairs: how many pairs to return at most, the most alike.
        """
        semantic = self.gallery.semantic
        if self.engine is None:
            positions, scores = near_duplicates(semantic, threshold, max_pairs, self.device)
        else:
            positions, scores = near_duplicates_by(self.engine, semantic, threshold, max_pairs)
        return NearDuplicates(self.gallery.ids[positions], scores)

    def calibrate(
        self,
        validation: ImageSet | str | Path | None = None,
        *,
        against: str = "itself",
        error_rate: float = 0.1,
        delta: float = DELTA,
        metric: str = "cosine",
        batch_size: int = 64,
        seed: int = 0,
        progress: bool = True,
    ) -> Calibration:
        """Learn from labelled images how probable it is that a first match is right, and from when on to say so.

        The classes of the images must be new to the model. A promise made from them holds for queries and galleries
        like them; a gallery many times larger, say, is harder.

        Args:
            validation: labelled images, or what `idml_hf.data.load_images` takes; default: the images of the index.
            against: `"itself"`: each image is searched for among the others, except those of its class and group if
                the images have groups. `"index"`: it is searched for in this index, which must not hold it; classes
                are matched by their names, and for a class that the index does not have every match is wrong.
            error_rate: promise to keep where a search names none: share of wrong first matches among those given.
            delta: chance that a promise is broken.
            metric: ranking whose first match is judged.
            batch_size: images embedded at a time.
            seed: chooses which classes are learnt from and which tested on.
            progress: whether to show a progress bar.

        Raises:
            ValueError: if the images are too few or not labelled, or there is nothing to learn from them.
        """
        if validation is None:
            queries = queries_of(self.gallery)
        else:
            images = load_images(validation) if isinstance(validation, (str, Path)) else validation
            queries = labelled_queries(self.embed(images, batch_size, progress), images)
        if against == "itself":
            judged = judge_among_themselves(queries, metric, self.tau, self.device)
        elif against == "index":
            judged = self._searcher().judge(queries, metric)
        else:
            raise ValueError(f'against must be "itself" or "index", got {against!r}')
        self.calibration = fit_calibration(judged, error_rate=error_rate, delta=delta, metric=metric, seed=seed)
        return self.calibration

    def search(
        self,
        images: Any,
        k: int = 5,
        *,
        metric: str = "cosine",
        error_rate: float | None = None,
        batch_size: int = 64,
    ) -> SearchResult:
        """The best matches of images.

        Args:
            images: a path, a PIL image or a uint8 array (H, W, 3); a list of these; or an `ImageSet`.
            k: matches an image; fewer are returned where the index holds fewer.
            metric: `"cosine"`, or `"introspective"` to rank by the distance D that counts uncertainty.
            error_rate: for a calibrated index, the accepted share of wrong first matches among those it does not
                abstain from; default: what it was calibrated for.
            batch_size: images embedded at a time.

        Raises:
            FileNotFoundError, ValueError: if an image or the model cannot be read.
        """
        queries, names = read_queries(images)
        embeddings = self.embed(queries, batch_size)
        return self.search_embeddings(
            embeddings.semantic,
            embeddings.uncertainty_embeds,
            k,
            metric=metric,
            error_rate=error_rate,
            queries=names,
        )

    def search_embeddings(
        self,
        semantic: Any,
        uncertainty_embeds: Any = None,
        k: int = 5,
        *,
        metric: str = "cosine",
        error_rate: float | None = None,
        queries: Sequence[str] = (),
    ) -> SearchResult:
        """The best matches of embedded images.

        Args:
            semantic: (Q, d); rows are normalised.
            uncertainty_embeds: (Q, d_u); None means 0.
            k: matches an image; fewer are returned where the index holds fewer.
            metric, error_rate: as for `search`.
            queries: what to call the images in the result.

        Raises:
            ValueError: for embeddings that are not finite or not of the index's size, or an unknown metric.
        """
        return self._searcher().search(semantic, uncertainty_embeds, k, metric, error_rate, queries)

    def _searcher(self) -> Searcher:
        return Searcher(self.gallery, self.engine, self.tau, self.device, self.calibration)

    def embed(self, images: ImageSet | Sequence[Any], batch_size: int = 64, progress: bool = False) -> Embeddings:
        """Embeddings of images by the index's model."""
        return embed_dataset(self.model, self._processor(), images, batch_size, self.device, progress=progress)


__all__ = ["IDMLIndex"]
