"""Training on two processes, started by `accelerate launch`, is training on one with the joined batches."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap

import pytest

SCRIPT = textwrap.dedent(
    """
    import json, os, sys
    import torch
    from idml_hf import IDMLForMetricLearning, IDMLImageProcessor, IDMLTrainer, IDMLTrainingArguments
    from idml_hf.data import TrainImages, load_retrieval_data, training_transform
    from idml_hf.data import EvalImages

    output, batch, loss = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    data = load_retrieval_data("emoji-mini")
    train = data.train.select(data.train.labels < 40).renumbered()
    test = data.test.select(data.test.labels < 10).renumbered()
    torch.manual_seed(0)
    model = IDMLForMetricLearning.from_backbone(
        "test_resnet", pretrained=False, embedding_dim=16, num_train_classes=40, loss=loss, freeze_batch_norm=True,
    )
    processor = IDMLImageProcessor.from_backbone("test_resnet", image_size=32)
    arguments = IDMLTrainingArguments(
        output, max_steps=5, per_device_train_batch_size=batch, learning_rate=1e-3, logging_steps=1, use_cpu=True,
        batch_sampling="random", save_strategy="no", report_to="none", disable_tqdm=True,
        degraded_share=0,  # each process degrades images of its own
        optim="sgd",  # where a gradient is zero but for rounding, Adam makes a whole step of the rounding
    )
    trainer = IDMLTrainer(
        model, arguments, train_dataset=TrainImages(train, training_transform(32)),
        eval_dataset=EvalImages(test, processor), processing_class=processor,
    )
    trainer.train()
    metrics = trainer.evaluate()
    if trainer.is_world_process_zero():
        log = [[e["loss"], e["grad_norm"]] for e in trainer.state.log_history if "loss" in e]
        norm = trainer.accelerator.unwrap_model(trainer.model).idml.uncertainty_head.running_norm.item()
        record = {"log": log, "norm": norm}
        record |= {"recall": metrics["eval_recall_at_1"], "queries": metrics["eval_num_queries"]}
        with open(output + ".json", "w") as file:
            json.dump(record, file)
    """
)


def launch(folder, processes: int, loss: str) -> dict:
    script = folder / "train.py"
    script.write_text(SCRIPT)
    output = folder / f"{loss}-{processes}"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # without a GPU `accelerate launch` starts one process, however many it is asked for, unless it is told --multi_gpu
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
    if processes == 1:
        command.remove("--multi_gpu")
    command += ["--num_processes", str(processes), "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--main_process_port", str(port)]
    result = subprocess.run(
        [*command, str(script), str(output), str(32 // processes), loss],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads((folder / f"{loss}-{processes}.json").read_text())


@pytest.mark.parametrize("loss", ["proxy_anchor", "contrastive"])
def test_two_processes_train_as_one(loss, tmp_path):
    one, two = launch(tmp_path, 1, loss), launch(tmp_path, 2, loss)
    assert len(one["log"]) == len(two["log"]) == 5
    for (loss_a, norm_a), (loss_b, norm_b) in zip(one["log"], two["log"], strict=True):
        assert loss_b == pytest.approx(loss_a, rel=1e-5)
        assert norm_b == pytest.approx(norm_a, rel=1e-4)
    assert two["norm"] == pytest.approx(one["norm"], rel=1e-5)
    assert two["queries"] == one["queries"]
    assert two["recall"] == pytest.approx(one["recall"], abs=0.02)
