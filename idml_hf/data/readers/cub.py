"""CUB-200-2011 as its authors pack it (Wah et al., 2011)."""

from __future__ import annotations

from pathlib import Path

from idml_hf.data.annotation_files import locate, path_below, read_rows
from idml_hf.data.image_set import ImageSet


def read_cub(root: Path) -> dict[str, ImageSet]:
    """Read `images.txt`, `image_class_labels.txt` and `classes.txt`; the images lie in `images/`.

    The official train and test images are joined: they share all classes, which zero-shot retrieval splits anew.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: naming an image without a class, an unknown class, or a path that leads out of `images/`.
    """
    folder = locate(root, "images.txt", "CUB_200_2011")
    images_file, labels_file = folder / "images.txt", folder / "image_class_labels.txt"
    names = {class_id: name for class_id, name in read_rows(folder / "classes.txt", ("class_id", "class_name"))}
    number = {class_id: label for label, class_id in enumerate(sorted(names, key=int))}
    class_of = dict(read_rows(labels_file, ("image_id", "class_id")))
    paths, labels = [], []
    for image_id, relative in read_rows(images_file, ("image_id", "image_name")):
        if image_id not in class_of:
            raise ValueError(f"{labels_file}: image {image_id} ({relative}) has no class")
        if class_of[image_id] not in number:
            raise ValueError(f"{labels_file}: image {image_id} has class {class_of[image_id]}, unknown to classes.txt")
        paths.append(path_below(folder / "images", relative, images_file))
        labels.append(number[class_of[image_id]])
    return {"all": ImageSet.from_files(paths, labels, [names[class_id] for class_id in number])}
