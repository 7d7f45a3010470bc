"""Cars196 (Stanford Cars) with `cars_annos.mat` (Krause et al., 2013)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.io import loadmat

from idml_hf.data.annotation_files import locate, path_below
from idml_hf.data.image_set import ImageSet


def read_cars(root: Path) -> dict[str, ImageSet]:
    """Read `cars_annos.mat`, which lists all 16,185 images, below the folder with `car_ims/`.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if it is no such file, or naming an image without a class, or with a path that leads out of the
            folder.
    """
    folder = locate(root, "cars_annos.mat", "cars196", "CARS196", "stanford_cars")
    source = folder / "cars_annos.mat"
    try:
        content = loadmat(source, squeeze_me=True)
        annotations = np.atleast_1d(content["annotations"])
        names = [str(name) for name in np.atleast_1d(content["class_names"])]
        stated = [(str(path), np.ravel(label)) for path, label in annotations[["relative_im_path", "class"]]]
    except Exception as error:
        raise ValueError(f"{source} is not the annotation file of Cars196 ({error})") from error
    paths, labels = [], []
    for relative, label in stated:
        if label.size != 1 or not 1 <= int(label[0]) <= len(names):
            raise ValueError(f"{source}: image {relative} has no class from 1 to {len(names)}")
        paths.append(path_below(folder, relative, source))
        labels.append(int(label[0]) - 1)
    return {"all": ImageSet.from_files(paths, labels, names)}
