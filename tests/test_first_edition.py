"""What the first edition saved - a model with its loss, a classifier, an index - still loads, bit for bit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from idml_hf import (
    IDMLForImageClassification,
    IDMLForMetricLearning,
    IDMLImageProcessor,
    IDMLIndex,
    IDMLModel,
)

SAVED = Path(__file__).parent / "fixtures" / "first_edition"


@pytest.fixture(scope="module")
def expected():
    with np.load(SAVED / "expected.npz") as arrays:
        return dict(arrays)


@pytest.fixture(autouse=True)
def one_thread():
    # the order of additions depends on the number of threads
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@torch.no_grad()
@pytest.mark.parametrize("kind", [IDMLModel, IDMLForMetricLearning])
def test_embeddings(expected, kind):
    out = kind.from_pretrained(SAVED / "metric_learning")(torch.from_numpy(expected["pixel_values"]))
    assert np.array_equal(out.semantic_embeds.numpy(), expected["semantic"])
    assert np.array_equal(out.uncertainty_embeds.numpy(), expected["uncertainty_embeds"])


@torch.no_grad()
def test_logits(expected):
    model = IDMLForImageClassification.from_pretrained(SAVED / "classifier")
    assert np.array_equal(model(torch.from_numpy(expected["pixel_values"])).logits.numpy(), expected["logits"])


def test_preprocessing(expected):
    processor = IDMLImageProcessor.from_pretrained(SAVED / "metric_learning")
    pictures = [Image.fromarray(picture) for picture in expected["pictures"]]
    assert np.array_equal(processor(pictures, return_tensors="pt").pixel_values.numpy(), expected["processed"])


def test_search(expected):
    index = IDMLIndex.load(SAVED / "index")
    queries = expected["queries"], expected["query_uncertainty"]
    result = index.search_embeddings(*queries, k=5, error_rate=0.2)
    assert np.array_equal(result.ids, expected["ids"])
    assert np.array_equal(result.scores, expected["scores"])
    assert np.array_equal(result.confidence, expected["confidence"])
    assert np.array_equal(result.abstained, expected["abstained"])
    result = index.search_embeddings(*queries, k=5, metric="introspective")
    assert np.array_equal(result.ids, expected["introspective_ids"])
    assert np.array_equal(result.scores, expected["introspective_scores"])
