"""ImageNet-1k (ILSVRC 2012) as folders of WordNet ids (Russakovsky et al., 2015)."""

from __future__ import annotations

from pathlib import Path

from idml_hf.data.annotation_files import locate
from idml_hf.data.folders import has_class_folders, read_class_folders
from idml_hf.data.image_set import ImageSet


def read_imagenet(root: Path) -> dict[str, ImageSet]:
    """Read `train/` and `val/`, each with one folder a WordNet id (`n01440764`); classes in the order of their ids.

    The 50,000 validation images are the test set, as is usual: the labels of the official test images are secret.

    Raises:
        FileNotFoundError: if `train` or `val` is missing.
        ValueError: if `val` is not sorted into class folders, or has a folder that `train` has not.
    """
    folder = locate(root, "train", "ILSVRC/Data/CLS-LOC")
    validation = locate(folder, "val") / "val"
    if not has_class_folders(validation):
        raise ValueError(
            f"{validation} has no class folders: sort its images into one folder a WordNet id, as in train"
        )
    train = read_class_folders(folder / "train")
    return {"train": train, "test": read_class_folders(validation, list(train.class_names))}
