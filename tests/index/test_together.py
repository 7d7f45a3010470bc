"""Several pictures of one thing as one query."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from idml_hf import IDMLIndex, IDMLModel
from idml_hf.cli import main
from idml_hf.data import load_images
from idml_hf.index.together import one_query
from idml_hf.search.arrays import unit_rows


def test_pictures_count_by_the_inverse_of_their_uncertainty() -> None:
    random = np.random.default_rng(0)
    s, u = unit_rows(random.normal(size=(3, 8)), "rows"), random.random((3, 4)).astype(np.float32)
    uncertainty = np.linalg.norm(u, axis=1)
    for power in (0.0, 0.5, 1.0, 3.0):
        joined, doubt = one_query(s, u, uncertainty.min(), power)
        weight = uncertainty**-power
        expected = (weight[:, None] * s).sum(0)
        assert joined[0] == pytest.approx(expected / np.linalg.norm(expected), abs=1e-6)
        assert doubt[0] == pytest.approx(weight @ u / weight.sum(), abs=1e-6)
    plain = one_query(s, u, 1.0, 0.0)[0][0]
    assert plain == pytest.approx(s.mean(0) / np.linalg.norm(s.mean(0)), abs=1e-6)


def test_good_pictures_count_alike_and_bad_ones_half() -> None:
    s, u = np.eye(4, dtype=np.float32), np.array([[0.1], [1.0], [4.0], [400.0]])
    joined = one_query(s, u, typical=1.0)[0][0]
    assert joined / joined[0] == pytest.approx([1, 1, 0.5, 0.5])


def test_neither_their_order_nor_the_scale_of_the_uncertainty_matters() -> None:
    random = np.random.default_rng(1)
    s, u = unit_rows(random.normal(size=(4, 6)), "rows"), random.random((4, 2))
    once, again = one_query(s, u, 0.5)[0], one_query(s[::-1], 1000 * u[::-1], 500.0)[0]
    assert once == pytest.approx(again, abs=1e-6)
    # a single picture is itself
    assert one_query(s[:1], u[:1], 0.5)[0] == pytest.approx(s[:1], abs=1e-6)


def test_without_uncertainty_all_count_alike_and_opposites_leave_the_most_certain() -> None:
    s = np.eye(2, dtype=np.float32)
    assert one_query(s, np.zeros((2, 1)), 0.0)[0] == pytest.approx(np.full((1, 2), 0.5**0.5), abs=1e-6)
    opposites = np.array([[1.0, 0.0], [-1.0, 0.0]], dtype=np.float32)
    assert one_query(opposites, np.array([[0.9], [0.8]]), 1.0)[0] == pytest.approx(opposites[1:], abs=1e-6)
    with pytest.raises(ValueError, match="no pictures"):
        one_query(s[:0], np.zeros((0, 1)), 1.0)


def test_an_index_answers_once_for_all_pictures(tmp_path, capsys) -> None:
    images = load_images("emoji-mini", split="test").select(range(60))
    folder = tmp_path / "model"
    IDMLModel.from_backbone("test_efficientnet", pretrained=False, embedding_dim=16, image_size=48).save_pretrained(
        folder
    )
    index = IDMLIndex.build(folder, images, progress=False)
    index.save(tmp_path / "index")
    alone = index.search([images[3], images[4]], k=60)
    result = index.search([images[3], images[4]], k=4, together=True)
    assert result.ids.shape == (1, 4) and result.queries == ("0 + 1",)
    # equal to the search with the weighted mean, done by hand
    rows = {int(i): at for at, i in enumerate(index.gallery.ids)}
    s, u = one_query(
        index.gallery.semantic[[3, 4]],
        index.gallery.uncertainty_embeds[[3, 4]],
        float(np.median(index.gallery.uncertainty)),
    )
    by_hand = np.argsort(-(s @ index.gallery.semantic.T)[0], kind="stable")[:4]
    assert [rows[i] for i in result.ids[0].tolist()] == by_hand.tolist()
    # directions that differ take from the length of their mean
    assert 0 < result.uncertainty[0] <= alone.uncertainty.max() + 1e-4
    assert np.linalg.norm(u) == pytest.approx(result.uncertainty[0], rel=1e-3)
    paths = []
    for at in (3, 4):
        paths.append(str(tmp_path / f"{at}.png"))
        images[at].save(paths[-1])
    sheet = tmp_path / "sheet.png"
    with pytest.raises(SystemExit) as stop:
        main(
            ["search", str(tmp_path / "index"), *paths, "--together", "--json", "--top-k", "3", "--sheet", str(sheet)]
        )
    assert not stop.value.code
    printed = capsys.readouterr().out
    assert printed.count('"query"') == 1 and "3.png + " in printed
    with Image.open(sheet) as image:
        assert image.width > image.height  # one row: both pictures, then their matches
