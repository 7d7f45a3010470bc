from __future__ import annotations

import base64
import json
import re
from typing import Any

import numpy as np
import pytest
from colored_images import ColoredImages, mean_colors
from PIL import Image
from scipy.stats import spearmanr

from idml_hf.embedding import Embeddings
from idml_hf.evaluation import (
    RetrievalEvaluator,
    clustering_metrics,
    rank,
    retrieval_metrics,
    retrieval_sheet,
    uncertainty_metrics,
)
from idml_hf.evaluation.corruptions import CORRUPTIONS, CorruptedImages
from idml_hf.evaluation.robustness import robustness_metrics
from idml_hf.metric_tables import metric_tables


def embeddings_of(seed: int = 0, number: int = 60) -> tuple[Embeddings, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 8, number)
    x = (np.eye(8)[labels] + 0.5 * rng.standard_normal((number, 8))).astype(np.float32)
    norm = np.linalg.norm(x, axis=1)
    u = rng.random((number, 4)).astype(np.float32)
    return Embeddings(x / norm[:, None], u, np.linalg.norm(u, axis=1), norm), labels, rng.integers(0, 2, number)


def test_metrics_are_those_of_the_functions() -> None:
    embeddings, labels, groups = embeddings_of()
    metrics = RetrievalEvaluator(clustering=True)(embeddings, labels)
    assert metrics["protocol"] == "plain" and metrics["ranking"] == "cosine"
    parts = (
        retrieval_metrics(embeddings.semantic, labels),
        uncertainty_metrics(embeddings.semantic, embeddings.uncertainty, labels, norms=embeddings.semantic_norm),
        clustering_metrics(embeddings.semantic, labels),
    )
    for part in parts:
        assert metrics.items() >= part.items()

    grouped = RetrievalEvaluator(group_column="artist")(embeddings, labels, groups)
    assert grouped["protocol"] == "grouped:artist" and "nmi" not in grouped
    assert grouped.items() >= retrieval_metrics(embeddings.semantic, labels, groups=groups).items()
    plain = {f"plain_{key}": value for part in parts[:2] for key, value in part.items()}
    assert grouped.items() >= plain.items()
    assert grouped["recall_at_1"] < grouped["plain_recall_at_1"]


def test_undefined_is_none_because_json_has_no_nan() -> None:
    embeddings, labels, _ = embeddings_of()
    constant = Embeddings(
        embeddings.semantic, embeddings.uncertainty_embeds, np.ones(60, np.float32), embeddings.semantic_norm
    )
    metrics = RetrievalEvaluator()(constant, labels)
    assert metrics["r_auroc"] is None and metrics["uncertainty_is_constant"] is True
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_introspective_ranking_is_recorded() -> None:
    embeddings, labels, _ = embeddings_of()
    metrics = RetrievalEvaluator(metric="introspective", tau=2.0)(embeddings, labels)
    assert metrics["ranking"] == "introspective"
    expected = retrieval_metrics(
        embeddings.semantic, labels, metric="introspective", uncertainty=embeddings.uncertainty_embeds, tau=2.0
    )
    assert metrics.items() >= expected.items()


@pytest.fixture
def evaluated() -> Any:
    images = ColoredImages()
    noise = [Image.new("RGB", (24, 24), "white")] * 5
    evaluator = RetrievalEvaluator(robustness_images=20)
    return images, evaluator.evaluate_images(mean_colors, images, ood_images=noise, side=24)


def test_model_is_evaluated_with_robustness_and_ood(evaluated: Any) -> None:
    _, evaluation = evaluated
    metrics = evaluation.metrics
    assert metrics["protocol"] == "grouped:maker" and metrics["robustness_images"] == 20
    # This "model" takes smooth pictures for uncertain ones.
    assert metrics["corruption_spearman_blur"] > 0.9 and metrics["corruption_spearman_downscaling"] > 0.5
    assert metrics["corruption_spearman_noise"] < -0.9
    assert metrics["ood_auroc"] == 1.0
    for name in ("crop_test", "corruption_spearman", *(f"corruption_spearman_{c}" for c in CORRUPTIONS)):
        for suffix in ("", "_max_similarity", "_margin", "_norm", "_knn_distance"):
            assert -1 <= metrics[name + suffix] <= 1
    json.dumps(metrics, allow_nan=False)


@pytest.mark.parametrize("grouped", [False, True])
def test_harder_images_search_the_clean_ones_without_their_own_original(grouped: bool) -> None:
    images = ColoredImages()
    clean = mean_colors(images)
    groups = images.groups if grouped else None
    metrics = robustness_metrics(mean_colors, images, clean, images.labels, groups, number=12, seed=3)
    indices = np.sort(np.random.default_rng(3).permutation(40)[:12])
    hidden = np.arange(40)[None, :] == indices[:, None]
    if grouped:
        same_class = images.labels[indices, None] == images.labels
        hidden |= same_class & (images.groups[indices, None] == images.groups)

    def dissimilarity(corruption: str, severity: int) -> np.ndarray:
        hard = mean_colors(CorruptedImages(images, corruption, severity, 3, indices))
        return -np.where(hidden, -2, hard.semantic @ clean.semantic.T).max(1)

    for corruption in ("occlusion", "mixing"):
        series = np.stack([dissimilarity(corruption, s) for s in range(6)], axis=1)
        expected = np.mean([spearmanr(row, range(6)).statistic for row in series])
        assert metrics[f"corruption_spearman_{corruption}_max_similarity"] == pytest.approx(expected)
    expected = np.mean(dissimilarity("crop", 1) > dissimilarity("crop", 0))
    assert metrics["crop_test_max_similarity"] == pytest.approx(expected)


def test_evaluation_is_repeatable(evaluated: Any) -> None:
    images, first = evaluated
    again = RetrievalEvaluator(robustness_images=20).evaluate_images(mean_colors, images, side=24)
    assert first.metrics.items() >= again.metrics.items()


def test_unlabelled_images_are_refused() -> None:
    images = ColoredImages()
    images.labels = np.where(images.labels == 3, -1, images.labels)
    with pytest.raises(ValueError, match="10 images have no class"):
        RetrievalEvaluator().evaluate_images(mean_colors, images)


def test_report_stands_alone_and_escapes(evaluated: Any, tmp_path: Any) -> None:
    images, evaluation = evaluated
    html = evaluation.report(images, tmp_path / "new" / "report.html", title="<script>x</script>").read_text("utf-8")
    assert "<script>" not in html and "&lt;script&gt;x" in html
    pictures = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", html)
    assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)
    shown = html.count("<figure")
    # each of the 24 most and 24 least certain images, each of up to 12 queries with 6 matches
    assert shown == 24 + 24 + 7 * 12 * (1 + ("Worst mistakes" in html)) and len(pictures) == shown + 3
    assert html.count('aria-label="wrong"') > 0 and html.count('aria-label="right"') > 0
    assert 'name="viewport" content="width=device-width' in html
    rest = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", html)
    assert "http" not in rest and not re.search(r"""(src|href)=["'][^"']""", rest)
    titles = ("Risk against coverage", "Most certain images", "Least certain images", "Retrieval", "Map of the")
    for title in (
        *titles,
        "Ambiguous queries",
        "Images that do not belong",
        "Pairs",
        "Ceiling",
        "Classes found worst",
    ):
        assert title in html
    assert f"{evaluation.metrics['map_at_r']:.4f}" in html
    with pytest.raises(ValueError, match="3 images for an evaluation of 40"):
        evaluation.report([1, 2, 3], tmp_path / "report.html")


def test_tables_hold_every_signal(evaluated: Any) -> None:
    tables = metric_tables(evaluated[1].metrics)
    retrieval, uncertainty, ambiguous, harder, foreign, ceiling, pairs = tables
    assert [row[0] for row in retrieval.rows] == ["grouped:maker", "plain"]
    names = ["uncertainty", "max similarity", "margin", "embedding norm", "kNN distance"]
    for table in (uncertainty, ambiguous, harder, foreign):
        assert [row[0] for row in table.rows] == names, table.title
    assert [row[0] for row in pairs.rows] == ["introspective distance", "cosine"] and len(ceiling.rows) == 1
    assert all(len(row) == len(table.head) for table in tables for row in table.rows)
    assert "nan" not in str([table.rows for table in tables])


def test_sheet_frames_right_and_wrong() -> None:
    images = [Image.new("RGB", (10, 20), "white")] * 4
    ranking = rank([[1, 0], [1, 0.1], [0.1, 1], [0, 1]], [0, 0, 1, 0], keep=3)
    sheet = retrieval_sheet(images, [0, 3], ranking, [0, 0, 1, 0], uncertainty=np.arange(4.0), matches=3, cell=50)
    pixels = np.asarray(sheet).astype(int)
    green = (pixels == [0x1A, 0x98, 0x50]).all(-1)
    red = (pixels == [0xD7, 0x30, 0x27]).all(-1)
    columns = [slice(12 + 56 * i, 62 + 56 * i) for i in range(4)]
    rows = [slice(6, 56), slice(6 + 75, 56 + 75)]
    framed = [
        ["G" if green[r, c].sum() > 400 else "R" if red[r, c].sum() > 400 else "-" for c in columns] for r in rows
    ]
    # query 0 finds 1 (right), 2 (wrong), 3 (right); query 3 finds 2 (wrong), 1, 0 (right)
    assert framed == [["-", "G", "R", "G"], ["-", "R", "G", "G"]]
