"""What a run takes from its user: losses and data sets of modules, a share of classes to test on, a fitting batch."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from idml_hf import IDMLModel
from idml_hf.data import load_retrieval_data
from idml_hf.losses import LOSSES, build_loss, is_proxy_loss, loss_class
from idml_hf.training import Run, train
from idml_hf.training.sampler import RandomBatchSampler, fitting_batch_size

MODULE = '''
from idml_hf.data import load_images
from idml_hf.losses.proxy_anchor import ProxyAnchorLoss

class MyLoss(ProxyAnchorLoss):
    """As the one it is made from."""

not_a_loss = 3

def load():
    images = load_images("emoji-mini", "train")
    return images.select(images.labels < 6)

def load_splits():
    images = load_images("emoji-mini", "train")
    last = images.select((images.labels >= 4) & (images.labels < 6))
    return {"train": images.select(images.labels < 4), "test": last}

def load_nothing():
    return [1, 2]
'''
TINY = {"backbone": "test_resnet", "pretrained": False, "image_size": 32, "embedding_dim": 8, "epochs": 1}


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module in the working folder, which is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_parts.py").write_text(MODULE)
    known, path = dict(LOSSES), list(sys.path)
    yield
    sys.modules.pop("my_parts", None)
    sys.path[:] = path
    LOSSES.clear()
    LOSSES.update(known)


def test_a_run_takes_loss_and_data_set_from_a_module(module, tmp_path):
    run = Run(output="out", dataset="my_parts:load", loss="my_parts:MyLoss", **TINY)
    metrics = train(run, progress=False)
    assert metrics["dataset"] == "my_parts:load" and metrics["loss"] == "my_parts:MyLoss"
    assert IDMLModel.from_pretrained("out").config.loss == "my_parts:MyLoss" and is_proxy_loss("my_parts:MyLoss")


def test_a_module_that_only_a_configuration_names_is_not_imported(module):
    with pytest.raises(ValueError, match="imported only where it is asked for"):
        build_loss("my_parts:MyLoss", num_classes=2, embedding_dim=4)
    assert "my_parts" not in sys.modules


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:MyLoss", "there is no module no_such_module"),
        ("my_parts:YourLoss", "module my_parts has no YourLoss"),
        ("my_parts:not_a_loss", "is no loss"),
    ],
)
def test_what_a_module_has_not_is_said(name, message, module):
    with pytest.raises((ImportError, ValueError), match=message):
        loss_class(name, trusted=True)


def test_the_splits_of_a_function(module):
    whole, split = load_retrieval_data("my_parts:load"), load_retrieval_data("my_parts:load_splits")
    assert (whole.train.num_classes, whole.test.num_classes) == (3, 3)
    assert (split.train.num_classes, split.test.num_classes) == (4, 2)
    with pytest.raises(ValueError, match="must give an ImageSet"):
        load_retrieval_data("my_parts:load_nothing")


@pytest.mark.parametrize(("fraction", "train_classes"), [(0, 480), (0.25, 360), (0.999, 1), (0.0001, 479)])
def test_a_share_of_all_classes_tests(fraction, train_classes):
    data = load_retrieval_data("emoji-mini", test_fraction=fraction)
    assert (data.train.num_classes, data.test.num_classes) == (train_classes, 480 - train_classes)
    assert not set(data.train.class_names) & set(data.test.class_names)
    assert len(data.train) + len(data.test) == 2300 + 2279
    assert ("test" in data.describe()) == bool(fraction)


def test_all_classes_train_and_nothing_is_measured(module, caplog):
    metrics = train(Run(output="out", dataset="my_parts:load", test_fraction=0, **TINY), progress=False)
    assert "recall_at_1" not in metrics and metrics["protocol"] == "grouped:family"
    assert json.loads(Path("out/metrics.json").read_text()) == metrics
    assert IDMLModel.from_pretrained("out").config.embedding_dim == 8
    assert "IDML" in Path("out/README.md").read_text(encoding="utf-8")


@given(st.integers(1, 3000), st.integers(1, 300), st.sampled_from([1, 4]), st.integers(1, 4))
def test_a_fitting_batch_leaves_out_less(number, wanted, multiple, processes):
    fitting = fitting_batch_size(number, wanted, multiple, processes)
    assert 1 <= fitting <= max(wanted, multiple)
    left_out = [number % (size * processes) if number > size * processes else 0 for size in (wanted, fitting)]
    if fitting != wanted:
        assert number % (wanted * processes) > number / 10
        assert number // (fitting * processes) > number // (wanted * processes)
    if multiple == processes == 1:
        assert left_out[1] <= max(number / 10, number // fitting)


def test_the_batch_is_said_and_no_picture_of_an_epoch_is_left_out(caplog):
    size = fitting_batch_size(179, 120)
    seen = np.unique([draw.index for batch in RandomBatchSampler(179, size) for draw in batch])
    assert size == 89 and len(seen) == 178


def test_a_tracker_that_is_not_installed_is_named(module, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs the package wandb: pip install 'idml-hf\[wandb\]'"):
        train(Run(output="out", dataset="my_parts:load", report_to="wandb", **TINY), progress=False)
