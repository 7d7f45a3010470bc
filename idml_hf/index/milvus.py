"""A gallery that lives in Milvus: in a local file (Milvus Lite) or in a cluster, by the same code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from idml_hf.embedding import embed_dataset
from idml_hf.image_processing_idml import IDMLImageProcessor
from idml_hf.modeling_idml import IDMLModel

from .gallery import Gallery, unit_rows
from .index import IDMLIndex
from .model_reference import ModelReference, load_model, processor_of
from .queries import read_queries
from .results import SearchResult

_BATCH = 1000  # rows sent or asked for at a time
_SLACK = 8  # candidates beyond k, to be scored again in double precision
_MAX_TEXT = 65_535


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
        self.class_names: list[str] = []
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
        gallery.class_names = about[1:]
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
        labels = self._labels_of(gallery)
        uncertainty = np.linalg.norm(gallery.uncertainty_embeds, axis=1)
        for start in range(0, len(gallery), _BATCH):
            rows = range(start, min(start + _BATCH, len(gallery)))
            self.client.upsert(
                self.collection,
                [
                    {
                        "id": int(gallery.ids[row]),
                        "semantic": np.asarray(gallery.semantic[row]),
                        "uncertainty": float(uncertainty[row]),
                        "label": int(labels[row]),
                        "path": gallery.paths[row].as_py(),
                    }
                    for row in rows
                ],
            )

    def remove(self, ids: Sequence[int]) -> None:
        """Take images out by their ids."""
        self.client.delete(self.collection, ids=[int(i) for i in ids])

    def search(self, images: Any, k: int = 5, *, batch_size: int = 64) -> SearchResult:
        """The best matches of images, as [`IDMLIndex.search`] finds them."""
        queries, names = read_queries(images)
        if self.processor is None:
            self.processor = processor_of(self.model, self.reference.revision)
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
        number = len(self)
        if k < 1 or not number:
            raise ValueError(f"k must be at least 1, got {k}" if k < 1 else "the gallery is empty")
        k = min(k, number)
        hits = self.client.search(
            self.collection,
            [row for row in semantic],
            limit=min(k + _SLACK, number),
            output_fields=["semantic", "uncertainty", "label", "path"],
        )
        rows = [_best(query, found, k) for query, found in zip(semantic, hits, strict=True)]
        labels = np.array([[hit["label"] for _, hit in row] for row in rows])
        no_uncertainty = np.zeros(len(semantic), dtype=np.float32)
        return SearchResult(
            ids=np.array([[hit["id"] for _, hit in row] for row in rows]),
            scores=np.array([[score for score, _ in row] for row in rows]),
            labels=labels,
            names=np.array([[self._name_of(label) for label in row] for row in labels.tolist()], dtype=object),
            paths=np.array([[hit["path"] for _, hit in row] for row in rows], dtype=object),
            match_uncertainty=np.array([[hit["uncertainty"] for _, hit in row] for row in rows], dtype=np.float32),
            uncertainty=no_uncertainty if uncertainty_embeds is None else np.linalg.norm(uncertainty_embeds, axis=1),
            queries=tuple(queries),
        )

    def _name_of(self, label: int) -> str:
        if label < 0:
            return ""
        return self.class_names[label] if self.class_names else str(label)

    def _labels_of(self, gallery: Gallery) -> np.ndarray:
        if not gallery.class_names:
            return gallery.labels
        known = {name: label for label, name in enumerate(self.class_names)}
        renumbered = np.array([known.setdefault(name, len(known)) for name in gallery.class_names])
        new = list(known)[len(self.class_names) :]
        self._write_about([(1 + len(self.class_names) + at, name) for at, name in enumerate(new)])
        self.class_names += new
        return np.where(gallery.labels < 0, -1, renumbered[gallery.labels])

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


def _best(query: np.ndarray, hits: Any, k: int) -> list[tuple[float, dict[str, Any]]]:
    """The best `k` hits by cosine in double precision, ties by the smaller id."""
    found = [{"id": hit["id"], **hit["entity"]} for hit in hits]
    rows = np.array([hit["semantic"] for hit in found], dtype=np.float32).astype(np.float64)
    scores = rows @ query.astype(np.float64) / np.linalg.norm(rows, axis=1) / np.linalg.norm(query.astype(np.float64))
    scores = np.minimum(np.round(scores * 2.0**40) / 2.0**40, 1)
    order = np.lexsort(([hit["id"] for hit in found], -scores))[:k]
    return [(float(scores[at]), found[at]) for at in order]


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
