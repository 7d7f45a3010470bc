"""A folder of images, and whether the folders in it are splits or classes."""

from __future__ import annotations

import logging
from pathlib import Path

from idml_hf.errors import listing

from .decoding import path_text
from .folders import class_folders, has_class_folders, has_images, read_class_folders, read_flat_folder
from .image_set import ImageSet
from .metadata_files import METADATA, metadata_file, read_metadata_folder
from .split_names import labelled_splits, one_a_split, split_of

logger = logging.getLogger("idml_hf.data")


def read_folder(
    path: Path, label_column: str | None, group_column: str | None, need_labels: bool = True
) -> dict[str, ImageSet]:
    """Split -> images of a folder; `all` where it has no splits, or a single one.

    Folders that are called like splits (`train`, `Test`, `dev`, ...) are splits if classes, or a metadata file, lie in
    one of them, or if there are no other folders. A lone `train` of plain images among other folders is a class.

    Args:
        path: the folder.
        label_column: column of a metadata file with the class; default: `label`.
        group_column: column of a metadata file with the group, or None.
        need_labels: whether a metadata file without that column is an error.

    Raises:
        ValueError: if there are no images, no metadata file to group by, or folders of which one cannot tell whether
            they are splits or classes.
    """
    columns = label_column, group_column, need_labels
    filled = [folder for folder in class_folders(path) if has_images(folder) or metadata_file(folder)]
    named = [folder for folder in filled if split_of(folder.name)]
    others = [path_text(folder.name) for folder in filled if not split_of(folder.name)]
    structured = [folder for folder in named if metadata_file(folder) or has_class_folders(folder)]
    if metadata_file(path) and not structured:
        return labelled_splits(read_metadata_folder(path, *columns), str(path))
    names = [folder.name for folder in named]
    lone = len(named) == 1 and others
    if not named or (lone and not structured and split_of(names[0]) == "train"):
        return {"all": _collection(path, *columns)}
    if lone or (others and not structured):
        raise ValueError(
            f"{path} has {listing(names)}, called like splits, beside {listing(others)}, called like classes: move "
            "one kind of folders elsewhere, or rename them"
        )
    if others:
        logger.warning("%s is split into %s; left out beside them: %s", path, listing(names), listing(others))
    splits = {split: _collection(path / name, *columns) for split, name in one_a_split(names, str(path)).items()}
    splits = labelled_splits(splits, str(path))
    if list(splits) == ["train"]:
        logger.warning(
            "%s has no split but %s, so it has none: half of its classes train and the others test, unless "
            "--test-fraction says otherwise (0 trains on all)",
            path,
            names[0],
        )
    return {"all": next(iter(splits.values()))} if len(splits) == 1 else splits


def _collection(folder: Path, label_column: str | None, group_column: str | None, need_labels: bool) -> ImageSet:
    if metadata_file(folder):
        splits = read_metadata_folder(folder, label_column, group_column, need_labels)
        if list(splits) != ["all"]:
            raise ValueError(f"{folder} has splits in a split")
        return splits["all"]
    if group_column is not None:
        raise ValueError(f"{folder} has no {METADATA[0]} with a column {group_column!r} to group images by")
    return read_class_folders(folder) if has_class_folders(folder) else read_flat_folder(folder)
