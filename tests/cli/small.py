"""A small model, a folder of pictures, and the command line in this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from idml_hf import IDMLImageProcessor, IDMLModel
from idml_hf.cli import main
from idml_hf.data import load_images


def run(*arguments) -> int:
    """Run the command line; gives its exit status."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code or 0


def save_model(folder: Path) -> Path:
    IDMLModel.from_backbone("test_resnet", pretrained=False, embedding_dim=8).save_pretrained(folder)
    IDMLImageProcessor.from_backbone("test_resnet", image_size=32).save_pretrained(folder)
    return folder


def save_photos(folder: Path, classes: range, images_per_class: int = 3) -> Path:
    """Class folders, whose names have square brackets."""
    images = load_images("emoji-mini", "test")
    for label in classes:
        (folder / f"class [{label}]").mkdir(parents=True)
        for number, at in enumerate(np.flatnonzero(images.labels == label)[:images_per_class]):
            images[int(at)].save(folder / f"class [{label}]" / f"{number}.png")
    return folder
