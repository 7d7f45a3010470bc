"""Building, adding, removing and replacing images as users have them: paths, folders, tables of `datasets`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from idml_hf import IDMLIndex, IDMLModel

OPTIONS: dict[str, Any] = {"progress": False, "batch_size": 8}


@pytest.fixture(scope="module")
def model() -> IDMLModel:
    return IDMLModel.from_backbone("test_efficientnet", pretrained=False, embedding_dim=8, image_size=32)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(random.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


def a_table(photos: list[Path]) -> datasets.Dataset:
    return datasets.Dataset.from_dict(
        {
            "picture": [str(path) for path in photos],
            "kind": [0, 1, 0, 1, 0, 1],
            "shop": ["A", "B", "A", None, "B", "A"],
            "price": [1.5, 2.0, None, 4.0, 5.0, 6.0],
            "season": [1, 0, 1, 0, 1, 0],
            "words": [["x"]] * 6,
        },
        features=datasets.Features(
            {
                "picture": datasets.Image(),
                "kind": datasets.ClassLabel(names=["ant", "bee"]),
                "shop": datasets.Value("string"),
                "price": datasets.Value("float32"),
                "season": datasets.ClassLabel(names=["summer", "winter"]),
                "words": datasets.List(datasets.Value("string")),
            }
        ),
    )


def test_a_table_of_datasets_gives_classes_and_metadata(model: IDMLModel, photos: list[Path], tmp_path: Path) -> None:
    table = a_table(photos).select([4, 2, 1]).rename_column("kind", "label")
    index = IDMLIndex.build(model, table, **OPTIONS)
    assert [index.gallery.name_of(label) for label in index.gallery.labels] == ["ant", "ant", "bee"]
    found = {name: column.to_pylist() for name, column in index.gallery.metadata.items()}
    assert found == {"shop": ["B", "A", "B"], "price": [5.0, None, 2.0], "season": ["winter", "winter", "summer"]}
    ids = index.add(a_table(photos).select([0]).rename_column("kind", "label"), metadata={"price": [9]}, **OPTIONS)
    assert ids.tolist() == [3]
    index.save(tmp_path / "index")
    index = IDMLIndex.load(tmp_path / "index", model=model)
    result = index.search(photos[0], k=4, where={"shop": "A", "season": "winter"})
    assert set(result.ids[0].tolist()) == {1, 3} and result.ids[0, 0] == 3
    assert result.to_dicts()[0]["matches"][0]["metadata"] == {"shop": "A", "price": 9.0, "season": "winter"}


def test_a_metadata_file_gives_metadata(model: IDMLModel, photos: list[Path]) -> None:
    lines = [f"{path.name},{'ab'[at % 2]},{'' if at == 2 else at},red" for at, path in enumerate(photos)]
    (photos[0].parent / "metadata.csv").write_text("\n".join(["file_name,label,stock,colour", *lines]))
    index = IDMLIndex.build(model, photos[0].parent, **OPTIONS)
    assert index.gallery.metadata["stock"].to_pylist() == ["0", "1", None, "3", "4", "5"]
    assert index.search(photos[1], k=1, where={"stock": ["1", "3"]}).ids.tolist() == [[1]]
    assert set(index.search(photos[1], k=6, where={"class": "b", "colour": "red"}).ids[0].tolist()) == {1, 3, 5}


def test_paths_are_added_found_removed_and_replaced(
    model: IDMLModel, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = IDMLIndex.build(model, [str(path) for path in photos[:3]], **OPTIONS)
    assert index.gallery.paths.to_pylist() == [str(path) for path in photos[:3]]
    assert index.add([photos[3]], **OPTIONS).tolist() == [3]
    assert index.add(photos[4], metadata={"shop": ["A"]}, **OPTIONS).tolist() == [4]
    before = index.search(photos, k=1).ids[:5, 0].tolist()
    assert before == [0, 1, 2, 3, 4]
    Image.new("RGB", (40, 40), "red").save(photos[1])
    ids = index.upsert([photos[5], photos[1]], metadata={"shop": ["B", "C"]}, **OPTIONS)
    assert ids.tolist() == [5, 1] and len(index) == 6
    result = index.search([photos[1], photos[5]], k=1)
    assert result.ids.tolist() == [[1], [5]] and result.metadata["shop"].tolist() == [["C"], ["B"]]
    assert result.scores == pytest.approx(1)
    monkeypatch.chdir(photos[0].parent)
    index.remove([photos[0].name, photos[2]])
    assert sorted(index.gallery.ids.tolist()) == [1, 3, 4, 5]
    with pytest.raises(KeyError, match=r"no image with path 0\.png"):
        index.remove(photos[0].name)
    for images in ([photos[3], photos[3]], [Image.new("RGB", (9, 9))]):
        with pytest.raises(ValueError, match="each needs one of its own"):
            index.upsert(images, **OPTIONS)
    with pytest.raises(FileNotFoundError, match="there is no image nowhere"):
        index.add(["nowhere.png"], **OPTIONS)
    assert len(index) == 4


@pytest.mark.parametrize("engine", ["ivf", "hnsw"])
def test_an_engine_follows_what_is_replaced(engine: str, model: IDMLModel, photos: list[Path]) -> None:
    pytest.importorskip("faiss")
    index = IDMLIndex.build(model, photos, **OPTIONS)
    index.use_engine(engine)
    Image.new("RGB", (40, 40), "red").save(photos[1])
    index.upsert(photos[1], **OPTIONS)
    result = index.search(photos, k=1)
    assert result.ids[:, 0].tolist() == [0, 1, 2, 3, 4, 5] and result.scores == pytest.approx(1)


def test_what_cannot_be_replaced_leaves_everything_as_it_was(model: IDMLModel, photos: list[Path]) -> None:
    index = IDMLIndex.build(model, photos[:2], metadata={"shop": ["A", "B"]}, **OPTIONS)
    index.use_engine("flat")
    with pytest.raises(ValueError, match="'shop' holds int64 here"):
        index.upsert([photos[1], photos[2]], metadata={"shop": [1, 2]}, **OPTIONS)
    assert index.gallery.ids.tolist() == [0, 1] and index.search(photos[1], k=1).ids.tolist() == [[1]]
    index.add(photos[2], **OPTIONS)
    assert index.gallery.ids.tolist() == [0, 1, 2]
