from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import load_dataset

from idml_hf import IDMLIndex, IDMLModel, embedding_shards
from idml_hf.data import ImageSet, load_images
from idml_hf.embedding_shards import embed_to_shards


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return load_images("emoji-mini", split="test").select(range(25))


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    model = IDMLModel.from_backbone("test_efficientnet", pretrained=False, embedding_dim=8, image_size=32)
    model.save_pretrained(folder)
    return folder


def test_shards_hold_what_an_index_built_at_once_holds(images: ImageSet, model_folder: Path, tmp_path: Path) -> None:
    files = embed_to_shards(model_folder, images, tmp_path, shard_size=10, progress=False)
    assert [file.name for file in files] == [f"embeddings-0000{i}-of-00003.parquet" for i in range(3)]
    index = IDMLIndex.from_shards(tmp_path)
    whole = IDMLIndex.build(model_folder, images, progress=False)
    assert np.abs(index.gallery.semantic - whole.gallery.semantic).max() < 1e-6
    assert np.abs(index.gallery.uncertainty_embeds - whole.gallery.uncertainty_embeds).max() < 1e-6
    assert index.gallery.labels.tolist() == whole.gallery.labels.tolist()
    found, expected = index.search(images[12], k=3), whole.search(images[12], k=3)
    assert found.ids.tolist() == expected.ids.tolist()
    assert found.names.tolist() == expected.names.tolist()
    assert found.paths.tolist() == expected.paths.tolist()
    rows = load_dataset(
        "parquet", data_files=[str(file) for file in files], split="train", cache_dir=str(tmp_path / "c")
    )
    assert (
        len(rows) == 25 and len(rows[0]["semantic"]) == 8 and rows[0]["class"] == images.class_names[images.labels[0]]
    )


def test_a_run_that_was_stopped_goes_on_with_what_is_missing(
    images: ImageSet, model_folder: Path, tmp_path: Path
) -> None:
    files = embed_to_shards(model_folder, images, tmp_path, shard_size=10, progress=False)
    written = [file.stat().st_mtime_ns for file in files]
    files[1].rename(files[1].with_name(files[1].name + ".part"))
    with pytest.raises(FileNotFoundError, match="lacks 1 of 3 shards, as embeddings-00001"):
        IDMLIndex.from_shards(tmp_path)
    embed_to_shards(model_folder, images, tmp_path, shard_size=10, progress=False)
    assert [file.stat().st_mtime_ns == before for file, before in zip(files, written, strict=True)] == [
        True,
        False,
        True,
    ]
    assert len(IDMLIndex.from_shards(tmp_path)) == 25


def test_other_images_and_other_models_do_not_mix(images: ImageSet, model_folder: Path, tmp_path: Path) -> None:
    embed_to_shards(model_folder, images, tmp_path, shard_size=10, progress=False)
    with pytest.raises(ValueError, match="other images"):
        embed_to_shards(model_folder, images.select(range(20)), tmp_path, shard_size=10, progress=False)
    torch.manual_seed(1)
    other = IDMLModel.from_backbone("test_efficientnet", pretrained=False, embedding_dim=8, image_size=32)
    with pytest.raises(ValueError, match="another model"):
        embed_to_shards(other, images, tmp_path, shard_size=10, progress=False)
    with pytest.raises(FileNotFoundError, match="holds no embeddings"):
        IDMLIndex.from_shards(tmp_path / "nowhere")


def test_a_run_that_is_started_twice_writes_whole_shards(
    images: ImageSet, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run begins and ends while the first one writes its first shard."""
    write, parts = embedding_shards.pq.write_table, []

    def write_while_another_does(table: Any, path: Path) -> None:
        parts.append(path)
        if len(parts) == 1:
            embed_to_shards(model_folder, images, tmp_path, shard_size=10, progress=False)
        write(table, path)

    monkeypatch.setattr(embedding_shards.pq, "write_table", write_while_another_does)
    embed_to_shards(model_folder, images, tmp_path, shard_size=10, progress=False)
    assert len(parts) == len(set(parts)) == 4
    assert len(list(tmp_path.iterdir())) == 4 and len(IDMLIndex.from_shards(tmp_path)) == 25


def test_a_damaged_shard_is_named(images: ImageSet, model_folder: Path, tmp_path: Path) -> None:
    files = embed_to_shards(model_folder, images, tmp_path, shard_size=10, progress=False)
    files[1].write_bytes(files[1].read_bytes()[:-9])
    with pytest.raises(
        ValueError, match=r"embeddings-00001-of-00003\.parquet is damaged .*run the same command again"
    ):
        IDMLIndex.from_shards(tmp_path)


SCRIPT = """
    import sys
    from idml_hf.data import load_images
    from idml_hf.embedding_shards import embed_to_shards

    images = load_images("emoji-mini", split="test").select(range(25))
    files = embed_to_shards(sys.argv[1], images, sys.argv[2], shard_size=4, progress=False)
    assert all(file.exists() for file in files) and len(files) == 7
"""


@pytest.mark.slow
def test_two_processes_of_accelerate_share_the_work(images: ImageSet, model_folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    command = [*launch, "--mixed_precision", "no", "--dynamo_backend", "no", str(script)]
    subprocess.run(
        [*command, str(model_folder), str(tmp_path / "out")], check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"}
    )
    index = IDMLIndex.from_shards(tmp_path / "out")
    whole = IDMLIndex.build(model_folder, images, progress=False)
    assert np.abs(index.gallery.semantic - whole.gallery.semantic).max() < 1e-6
