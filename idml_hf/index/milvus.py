"""A gallery that lives in Milvus: in a local file (Milvus Lite) or in a cluster, by the same code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from idml_hf.embedding import embed_dataset
from idml_hf.image_processing_idml import IDMLImageProcessor
from idml_hf.model_reference import ModelReference, load_model
from idml_hf.modeling_idml import IDMLModel
from idml_hf.search.arrays import as_count, as_integers, finite_rows, unit_rows
from idml_hf.search.rescoring import SLACK, best, cosines, single_precision_error

from .classes import join_classes
from .gallery import Gallery
from .index import IDMLIndex
from .queries import read_queries
from .results import SearchResult

_BATCH = 1000  # rows sent or asked for at a time
_MOST = 16_384  # matches that Milvus gives
_MAX_TEXT = 65_535  # bytes of a text


class IDMLMilvusIndex:
    """Images embedded by an IDML model, in a collection of Milvus. Made by `create` or `open`.

    Searches by cosine and returns what the flat index does; confidence needs an [`IDMLIndex`].

    A second collection, `NAME_about`, holds the settings and the class names.

    Example::

        index = IDMLIndex.build("my-model", "photos/")
        with IDMLMilvusIndex.create(index, "photos.db") as gallery:
            gallery.search("query.jpg", k=5)
        with IDMLMilvusIndex.open("photos.db") as gallery:      # "http://milvus:19530" for a cluster
            gallery.search("query.jpg", k=5)
    """

    def __init__(self, uri: str | Path, collection: str, token: str = "") -> None:
        self.client, self.collection = _connect(uri, token), collection
        self._file = None if _is_address(uri) else Path(uri).absolute()
        self.class_names: tuple[str, ...] = ()
        self.dimensions = 0
        self.reference = ModelReference()
        self.processor: IDMLImageProcessor | None = None
        self._model: IDMLModel | None = None

    @classmethod
    def create(
        cls, index: IDMLIndex, uri: str | Path = "idml_milvus.db", collection: str = "idml", token: str = ""
    ) -> IDMLMilvusIndex:
        """Put an index into a new collection.

        Args:
            index: what to put there.
            uri: file of Milvus Lite, or address of a Milvus server.
            collection: its name; letters, digits and `_`.
            token: of the server.

        Raises:
            ImportError: if pymilvus is not installed.
            FileExistsError: if there is such a collection.
        """
        from pymilvus import DataType, MilvusClient

        gallery = cls(uri, collection, token)
        if gallery.client.has_collection(collection):
            gallery.close()
            raise FileExistsError(f"{uri} has a collection {collection} already")
        schema = MilvusClient.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("semantic", DataType.FLOAT_VECTOR, dim=index.gallery.semantic.shape[1])
        schema.add_field("uncertainty", DataType.FLOAT)
        schema.add_field("label", DataType.INT64)
        schema.add_field("path", DataType.VARCHAR, max_length=_MAX_TEXT)
        _create_collection(gallery.client, collection, schema, "semantic")
        about = MilvusClient.create_schema(auto_id=False)
        about.add_field("id", DataType.INT64, is_primary=True)
        about.add_field("text", DataType.VARCHAR, max_length=_MAX_TEXT)
        about.add_field("unused", DataType.FLOAT_VECTOR, dim=2)  # Milvus has no collections without vectors
        _create_collection(gallery.client, gallery._about, about, "unused")
        gallery.reference, gallery.processor, gallery._model = index.reference, index.processor, index._model
        gallery.dimensions = index.gallery.semantic.shape[1]
        settings = {
            "dimensions": gallery.dimensions,
            "model": index.reference.relative_to(_folder(uri)),
            "processor": None if index.processor is None else index.processor.to_dict(),
        }
        gallery._write_about([(0, json.dumps(settings))])
        gallery.add(index.gallery)
        return gallery

    @classmethod
    def open(
        cls,
        uri: str | Path = "idml_milvus.db",
        collection: str = "idml",
        model: IDMLModel | str | Path | None = None,
        token: str = "",
    ) -> IDMLMilvusIndex:
        """Open a collection that `create` has made.

        Args:
            uri, collection, token: as for `create`.
            model: the model that made it, if it is not where it was; it must have the same weights.

        Raises:
            ImportError: if pymilvus is not installed.
            FileNotFoundError: if there is no such collection.
            ModelMismatchError: if `model` is another one.
        """
        if not _is_address(uri) and not Path(uri).exists():
            raise FileNotFoundError(f"there is no Milvus file {uri}")
        gallery = cls(uri, collection, token)
        if not gallery.client.has_collection(gallery._about):
            gallery.close()
            raise FileNotFoundError(f"{uri} has no collection {collection} of an IDML index")
        for name in (collection, gallery._about):
            gallery.client.load_collection(name)
        about = gallery._read_about()
        settings = json.loads(about[0])
        gallery.class_names = tuple(about[1:])
        gallery.dimensions = settings["dimensions"]
        gallery.reference = ModelReference.from_json(settings["model"], _folder(uri))
        if settings["processor"] is not None:
            gallery.processor = IDMLImageProcessor.from_dict(settings["processor"])
        if model is not None:
            gallery._model = gallery.reference.check(load_model(model))
        return gallery

    def __enter__(self) -> IDMLMilvusIndex:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        return int(self.client.query(self.collection, filter="", output_fields=["count(*)"])[0]["count(*)"])

    def close(self) -> None:
        """Close the connection, and a local file with it: another process can then open it."""
        self.client.close()
        if self._file is not None:
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_server(str(self._file))

    @property
    def model(self) -> IDMLModel:
        """The model, loaded when first asked for; errors are those of [`IDMLIndex.model`]."""
        if self._model is None:
            self._model = self.reference.load()
        return self._model

    def add(self, gallery: Gallery) -> None:
        """Put more images in; classes are matched by their names, an id that is there is replaced.

        Raises:
            ValueError: if their embeddings have another size.
        """
        if gallery.semantic.shape[1] != self.dimensions:
            raise ValueError(f"embeddings have {gallery.semantic.shape[1]} dimensions, not {self.dimensions}")
        paths = gallery.paths.to_pylist()
        if any(len(text.encode()) > _MAX_TEXT for text in (*paths, *gallery.class_names)):
            raise ValueError(f"Milvus holds paths and class names of at most {_MAX_TEXT} bytes")
        labels = self._labels_of(gallery)
        for start in range(0, len(gallery), _BATCH):
            rows = range(start, min(start + _BATCH, len(gallery)))
            self.client.upsert(
                self.collection,
                [
                    {
                        "id": int(gallery.ids[row]),
                        "semantic": np.asarray(gallery.semantic[row]),
                        "uncertainty": float(gallery.uncertainty[row]),
                        "label": int(labels[row]),
                        "path": paths[row],
                    }
                    for row in rows
                ],
            )

    def remove(self, ids: Any) -> None:
        """Take images out by their ids; those that are not there are passed over.

        Raises:
            ValueError: for ids that are no integers.
        """
        numbers = as_integers(list(ids) if isinstance(ids, (range, set, frozenset)) else ids, "ids").tolist()
        for start in range(0, len(numbers), _BATCH):
            self.client.delete(self.collection, ids=numbers[start : start + _BATCH])

    def search(self, images: Any, k: int = 5, *, batch_size: int = 64) -> SearchResult:
        """The best matches of images, as [`IDMLIndex.search`] finds them."""
        queries, names = read_queries(images)
        if self.processor is None:
            self.processor = IDMLImageProcessor.for_model(self.model, self.reference.revision)
        found = embed_dataset(self.model, self.processor, queries, batch_size, progress=False)
        return self.search_embeddings(found.semantic, found.uncertainty_embeds, k, queries=names)

    def search_embeddings(
        self, semantic: Any, uncertainty_embeds: Any = None, k: int = 5, *, queries: Sequence[str] = ()
    ) -> SearchResult:
        """The best matches of embedded images, as [`IDMLIndex.search_embeddings`] finds them.

        Raises:
            ValueError: for embeddings that are not finite or of another size, or an empty gallery.
        """
        semantic = unit_rows(semantic, "query embeddings")
        if semantic.shape[1] != self.dimensions:
            raise ValueError(f"queries have {semantic.shape[1]} dimensions, the gallery {self.dimensions}")
        uncertainty = np.zeros(len(semantic), dtype=np.float32)
        if uncertainty_embeds is not None:
            rows = finite_rows(uncertainty_embeds, "uncertainty embeddings of the queries", len(semantic))
            uncertainty = np.linalg.norm(rows, axis=1)
        k, number = as_count(k, "k"), len(self)
        if not number:
            raise ValueError("the gallery is empty")
        k = min(k, number, _MOST)
        scores, ids = np.empty((len(semantic), k)), np.empty((len(semantic), k), dtype=np.int64)
        hits: dict[int, Any] = {}
        for start in range(0, len(semantic), _BATCH):
            part = slice(start, start + _BATCH)
            scores[part], ids[part], found = self._search(semantic[part], k, number)
            hits |= found
        labels = _column(ids, hits, "label", np.int64)
        return SearchResult(
            ids=ids,
            scores=scores,
            labels=labels,
            names=np.array([self._name_of(label) for label in labels.ravel().tolist()], object).reshape(labels.shape),
            paths=_column(ids, hits, "path", object),
            match_uncertainty=_column(ids, hits, "uncertainty", np.float32),
            uncertainty=uncertainty,
            queries=tuple(queries),
        )

    def _search(self, queries: np.ndarray, k: int, number: int) -> tuple[np.ndarray, np.ndarray, dict[int, Any]]:
        """Scores and ids (Q, k), and what Milvus holds of the ids; ties by the smaller id."""
        scores, ids = np.empty((len(queries), k)), np.empty((len(queries), k), dtype=np.int64)
        known: dict[int, Any] = {}
        width, unsure = min(k + SLACK, number, _MOST), np.arange(len(queries))
        error = 2 * single_precision_error(queries.shape[1])
        while len(unsure):
            fields = ["semantic", "uncertainty", "label", "path"]
            answers = self.client.search(self.collection, list(queries[unsure]), limit=width, output_fields=fields)
            again = []
            for row, answer in zip(unsure, answers, strict=True):
                found = {hit["id"]: hit["entity"] for hit in answer}
                known |= found
                theirs = np.array(list(found), dtype=np.int64)
                rows = np.array([hit["semantic"] for hit in found.values()], dtype=np.float32)
                ours = cosines(np.broadcast_to(queries[row], rows.shape), rows)
                matches = best(ours[None], theirs[None], k)
                scores[row], ids[row] = matches[0][0], matches[1][0]
                # the product in single precision may have left out an item that it cannot tell from the last match
                if len(found) < number and ours.min() >= scores[row, -1] - error:
                    again.append(row)
            wider = min(4 * width, number, _MOST)
            unsure = np.array(again if wider > width else [], dtype=np.int64)
            width = wider
        return scores, ids, known

    def _name_of(self, label: int) -> str:
        if label < 0:
            return ""
        return self.class_names[label] if self.class_names else str(label)

    def _labels_of(self, gallery: Gallery) -> np.ndarray:
        """Labels of new images in the numbers of the collection, which gets their classes by name."""
        labelled = self.client.query(self.collection, filter="label >= 0", output_fields=["id"], limit=1)
        names, labels = join_classes(self.class_names, bool(labelled), gallery.class_names, gallery.labels)
        if names[: len(self.class_names)] != self.class_names:
            self.client.delete(self._about, filter="id >= 1")
            self.class_names = ()
        new = names[len(self.class_names) :]
        self._write_about([(1 + len(self.class_names) + at, name) for at, name in enumerate(new)])
        self.class_names = names
        return labels

    @property
    def _about(self) -> str:
        return f"{self.collection}_about"

    def _write_about(self, rows: Sequence[tuple[int, str]]) -> None:
        for start in range(0, len(rows), _BATCH):
            part = [{"id": i, "text": text, "unused": [1.0, 0.0]} for i, text in rows[start : start + _BATCH]]
            self.client.upsert(self._about, part)

    def _read_about(self) -> list[str]:
        texts: list[str] = []
        while True:
            wanted = f"id >= {len(texts)} and id < {len(texts) + _BATCH}"
            rows = self.client.query(self._about, filter=wanted, output_fields=["id", "text"])
            texts += [row["text"] for row in sorted(rows, key=lambda row: row["id"])]
            if len(rows) < _BATCH:
                return texts


def _column(ids: np.ndarray, hits: dict[int, Any], name: str, kind: Any) -> np.ndarray:
    """What Milvus holds in a field of the images `ids` (Q, k)."""
    values = np.empty(ids.shape, dtype=kind)
    values.ravel()[:] = [hits[i][name] for i in ids.ravel().tolist()]
    return values


def _connect(uri: str | Path, token: str) -> Any:
    try:
        from pymilvus import MilvusClient
    except ImportError as error:
        raise ImportError('galleries in Milvus need pymilvus: pip install "idml-hf[milvus]"') from error
    return MilvusClient(str(uri), token=token)


def _create_collection(client: Any, name: str, schema: Any, vector: str) -> None:
    index = client.prepare_index_params()
    index.add_index(vector, index_type="FLAT", metric_type="IP")
    client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong")


def _is_address(uri: str | Path) -> bool:
    return "://" in str(uri)


def _folder(uri: str | Path) -> Path:
    """What the path of a local model is relative to: the file's folder, or the working folder for a server."""
    return Path.cwd() if _is_address(uri) else Path(uri).absolute().parent


__all__ = ["IDMLMilvusIndex"]
