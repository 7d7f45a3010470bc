"""Folders of images: what counts as a class, what is left out and said so, and images that cannot be read."""

from __future__ import annotations

import io
import logging

import dataset_replicas as replicas
import numpy as np
import PIL.Image
import pytest

from idml_hf.data import (
    UnreadableImageError,
    find_bad_images,
    load_classification_data,
    load_images,
    load_retrieval_data,
)
from idml_hf.data import (
    unreadable_images as checking,
)


@pytest.fixture
def folder(tmp_path):
    """Four classes of three images."""
    for label, name in enumerate(["ant", "bee", "cow", "dog"]):
        for i in range(3):
            replicas.save(tmp_path / "animals" / name / f"{i}.jpg", 10 * label + i)
    return tmp_path / "animals"


def jpeg(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def test_first_half_of_the_classes_trains(folder):
    data = load_retrieval_data(folder)
    assert data.train.class_names == ("ant", "bee") and data.test.class_names == ("cow", "dog")
    assert data.train.labels.tolist() == data.test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.test.original_labels.tolist() == [2, 2, 2, 3, 3, 3]
    assert data.train.paths == [str(folder / name / f"{i}.jpg") for name in ("ant", "bee") for i in range(3)]
    assert (data.protocol, data.validation, data.train.groups) == ("plain", None, None)
    assert data.describe() == f"{folder}: train 6 images of 2 classes, test 6 images of 2 classes"
    assert data.summary()["test"] == {"images": 6, "classes": 2}


def test_train_and_test_folders_are_used(folder, caplog):
    for name in ("ant", "bee", "fox"):
        replicas.save(folder / "train" / name / "0.png", 1)
    for name in ("elk", "fox"):
        replicas.save(folder / "test" / name / "0.png", 2)
    data = load_retrieval_data(folder)
    assert data.train.class_names == ("ant", "bee", "fox") and data.test.class_names == ("elk", "fox")
    assert "1 of 2 test classes are also training classes (fox)" in caplog.text
    replicas.save(folder / "val" / "gnu" / "0.png", 3)
    assert load_retrieval_data(folder).validation.class_names == ("gnu",)
    assert len(load_images(folder, "all")) == 6
    assert load_images(folder).class_names == ("elk", "fox")
    assert load_images(folder, "validation").class_names == ("gnu",)


def test_load_images_takes_a_plain_folder_as_one_collection(folder):
    assert len(load_images(folder)) == 12
    assert load_images(folder, "test").class_names == ("cow", "dog")
    flat = load_images(folder / "ant")
    assert flat.labels.tolist() == [-1, -1, -1] and flat.num_classes == 0
    assert flat[0].mode == "RGB" and flat.paths == [str(folder / "ant" / f"{i}.jpg") for i in range(3)]
    assert len(load_images(folder / "ant", "test")) == 3
    with pytest.raises(ValueError, match="unknown split 'tset'"):
        load_images(folder, "tset")
    with pytest.raises(ValueError, match="has no validation split"):
        load_images(folder, "validation")
    with pytest.raises(ValueError, match="no classes: put those of each class into a folder of their own"):
        load_retrieval_data(folder / "ant")


def test_empty_class_folders_and_loose_images_are_named(folder, caplog):
    (folder / "cat").mkdir()
    (folder / ".cache").mkdir()
    (folder / "ant" / "notes.txt").write_text("no image")
    data = load_retrieval_data(folder)
    assert data.train.class_names == ("ant", "bee")
    assert "no image in the class folder cat" in caplog.text and "cache" not in caplog.text
    replicas.save(folder / "loose.jpg", 5)
    images = load_images(folder)
    assert images.num_classes == 4 and images.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, -1]
    data = load_retrieval_data(folder)
    assert len(data.train) == len(data.test) == 6 and "1 images have no class and are left out" in caplog.text
    assert len(load_classification_data(folder).train) == 8


def test_one_image_classes_are_kept_with_a_warning(folder, caplog):
    replicas.save(folder / "aardvark" / "0.jpg", 99)
    data = load_retrieval_data(folder)
    assert data.train.class_names == ("aardvark", "ant")
    assert "1 training classes have one image" in caplog.text and "aardvark" in caplog.text


def test_too_few_classes(folder):
    with pytest.raises(ValueError, match="1 classes cannot be split"):
        for name in ("bee", "cow", "dog"):
            for path in (folder / name).iterdir():
                path.unlink()
        load_retrieval_data(folder)
    (folder / "nothing").mkdir()
    with pytest.raises(ValueError, match="has no images"):
        load_images(folder / "nothing")


def test_symbolic_links(folder, tmp_path):
    elsewhere = replicas.save(tmp_path / "elsewhere" / "0.jpg", 7).parent
    (folder / "eel").symlink_to(elsewhere)
    assert "eel" in load_images(folder).class_names
    (folder / "ant" / "loop").symlink_to(folder)
    with pytest.raises(ValueError, match=r"ant/loop is a symbolic link back to .*animals, which contains it"):
        load_images(folder)
    (folder / "ant" / "loop").unlink()
    for name in ("ant/self.jpg", "self"):
        link = folder / name
        link.symlink_to(link)
        with pytest.raises(ValueError, match=r"self(\.jpg)? is a symbolic link that leads back to itself"):
            load_images(folder)
        link.unlink()
    (folder / "ant" / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UnreadableImageError, match=r"dangling\.jpg cannot be opened \(No such file"):
        load_images(folder)


ODD_BUT_FINE = {
    "one.png": lambda: PIL.Image.new("RGB", (1, 1)),
    "grey.png": lambda: PIL.Image.new("L", (4, 4), 9),
    "rgba.png": lambda: PIL.Image.new("RGBA", (4, 4)),
    "grey_alpha.png": lambda: PIL.Image.new("LA", (4, 4)),
    "palette.gif": lambda: PIL.Image.new("P", (4, 4)),
    "bits.png": lambda: PIL.Image.new("1", (4, 4)),
    "cmyk.jpg": lambda: PIL.Image.new("CMYK", (4, 4)),
    "deep.png": lambda: PIL.Image.new("I;16", (4, 4)),
}


def test_odd_images_are_fine(folder):
    for name, make in ODD_BUT_FINE.items():
        make().save(folder / "bee" / name)
    images = load_images(folder)
    for index in np.flatnonzero(images.labels == 1):
        assert images[index].mode == "RGB"
        pixels = images.tensor(index)
        assert pixels.shape[0] == 3 and pixels.shape[1:] == images[index].size[::-1]


def damaged(folder):
    """Write images that cannot be read; give their paths and what is said of each."""
    whole = jpeg(replicas.picture(3, (64, 64)))
    files = {
        "ant/cut.jpg": (whole[: len(whole) // 2], "truncated"),
        "bee/text.jpg": (b"I am no picture", "not an image in a known format"),
        "bee/zero.png": (b"", "is empty"),
        "cow/header.jpg": (whole[:20], "cannot be decoded|broken header|not an image"),
    }
    for name, (content, _) in files.items():
        (folder / name).write_bytes(content)
    return {str(folder / name): reason for name, (_, reason) in files.items()}


def test_unreadable_images_are_listed_once_and_skipped_on_demand(folder, caplog):
    bad = damaged(folder)
    found = find_bad_images(load_images(folder, check_images=False))
    assert {image.id for image in found} == set(bad)
    with pytest.raises(UnreadableImageError) as error:
        load_retrieval_data(folder)
    lines = str(error.value).splitlines()
    assert lines[0] == "4 of 16 images cannot be read:" and "--skip-bad-images" in lines[-1]
    for line, (path, reason) in zip(lines[1:-1], sorted(bad.items()), strict=True):
        assert line.startswith(f"  {path} ")
        assert any(part in line for part in reason.split("|"))
    data = load_retrieval_data(folder, skip_bad_images=True)
    assert len(data.train) == len(data.test) == 6
    assert "Going on without these: 4 of 16 images cannot be read" in caplog.text
    unchecked = load_retrieval_data(folder, check_images=False).train
    with pytest.raises(UnreadableImageError, match=r"ant/cut\.jpg cannot be decoded"):
        [unchecked.tensor(i) for i in range(len(unchecked))]
    with pytest.raises(UnreadableImageError, match=r"ant/cut\.jpg cannot be decoded"):
        [unchecked[i] for i in range(len(unchecked))]


def test_long_lists_of_unreadable_images_are_cut(folder):
    for i in range(25):
        (folder / "ant" / f"bad{i:02d}.jpg").write_bytes(b"x")
    with pytest.raises(UnreadableImageError) as error:
        load_images(folder)
    assert "... and 5 more" in str(error.value) and "bad19" in str(error.value) and "bad20" not in str(error.value)


def test_a_class_without_readable_images_is_said_to_be_lost(folder, caplog):
    for path in (folder / "ant").iterdir():
        path.write_bytes(b"")
    data = load_retrieval_data(folder, skip_bad_images=True)
    assert data.train.class_names == ("bee",) and data.train.labels.tolist() == [0, 0, 0]
    assert "No readable image is left of 1 classes: ant" in caplog.text


def test_decompression_bombs_are_refused(folder, monkeypatch):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1000)
    PIL.Image.new("L", (100, 100)).save(folder / "ant" / "bomb.png")
    PIL.Image.new("L", (100, 100)).save(folder / "ant" / "bomb.webp", lossless=True)
    with pytest.raises(UnreadableImageError, match=r"bomb\.png is too large, possibly a decompression bomb"):
        load_images(folder)


def test_a_jpeg_with_its_end_marker_is_not_decoded_unless_thorough(tmp_path, monkeypatch):
    whole = jpeg(replicas.picture(0, (64, 64)))
    decoded = []
    monkeypatch.setattr(checking, "decode_pil", decoded.append)
    checking.check_bytes(whole)
    checking.check_bytes(whole + b"\0\0")
    assert not decoded
    checking.check_bytes(whole[:-1])
    checking.check_bytes(whole, thorough=True)
    assert len(decoded) == 2


def test_validation_classes_are_held_out_by_the_seed(folder):
    def held_out(seed):
        data = load_retrieval_data(folder, validation_fraction=0.5, seed=seed)
        assert set(data.train.class_names) | set(data.validation.class_names) == {"ant", "bee"}
        assert set(data.train.labels) == set(data.validation.labels) == {0}
        return data.validation.class_names

    assert held_out(0) == held_out(0)
    assert {held_out(seed) for seed in range(8)} == {("ant",), ("bee",)}
    with pytest.raises(ValueError, match="validation_fraction"):
        load_retrieval_data(folder, validation_fraction=1.5)


def test_classification_of_a_folder_holds_out_images_of_each_class(folder):
    data = load_classification_data(folder, test_fraction=0.34, validation_fraction=0.5)
    assert data.class_names == data.validation.class_names == data.test.class_names == ("ant", "bee", "cow", "dog")
    for images in (data.train, data.validation, data.test):
        assert np.bincount(images.labels).tolist() == [1, 1, 1, 1]
    everything = [*data.train.paths, *data.validation.paths, *data.test.paths]
    assert len(set(everything)) == 12
    with pytest.raises(ValueError, match="have no classes"):
        load_classification_data(folder / "ant")


def test_classification_refuses_test_classes_that_are_not_trained(folder):
    replicas.save(folder / "train" / "ant" / "0.png", 1)
    replicas.save(folder / "test" / "elk" / "0.png", 2)
    with pytest.raises(ValueError, match=r"1 of 1 test classes are not trained \(elk\)"):
        load_classification_data(folder)


def test_csv_metadata_gives_classes_and_groups(tmp_path):
    for i in range(6):
        replicas.save(tmp_path / "images" / f"{i}.png", i)
    rows = "".join(f"images/{i}.png,{'abc'[i // 2]},{'xy'[i % 2]}\n" for i in range(6))
    (tmp_path / "metadata.csv").write_text("file_name,label,camera\n" + rows)
    data = load_retrieval_data(tmp_path, group_column="camera")
    assert data.train.class_names == ("a",) and data.test.class_names == ("b", "c")
    assert data.protocol == "grouped:camera"
    assert [data.test.group_names[group] for group in data.test.groups] == ["x", "y", "x", "y"]
    assert load_retrieval_data(tmp_path, label_column="camera").train.class_names == ("x",)
    with pytest.raises(ValueError, match=r"has no column 'lens'; its columns: file_name, label, camera"):
        load_retrieval_data(tmp_path, group_column="lens")
    (tmp_path / "metadata.csv").write_text("file_name,label\nimages/0.png,a\nimages/1.png,\n")
    with pytest.raises(ValueError, match=r"metadata\.csv, line 3: no label"):
        load_retrieval_data(tmp_path)


def test_groups_need_a_table(folder):
    with pytest.raises(ValueError, match=r"no metadata\.csv with a column 'camera'"):
        load_retrieval_data(folder, group_column="camera")


def test_progress_and_log_go_through_logging_not_print(folder, capsys, caplog):
    (folder / "cat").mkdir()
    with caplog.at_level(logging.WARNING, logger="idml_hf.data"):
        load_retrieval_data(folder)
    assert capsys.readouterr().out == ""
    assert all(record.name == "idml_hf.data" for record in caplog.records) and caplog.records


def test_one_process_of_several_shows_the_progress_bar(folder, capsys, monkeypatch):
    images = load_images(folder)
    for rank, shown in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        find_bad_images(images, progress=True)
        assert ("Checking images" in capsys.readouterr().err) == shown
