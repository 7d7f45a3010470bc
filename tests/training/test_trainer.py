"""The trainer: it learns, resumes bit by bit after being killed, refuses a broken loss, and agrees with its parts."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Trainer, TrainingArguments

from idml_hf import IDMLForMetricLearning, IDMLImageProcessor, IDMLModel, IDMLTrainer, IDMLTrainingArguments
from idml_hf.data import EvalImages, TrainImages, load_retrieval_data, training_transform
from idml_hf.embedding import embed_dataset
from idml_hf.evaluation import retrieval_metrics
from idml_hf.training import Run, train

SIZE = 32


@pytest.fixture(scope="module")
def data():
    full = load_retrieval_data("emoji-mini", check_images=False)
    # tiny models from random weights learn their own classes, but little that carries over to others
    few = full.train.select(full.train.labels < 24).renumbered()
    return few, few


@pytest.fixture(scope="module")
def processor():
    return IDMLImageProcessor.from_backbone("test_resnet", image_size=SIZE)


def make_model(num_classes=24, **config):
    torch.manual_seed(0)
    return IDMLForMetricLearning.from_backbone(
        "test_resnet", pretrained=False, embedding_dim=32, num_train_classes=num_classes, **config
    )


def make_trainer(output, data, processor, model=None, evaluate=True, **arguments):
    train_images, test = data
    defaults = {
        "per_device_train_batch_size": 32,
        "num_train_epochs": 2,
        "learning_rate": 3e-3,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 2,
        "disable_tqdm": True,
        "use_cpu": True,
    }
    return IDMLTrainer(
        model or make_model(),
        IDMLTrainingArguments(str(output), **(defaults | arguments)),
        train_dataset=TrainImages(train_images, training_transform(SIZE, flip=0), seed=0),
        eval_dataset=EvalImages(test, processor) if evaluate else None,
        processing_class=processor,
    )


def recall(model, processor, images):
    embeddings = embed_dataset(model, processor, images, progress=False, device="cpu")
    return retrieval_metrics(embeddings.semantic, images.labels, groups=images.groups)["recall_at_1"]


def test_it_learns_and_evaluates_by_groups(tmp_path, data, processor):
    trainer = make_trainer(tmp_path, data, processor, make_model(loss="multi_similarity"), num_train_epochs=15)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_recall_at_1"] > before["eval_recall_at_1"] + 0.05
    assert after["eval_protocol"] == "grouped:family"
    expected = recall(trainer.model.idml, processor, data[1])
    assert after["eval_recall_at_1"] == pytest.approx(expected, abs=2e-3)
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert all(entry["uncertainty_grad_norm"] > 0 for entry in logged)
    assert logged[-1]["loss"] < logged[0]["loss"]


def test_the_stock_trainer_trains_it_too(tmp_path, data, processor):
    model = make_model(loss="multi_similarity")
    before = recall(model.idml, processor, data[1])
    trainer = Trainer(
        model,
        TrainingArguments(
            str(tmp_path),
            per_device_train_batch_size=32,
            num_train_epochs=15,
            learning_rate=3e-3,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            remove_unused_columns=False,
        ),
        train_dataset=TrainImages(
            data[0], training_transform(SIZE, processor.image_mean, processor.image_std, flip=0)
        ),
    )
    trainer.train()
    assert recall(model.idml, processor, data[1]) > before + 0.05
    trainer.save_model(tmp_path / "saved")
    again = IDMLModel.from_pretrained(tmp_path / "saved").eval()
    x = torch.randn(2, 3, SIZE, SIZE)
    # the file's tensors may lie otherwise in memory, which rounds otherwise
    torch.testing.assert_close(again(x).semantic_embeds, model.eval().idml(x).semantic_embeds, atol=1e-6, rtol=0)


def test_fine_tuning_on_new_classes(tmp_path, data, processor):
    model = make_model()
    model.idml.save_pretrained(tmp_path / "first")
    tuned = IDMLForMetricLearning.from_pretrained(tmp_path / "first", num_train_classes=24, loss="multi_similarity")
    before = recall(tuned.idml, processor, data[1])
    trainer = make_trainer(tmp_path, data, processor, tuned, num_train_epochs=15)
    trainer.train()
    assert recall(tuned.idml, processor, data[1]) > before + 0.05


def augmented_on_device(output, dataset, **settings):
    trainer = {"max_steps": 3, "use_cpu": True, "logging_steps": 1, "save_strategy": "no"}
    run = Run(
        output=str(output),
        dataset=str(dataset),
        backbone="test_resnet",
        pretrained=False,
        image_size=SIZE,
        batch_size=16,
        augment_on_device=True,
        trainer=trainer,
        **settings,
    )
    train(run, progress=False)
    return [entry["loss"] for entry in json.loads((output / "run.json").read_text())["log"] if "loss" in entry]


@pytest.mark.slow
def test_augmentation_on_the_device_does_not_depend_on_workers(tmp_path):
    losses = augmented_on_device(tmp_path / "a", "emoji-mini")
    assert len(losses) == 3 and np.isfinite(losses).all()
    assert augmented_on_device(tmp_path / "b", "emoji-mini", workers=2) == losses
    assert augmented_on_device(tmp_path / "c", "emoji-mini", crop_scale=0.9) != losses


def test_augmentation_on_the_device_takes_images_of_one_size(tmp_path):
    for label in range(4):
        (tmp_path / "data" / str(label)).mkdir(parents=True)
        for i in range(8):
            Image.new("RGB", (20 + i, 20), (i, 40 * label, 0)).save(tmp_path / "data" / str(label) / f"{i}.png")
    with pytest.raises(ValueError, match=r"\.png is 2\dx20 pixels, but images before it are 2\dx20"):
        augmented_on_device(tmp_path / "out", tmp_path / "data")


KILLED = """
import os, signal, sys
from transformers import TrainerCallback
from idml_hf.training import Run, run as run_module, train

class Kill(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 8:
            os.kill(os.getpid(), signal.SIGKILL)

build = run_module.build_trainer
def build_and_kill(*args):
    trainer = build(*args)
    trainer.add_callback(Kill())
    return trainer
if sys.argv[2] == "kill":
    run_module.build_trainer = build_and_kill
train(Run(
    output=sys.argv[1], dataset=sys.argv[3], backbone="test_resnet", pretrained=False, image_size=32,
    embedding_dim=16, epochs=2, batch_size=40, save_steps=3, mixup=True, resume=sys.argv[2] == "resume",
), progress=False)
"""


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights(tmp_path, data):
    few = data[0].select(data[0].labels < 20)
    (tmp_path / "data").mkdir()
    for name, images in (("train", few), ("test", few.select(few.labels < 4))):
        images.to_dataset().remove_columns("group").to_parquet(str(tmp_path / "data" / f"{name}.parquet"))

    def run(output, mode):
        return subprocess.run(
            [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / output), mode, str(tmp_path / "data")],
            capture_output=True,
            text=True,
        )

    whole, killed = run("whole", "run"), run("killed", "kill")
    assert whole.returncode == 0, whole.stderr
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    # as if the kill had hit while a checkpoint was written
    (tmp_path / "killed" / "checkpoints" / "checkpoint-8").mkdir()
    resumed = run("killed", "resume")
    assert resumed.returncode == 0, resumed.stderr
    a, b = (IDMLModel.from_pretrained(tmp_path / name).state_dict() for name in ("whole", "killed"))
    assert all(torch.equal(a[k], b[k]) for k in a)
    refused = run("killed", "run")
    assert refused.returncode == 1 and "holds a run already" in refused.stderr


def test_a_loss_that_is_not_finite_stops_before_the_weights(tmp_path, data, processor):
    trainer = make_trainer(tmp_path, data, processor)
    before = {k: v.clone() for k, v in trainer.model.state_dict().items() if "running" not in k}
    before = {k: v for k, v in before.items() if not k.startswith(("ranking.", "idml.reference."))}
    with torch.no_grad():
        trainer.model.loss.proxies[0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"became nan at step 1 .*proxy_anchor"):
        trainer.train()
    after = trainer.model.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.items() if "proxies" not in k and "num_batches" not in k)


def test_collapse_is_reported(tmp_path, data, processor, caplog):
    trainer = make_trainer(tmp_path, data, processor, make_model(uncertainty_activation="l2", form="released"))
    from transformers.utils import logging

    logging.enable_propagation()
    try:
        trainer.train()
    finally:
        logging.disable_propagation()
    assert sum("uncertainty has collapsed" in record.message for record in caplog.records) == 1


def test_frozen_trunk_then_thaw_and_learning_rates(tmp_path, data, processor):
    trainer = make_trainer(
        tmp_path, data, processor, frozen_trunk_epochs=1, lr_step_epochs=[1], num_train_epochs=2, logging_steps=1
    )
    weight = next(p for p in trainer.model.trunk.parameters() if p.ndim == 4)
    snapshots = {}

    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_epoch_end(self, args, state, control, **kwargs):
            snapshots[round(state.epoch)] = weight.detach().clone()

    start = weight.detach().clone()
    trainer.add_callback(Watch())
    trainer.train()
    assert torch.equal(snapshots[1], start) and not torch.equal(snapshots[2], start)
    assert sorted({round(g["initial_lr"], 8) for g in trainer.optimizer.param_groups}) == [0.003, 0.3]
    group = trainer.optimizer.param_groups[0]
    assert group["lr"] / group["initial_lr"] == pytest.approx(0.25)


def test_gradient_values_are_clipped(tmp_path, data, processor):
    trainer = make_trainer(tmp_path, data, processor, clip_grad_value=1e-4, max_steps=1)
    largest = []

    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_optimizer_step(self, args, state, control, model=None, **kwargs):
            largest.append(max(p.grad.abs().max().item() for p in model.parameters() if p.grad is not None))

    trainer.add_callback(Watch())
    trainer.train()
    assert largest[0] == pytest.approx(1e-4)


def test_losses_without_proxies_get_pk_batches(tmp_path, data, processor):
    trainer = make_trainer(tmp_path, data, processor, make_model(loss="contrastive"), images_per_class=4)
    batch = next(iter(trainer.get_train_dataloader()))
    assert (np.unique(batch["labels"], return_counts=True)[1] == 4).all()
    assert batch["pixel_values"].dtype == torch.uint8


def test_workers_do_not_change_the_batches(tmp_path, data, processor):
    batches = [
        next(iter(make_trainer(tmp_path, data, processor, dataloader_num_workers=n).get_train_dataloader()))
        for n in (0, 2)
    ]
    assert torch.equal(batches[0]["pixel_values"], batches[1]["pixel_values"])


def test_checkpoints_hold_model_and_processor(tmp_path, data, processor):
    make_trainer(tmp_path, data, processor, save_strategy="epoch", num_train_epochs=1).train()
    (checkpoint,) = Path(tmp_path).glob("checkpoint-*")
    assert isinstance(IDMLImageProcessor.from_pretrained(checkpoint), IDMLImageProcessor)
    assert IDMLForMetricLearning.from_pretrained(checkpoint).loss.proxies.shape == (24, 32)
