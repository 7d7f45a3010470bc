"""What the campaign against the files works on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_standin import Hub, running_hub
from PIL import Image

from idml_hf import IDMLImageProcessor, IDMLModel


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    IDMLModel.from_backbone("test_resnet", pretrained=False, embedding_dim=8, image_size=32).save_pretrained(folder)
    IDMLImageProcessor.from_backbone("test_resnet", 32).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six classes of four pictures each."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for label in "abcdef":
        (folder / label).mkdir()
        base = random.integers(0, 255, (4, 4, 3))
        for number in range(4):
            pixels = np.clip(np.kron(base, np.ones((10, 10, 1))) + random.normal(0, 40, (40, 40, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / label / f"{number}.png")
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as hub:
        hub.here(monkeypatch, tmp_path / "home")
        yield hub
