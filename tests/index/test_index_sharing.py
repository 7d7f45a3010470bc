from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hub_standin import USER, Hub, running_hub
from PIL import Image

from idml_hf import IDMLImageProcessor, IDMLIndex, IDMLModel


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with running_hub() as hub:
        hub.here(monkeypatch, tmp_path / "home")
        yield hub


def pictures(number: int) -> list[Image.Image]:
    return [Image.effect_noise((40, 40), 10 * (i + 1)).convert("RGB") for i in range(number)]


def saved_model(folder: Path) -> IDMLModel:
    IDMLModel.from_backbone("test_efficientnet", pretrained=False, embedding_dim=8).save_pretrained(folder)
    IDMLImageProcessor.from_backbone("test_efficientnet", image_size=32).save_pretrained(folder)
    return IDMLModel.from_pretrained(folder)


def test_an_index_goes_to_the_hub_and_back_with_its_model(hub: Hub, tmp_path: Path) -> None:
    images = pictures(5)
    index = IDMLIndex.build(saved_model(tmp_path / "model"), images, progress=False)
    paths = pa.array(["/home/me/cat.png", *(f"{tmp_path}/{i}.png" for i in range(3)), "b/3.png"])
    index.gallery = replace(index.gallery, paths=paths)
    index.push_to_hub(f"{USER}/gallery")
    (tmp_path / "model").rename(tmp_path / "gone")
    pulled = IDMLIndex.load(f"{USER}/gallery")
    assert pulled.search(images[2], k=3).ids.tolist() == index.search(images[2], k=3).ids.tolist()
    files = hub.files(f"{USER}/gallery", "dataset")
    assert b"5 images" in files["README.md"] and not any("lock" in name for name in files)
    assert pulled.gallery.paths.to_pylist() == ["cat.png", "0.png", "1.png", "2.png", "b/3.png"]
    index.remove([4])
    index.push_to_hub(f"{USER}/gallery")
    files = hub.files(f"{USER}/gallery", "dataset")
    assert sum(name.endswith("semantic.npy") for name in files) == 1
    assert len(IDMLIndex.load(f"{USER}/gallery")) == 4


def test_a_model_on_the_hub_is_named_by_id_and_revision(hub: Hub, tmp_path: Path) -> None:
    from huggingface_hub import HfApi

    saved_model(tmp_path / "model")
    HfApi().create_repo(f"{USER}/model")
    HfApi().upload_folder(repo_id=f"{USER}/model", folder_path=tmp_path / "model")
    index = IDMLIndex.build(f"{USER}/model", pictures(3), progress=False)
    assert index.reference.on_hub and index.reference.revision
    index.push_to_hub(f"{USER}/gallery")
    assert not any("model" in name for name in hub.files(f"{USER}/gallery", "dataset"))
    pulled = IDMLIndex.load(f"{USER}/gallery")
    assert pulled.reference == index.reference
    assert pulled.search(pictures(3)[1], k=1).ids.shape == (1, 1)


def test_an_index_inside_a_model_repository(hub: Hub, tmp_path: Path) -> None:
    from huggingface_hub import HfApi

    model = saved_model(tmp_path / "run")
    IDMLIndex.build(model, pictures(3), progress=False).save(tmp_path / "run" / "index")
    HfApi().create_repo(f"{USER}/run")
    HfApi().upload_folder(repo_id=f"{USER}/run", folder_path=tmp_path / "run")
    assert IDMLIndex.load(f"{USER}/run").search(pictures(3)[0], k=2).ids.shape == (1, 2)


def test_a_space_holds_the_page_the_index_and_the_model(hub: Hub, tmp_path: Path) -> None:
    index = IDMLIndex.build(saved_model(tmp_path / "model"), pictures(3), progress=False)
    index.push_space(f"{USER}/demo")
    files = hub.files(f"{USER}/demo", "space")
    for path, content in files.items():
        (tmp_path / "space" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "space" / path).write_bytes(content)
    assert b"sdk: gradio" in files["README.md"] and b"idml-hf[app" in files["requirements.txt"]
    compile(files["app.py"], "app.py", "exec")
    here = IDMLIndex.load(tmp_path / "space" / "index")
    assert here.reference.location == str(tmp_path / "space" / "index" / "model")
    assert here.search(pictures(3)[0], k=1).ids.shape == (1, 1)
    hub.repositories["space", f"{USER}/demo"].add(files | {"README.md": b"my own words"})
    index.push_space(f"{USER}/demo")
    files = hub.files(f"{USER}/demo", "space")
    assert files["README.md"] == b"my own words"
    assert sum(name.endswith("semantic.npy") for name in files) == 1


def test_what_is_not_there_is_said(hub: Hub, tmp_path: Path) -> None:
    from huggingface_hub import HfApi

    with pytest.raises(FileNotFoundError, match="nor a repository of that name"):
        IDMLIndex.load(f"{USER}/nothing")
    HfApi().create_repo(f"{USER}/empty", repo_type="dataset")
    with pytest.raises(FileNotFoundError, match="holds no index"):
        IDMLIndex.load(f"{USER}/empty")
    with pytest.raises(ValueError, match="public: make it private first"):
        IDMLIndex.from_embeddings(np.eye(2)).push_to_hub(f"{USER}/empty", private=True)
    with pytest.raises(FileNotFoundError, match="holds no index"):
        IDMLIndex.load(tmp_path / "nowhere")
