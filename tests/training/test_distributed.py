"""Training on two processes, started by `accelerate launch`, is training on one with the joined batches."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from idml_hf import IDMLTrainingArguments
from idml_hf.data import load_retrieval_data
from idml_hf.processes import join_processes, launched_processes
from idml_hf.reproduce.results import read_results

ROOT = Path(__file__).parents[2]

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
        output, max_steps=5, per_device_train_batch_size=batch, learning_rate=1e-3, logging_steps=1,
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


def accelerate(command: list[str], folder: Path) -> str:
    """Run `accelerate launch ...` on a port of its own, with this Python; gives what it printed."""
    assert command[:2] == ["accelerate", "launch"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", str(port), *command[2:]]
    result = subprocess.run(
        started,
        capture_output=True,
        text=True,
        cwd=ROOT,
        # no configuration of this machine's user
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home")},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout + result.stderr


def documented(start: str) -> list[str]:
    """The words of the command in the page on several machines that begins like this."""
    page = (ROOT / "docs" / "how-to" / "several-machines.md").read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = [line for line in page.splitlines() if line.startswith(start)]
    return shlex.split(line)


def launch(folder, processes: int, loss: str) -> dict:
    script = folder / "train.py"
    script.write_text(SCRIPT)
    output = folder / f"{loss}-{processes}"
    words = documented("accelerate launch --multi_gpu --num_processes 2 training_scripts/train_retrieval.py")
    command = words[: words.index("training_scripts/train_retrieval.py")]
    if processes == 1:
        command = ["accelerate", "launch", "--num_processes", "1"]
    accelerate([*command, str(script), str(output), str(32 // processes), loss], folder)
    return json.loads((folder / f"{loss}-{processes}.json").read_text())


@pytest.mark.slow
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


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    train = load_retrieval_data("emoji-mini", check_images=False).train
    for label in range(8):
        (folder / str(label)).mkdir()
        for index in np.flatnonzero(train.labels == label):
            train.image(int(index)).save(folder / str(label) / f"{index}.png")
    return folder


TINY = ["--backbone", "test_resnet", "--no-pretrained", "--image-size", "32", "--embedding-dim", "8", "--epochs", "2"]
# each process degrades images of its own, and Adam makes a whole step of a rounding
TINY += ["--freeze-batch-norm", "--trainer", '{"degraded_share": 0, "optim": "sgd", "logging_steps": 1}']


def test_the_command_of_the_documentation_starts_one_training(photos, tmp_path):
    """Two processes without a GPU: they train together, as one would on the joined batch, and one of them writes."""
    command = documented("accelerate launch --multi_gpu --num_processes 2 training_scripts/train_retrieval.py")
    assert command[-6:] == ["--dataset", "photos/", "--batch-size", "32", "--output", "my-model"]
    output = {2: tmp_path / "two", 1: tmp_path / "one"}
    given = ["--dataset", str(photos), "--output", str(output[2]), "--batch-size", "10"]
    printed = accelerate([*command[:-6], *given, *TINY], tmp_path)
    assert printed.count("Everything is in") == 1
    alone = [sys.executable, "training_scripts/train_retrieval.py", "--dataset", str(photos), "--batch-size", "20"]
    subprocess.run([*alone, "--output", str(output[1]), *TINY], check=True, capture_output=True, cwd=ROOT)
    two, one = (json.loads((output[n] / "run.json").read_text()) for n in (2, 1))
    assert (two["processes"], one["processes"]) == (2, 1)
    losses = [[entry["loss"] for entry in record["log"] if "loss" in entry] for record in (two, one)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and len(losses[0]) > 3
    assert sorted(p.name for p in output[1].iterdir()) == sorted(p.name for p in output[2].iterdir())


TABLE = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from idml_hf.cli.terminal import run_app
    from idml_hf.reproduce import tables
    from idml_hf.reproduce.command import reproduce

    folder, photos = Path(sys.argv[1]), sys.argv[2]
    settings = {"dataset": photos, "backbone": "test_resnet", "pretrained": False, "image_size": 32, "epochs": 1}
    row = tables.Row("Plain", (), settings | {"batch_size": 8, "embedding_dim": 8})
    columns = (tables.Column.of("recall_at_1"),)
    tables.TABLES["tiny"] = tables.Table("tiny", "Tiny", "retrieval", (row,), columns, seeds=2)
    reproduce("tiny", folder, results=folder / "results", runs=folder / "runs")
    """
)


@pytest.mark.slow
def test_a_table_is_made_by_all_processes_together(photos, tmp_path):
    (tmp_path / "table.py").write_text(TABLE)
    launched = ["accelerate", "launch", "--multi_gpu", "--num_processes", "2"]
    accelerate([*launched, str(tmp_path / "table.py"), str(tmp_path), str(photos)], tmp_path)
    results = read_results(tmp_path / "results", "tiny")
    assert [result.seed for result in results] == [0, 1]
    assert (tmp_path / "results" / "tiny.jsonl").read_text().count("\n") == 2
    for result in results:
        record = json.loads((tmp_path / "runs" / "tiny" / f"plain-seed{result.seed}" / "run.json").read_text())
        assert record["processes"] == 2


class TestWorld:
    def test_a_world_that_is_not_the_launchs_is_an_error(self, tmp_path, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")

        class Alone:
            num_processes = 1

            def __init__(self, **kwargs):
                pass

            @staticmethod
            def _reset_state():
                pass

        monkeypatch.setattr("accelerate.PartialState", Alone)
        monkeypatch.setenv("ACCELERATE_USE_CPU", "false")
        for call in (join_processes, lambda: IDMLTrainingArguments(str(tmp_path))):
            with pytest.raises(ValueError, match="WORLD_SIZE says that 2 processes were launched, but 1 have joined"):
                call()

    @pytest.mark.parametrize("value", ["", "two", "0", "-1", "1.5"])
    def test_a_world_size_that_is_no_number(self, monkeypatch, value):
        monkeypatch.setenv("WORLD_SIZE", value)
        with pytest.raises(ValueError, match="WORLD_SIZE should be the number of processes"):
            launched_processes()
