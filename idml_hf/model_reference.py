"""Which model made some embeddings, and how to get it again."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from .modeling_idml import IDMLModel, IDMLPreTrainedModel


class ModelMismatchError(ValueError):
    """The model is not the one that embedded the images of the index."""


def weights_sha256(model: torch.nn.Module) -> str:
    """Hash of a model's parameters and buffers, by name, type, shape and content."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@dataclass(frozen=True)
class ModelReference:
    """Where a model is, and the hash of its weights.

    Args:
        weights: `weights_sha256` of the [`IDMLModel`], or None if the embeddings come from elsewhere.
        location: Hub id, path of a folder, or None if the model was only in memory.
        revision: commit on the Hub.
        on_hub: whether `location` is a Hub id.
    """

    weights: str | None = None
    location: str | None = None
    revision: str | None = None
    on_hub: bool = False

    @classmethod
    def of(cls, model: IDMLModel, source: IDMLPreTrainedModel | str | Path | None = None) -> ModelReference:
        """Reference to a model as it is now.

        Args:
            model: the model.
            source: what it was loaded from. Given a Hub id, the commit is known; a model that comes in memory does not
                say which it is.
        """
        location = model.name_or_path or None
        if location is not None and os.path.isdir(location):
            return cls(weights_sha256(model), os.path.abspath(location))
        # what is neither a folder nor in the cache may be a folder that has gone, whose name is no Hub id
        commit = _cached_commit(location)
        if commit is None:
            return cls(weights_sha256(model))
        return cls(weights_sha256(model), location, commit if source == location else None, on_hub=True)

    def relative_to(self, folder: Path) -> dict[str, Any]:
        """As JSON for an index saved in `folder`: a local model by its path from there, so that both can be moved."""
        location = self.location
        if location is not None and not self.on_hub:
            try:
                location = Path(os.path.relpath(location, folder)).as_posix()
            except ValueError:  # another drive
                location = Path(location).as_posix()
        return {
            "location": location,
            "revision": self.revision,
            "on_hub": self.on_hub,
            "weights_sha256": self.weights,
        }

    @classmethod
    def from_json(cls, entry: dict[str, Any], folder: Path) -> ModelReference:
        """The reference that `relative_to(folder)` wrote.

        Raises:
            ValueError: if `entry` is anything else.
        """
        kinds = {"location": str | None, "revision": str | None, "on_hub": bool, "weights_sha256": str | None}
        if not isinstance(entry, dict) or any(not isinstance(entry.get(name), kind) for name, kind in kinds.items()):
            raise ValueError("it does not say which model it was made by")
        location = entry["location"]
        if location is not None and not entry["on_hub"]:
            location = os.path.normpath(folder.absolute() / location)
        return cls(entry["weights_sha256"], location, entry["revision"], entry["on_hub"])

    def check(self, model: IDMLModel) -> IDMLModel:
        """Return `model` if its weights are those of the reference.

        Raises:
            ModelMismatchError: if they are not.
        """
        if self.weights is not None and (found := weights_sha256(model)) != self.weights:
            raise ModelMismatchError(
                f"the model {model.name_or_path or 'given'} (weights {found[:12]}) is not the one that made the index "
                f"({self.location or 'unnamed'}, weights {self.weights[:12]}): their embeddings cannot be compared"
            )
        return model

    def load(self) -> IDMLModel:
        """Load the model.

        Raises:
            ValueError: if it is not known where the model is.
            FileNotFoundError: if its folder is gone.
            ModelMismatchError: if it has changed since.
        """
        if self.location is None:
            raise ValueError("the index does not say where its model is: give it as model=")
        if not self.on_hub and not os.path.isdir(self.location):
            raise FileNotFoundError(
                f"the model of the index is not at {self.location} any more: give its new place as model="
            )
        return self.check(load_model(self.location, self.revision))


def _cached_commit(repo_id: str | None) -> str | None:
    try:
        path = None if repo_id is None or os.path.isdir(repo_id) else try_to_load_from_cache(repo_id, "config.json")
    except HFValidationError:
        return None
    return Path(path).parent.name if isinstance(path, str) else None


def load_model(source: IDMLPreTrainedModel | str | Path, revision: str | None = None) -> IDMLModel:
    """An [`IDMLModel`] from a folder, a Hub id, or any model of the family.

    Raises:
        FileNotFoundError: if `source` looks like a folder and is none.
    """
    if isinstance(source, IDMLPreTrainedModel):
        return cast(IDMLModel, source.base_model)
    name = str(source)
    if not os.path.isdir(name) and (
        name.count("/") > 1 or name.startswith((".", "/", "~")) or isinstance(source, Path)
    ):
        raise FileNotFoundError(f"there is no model folder {name}")
    return IDMLModel.from_pretrained(name, revision=revision) if revision else IDMLModel.from_pretrained(name)


__all__ = ["ModelMismatchError", "ModelReference", "load_model", "weights_sha256"]
