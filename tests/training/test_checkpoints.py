"""Checkpoints and the folder of a run: what counts as whole, what a run goes on with, what is left after a fault."""

from __future__ import annotations

import json
import logging
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import TrainerCallback
from transformers.utils import logging as transformers_logging

from idml_hf import IDMLModel
from idml_hf.data import ImageSet, RetrievalData
from idml_hf.training import Run, tasks, train
from idml_hf.training import run as run_module
from idml_hf.training.checkpoints import is_whole, last_complete_checkpoint, remove_checkpoints

FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")


def checkpoint(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    save_file({"a": torch.zeros(100)}, path / "model.safetensors")
    for name in FILES[1:4]:
        torch.save({"a": torch.zeros(100)}, path / name)
    (path / "trainer_state.json").write_text('{"global_step": 3}')
    return path


class TestWhole:
    def test_the_newest_whole_one_is_taken(self, tmp_path):
        assert last_complete_checkpoint(tmp_path / "none") is None
        for step in (2, 10, 9):
            checkpoint(tmp_path, step)
        assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
        (tmp_path / "checkpoint-12").mkdir()
        (tmp_path / "checkpoint-best").mkdir()
        assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-10"

    @pytest.mark.parametrize("name", FILES)
    def test_without_a_part_it_is_not_whole(self, tmp_path, name):
        whole = checkpoint(tmp_path, 1)
        assert is_whole(whole)
        (whole / name).unlink()
        assert not is_whole(whole)

    @pytest.mark.parametrize("name", FILES)
    def test_with_half_a_part_it_is_not_whole(self, tmp_path, name):
        content = (checkpoint(tmp_path, 0) / name).read_bytes()
        for i, length in enumerate(range(0, len(content), max(1, len(content) // 7)), 1):
            other = checkpoint(tmp_path, i)
            (other / name).write_bytes(content[:length])
            assert not is_whole(other), length

    def test_weights_in_several_files(self, tmp_path):
        whole = checkpoint(tmp_path, 1)
        (whole / "model.safetensors").rename(whole / "model-1-of-2.safetensors")
        shutil.copy(whole / "model-1-of-2.safetensors", whole / "model-2-of-2.safetensors")
        index = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
        (whole / "model.safetensors.index.json").write_text(json.dumps(index))
        assert is_whole(whole)
        (whole / "model-2-of-2.safetensors").unlink()
        assert not is_whole(whole)

    def test_a_kill_while_checkpoints_are_removed(self, tmp_path, monkeypatch):
        """Wherever it hits, nothing is left that a run would try to go on from."""
        real = shutil.rmtree
        for kept in range(len(FILES)):
            folder = tmp_path / str(kept) / "checkpoints"
            checkpoint(folder, 5)

            def die(path, *args, kept=kept, **kwargs):
                for file in sorted(Path(path).rglob("*.*"))[kept:]:
                    file.unlink()
                if Path(path).exists():
                    raise KeyboardInterrupt

            monkeypatch.setattr(shutil, "rmtree", die)
            with pytest.raises(KeyboardInterrupt):
                remove_checkpoints(folder)
            monkeypatch.setattr(shutil, "rmtree", real)
            assert last_complete_checkpoint(folder) is None and not folder.exists()
            remove_checkpoints(folder)
            assert not list(folder.parent.iterdir())


def pictures(classes=6, per_class=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), per_class)
    pixels = rng.integers(0, 255, (len(labels), 32, 32, 3)).astype(np.uint8)
    return ImageSet.from_arrays(pixels, labels, [f"class {i}" for i in range(classes)], f"noise {seed}")


@pytest.fixture
def data(monkeypatch):
    """What runs of the data set "noise" load; a test may put other images into it."""
    made = {"train": pictures(), "test": pictures(3, 3, seed=1)}
    load = lambda *a, **k: RetrievalData("noise", made["train"], None, made["test"], None)  # noqa: E731
    monkeypatch.setattr(tasks, "load_retrieval_data", load)
    return made


def run_of(output, **settings):
    defaults = {"dataset": "noise", "backbone": "test_resnet", "pretrained": False, "image_size": 32}
    defaults |= {"embedding_dim": 8, "epochs": 2, "batch_size": 8, "save_steps": 2, "trainer": {"use_cpu": True}}
    return Run(output=str(output), **(defaults | settings))


class Stop(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise KeyboardInterrupt


@pytest.fixture
def interrupted(tmp_path, data, monkeypatch):
    """A run that was interrupted in its third step, after a checkpoint."""
    build = run_module.build_trainer

    def build_and_stop(*args):
        trainer = build(*args)
        trainer.add_callback(Stop())
        return trainer

    monkeypatch.setattr(run_module, "build_trainer", build_and_stop)
    with pytest.raises(KeyboardInterrupt):
        train(run_of(tmp_path / "run"), progress=False)
    monkeypatch.setattr(run_module, "build_trainer", build)
    return tmp_path / "run"


class TestResume:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"learning_rate": 0.1}, r"learning_rate was 0\.0006, is 0\.1"),
            ({"method": "plain"}, r"form was 'ratio', is 'none'"),
            ({"trainer": {"use_cpu": True, "clip_grad_value": 1.0}}, "trainer was"),
            ({"epochs": 3, "seed": 1}, "epochs was 2, is 3; seed was 0, is 1"),
        ],
    )
    def test_other_settings_are_refused_by_name(self, interrupted, settings, message):
        with pytest.raises(ValueError, match=rf"was started otherwise: .*{message}"):
            train(run_of(interrupted, resume=True, **settings), progress=False)
        assert last_complete_checkpoint(interrupted / "checkpoints")

    @pytest.mark.parametrize("other", [pictures(6, 5), pictures(6, 4).select(np.arange(23, -1, -1))])
    def test_other_data_are_refused(self, interrupted, data, other):
        data["train"] = other
        with pytest.raises(ValueError, match=r"training data were 24 images of 6 classes, are (30|24) of 6"):
            train(run_of(interrupted, resume=True), progress=False)

    def test_what_differs_between_machines_may_differ(self, interrupted):
        train(run_of(interrupted, resume=True, save_steps=5, root="elsewhere"), progress=False)
        assert (interrupted / "metrics.json").exists() and not (interrupted / "checkpoints").exists()

    def test_a_finished_run_is_left_alone(self, tmp_path, data, caplog):
        first = train(run_of(tmp_path), progress=False)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        # as if it had been killed while it removed its checkpoints
        (tmp_path / ".retired-checkpoints" / "checkpoint-1").mkdir(parents=True)
        transformers_logging.enable_propagation()
        try:
            with caplog.at_level(logging.WARNING):
                again = train(run_of(tmp_path, resume=True), progress=False)
        finally:
            transformers_logging.disable_propagation()
        assert "is finished; --overwrite makes it anew" in caplog.text
        assert again == json.loads(json.dumps(first))
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    def test_a_failed_evaluation_loses_no_training(self, tmp_path, data, monkeypatch):
        whole = train(run_of(tmp_path / "whole"), progress=False)
        with monkeypatch.context() as patch:
            patch.setattr(tasks.RetrievalTask, "test", lambda *args: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                train(run_of(tmp_path / "run"), progress=False)
        saved = IDMLModel.from_pretrained(tmp_path / "run").state_dict()
        assert not (tmp_path / "run" / "metrics.json").exists()
        # nothing is trained again
        monkeypatch.setattr(run_module.TASKS["retrieval"].trainer_class, "training_step", lambda *a, **k: 1 / 0)
        metrics = train(run_of(tmp_path / "run", resume=True), progress=False)
        assert metrics["recall_at_1"] == whole["recall_at_1"]
        resumed, other = (IDMLModel.from_pretrained(tmp_path / n).state_dict() for n in ("run", "whole"))
        assert all(torch.equal(saved[k], resumed[k]) and torch.equal(saved[k], other[k]) for k in saved)

    def test_an_overwritten_run_that_was_interrupted_goes_on(self, tmp_path, data, interrupted):
        """The results of the run before do not make it a finished one."""
        train(run_of(tmp_path / "old"), progress=False)
        shutil.copy(tmp_path / "old" / "metrics.json", interrupted)
        with pytest.raises(FileExistsError, match="holds a run already"):
            train(run_of(interrupted), progress=False)
        train(run_of(interrupted, resume=True), progress=False)
        a, b = (IDMLModel.from_pretrained(folder).state_dict() for folder in (tmp_path / "old", interrupted))
        assert all(torch.equal(a[k], b[k]) for k in a)


class TestFolder:
    def test_labels_are_checked_before_training(self, tmp_path, data, monkeypatch):
        data["test"] = pictures(5, 1)
        monkeypatch.setattr(run_module, "build_model", lambda *args: pytest.fail("training began"))
        with pytest.raises(ValueError, match="noise, test images: no image has another one of its class"):
            train(run_of(tmp_path), progress=False)

    def test_a_write_that_fails_leaves_the_old_results(self, tmp_path, data, monkeypatch):
        train(run_of(tmp_path), progress=False)
        before = {name: (tmp_path / name).read_bytes() for name in ("run.json", "README.md", "training_curve.png")}
        with monkeypatch.context() as patch:

            def full(*args, **kwargs):
                raise OSError(28, "No space left on device")

            patch.setattr(run_module, "write_model_card", full)
            with pytest.raises(OSError, match="No space left"):
                train(run_of(tmp_path, overwrite=True, seed=1), progress=False)
        assert {name: (tmp_path / name).read_bytes() for name in before} == before
        # the new model is there, and results of another one are not called its own
        assert not (tmp_path / "metrics.json").exists() and not list(tmp_path.glob(".arriving*"))
        train(run_of(tmp_path, resume=True, seed=1), progress=False)
        assert json.loads((tmp_path / "run.json").read_text())["run"]["seed"] == 1

    @pytest.mark.parametrize("umask", [0o022, 0o007])
    def test_files_take_the_mode_that_the_umask_says(self, tmp_path, data, umask):
        before = os.umask(umask)
        try:
            train(run_of(tmp_path, epochs=1), progress=False)
        finally:
            os.umask(before)
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert len(files) > 6
        assert {oct(stat.S_IMODE(path.stat().st_mode)) for path in files} == {oct(0o666 & ~umask)}

    def test_ones_own_card_is_left_alone(self, tmp_path, data):
        (tmp_path / "README.md").write_text("mine")
        train(run_of(tmp_path, epochs=1), progress=False)
        assert (tmp_path / "README.md").read_text() == "mine" and (tmp_path / "metrics.json").exists()
