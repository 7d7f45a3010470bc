"""What the pages start from: pictures, a model, a Hub."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_standin import USER, Hub, running_hub

from idml_hf import IDMLImageProcessor, IDMLModel
from idml_hf.data import ImageSet, load_images


@pytest.fixture(scope="session")
def beginning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that docs/how-to/index.md describes, with a small model that has learnt nothing."""
    folder = tmp_path_factory.mktemp("beginning")
    images = load_images("emoji-mini", split="train")
    write_class_folders(images, range(16), folder / "photos")
    write_class_folders(images, range(16, 24), folder / "more-photos")
    for name, row in zip(("picture.png", "another.png"), np.flatnonzero(images.labels == 30), strict=False):
        images[int(row)].save(folder / name)
    torch.manual_seed(0)
    model = IDMLModel.from_backbone("test_resnet", pretrained=False, embedding_dim=128, image_size=48)
    model.save_pretrained(folder / "demo")
    IDMLImageProcessor.from_backbone("test_resnet", image_size=48).save_pretrained(folder / "demo")
    return folder


def write_class_folders(images: ImageSet, classes: range, folder: Path) -> None:
    """Write the pictures of some classes, a folder each."""
    for label in classes:
        name = re.sub(r"\W+", "-", images.class_names[label])
        (folder / name).mkdir(parents=True)
        for number, at in enumerate(np.flatnonzero(images.labels == label)):
            images[int(at)].save(folder / name / f"{number}.png")


@pytest.fixture
def workspace(beginning: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the beginning, as the working folder."""
    shutil.copytree(beginning, tmp_path / "workspace")
    monkeypatch.chdir(tmp_path / "workspace")
    return tmp_path / "workspace"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub that this process is logged in to, with an empty cache."""
    with running_hub() as hub:
        hub.here(monkeypatch, tmp_path / "home")
        yield hub


@pytest.fixture
def organisation() -> str:
    """The organisation on that Hub that takes the place of `org`."""
    return USER
