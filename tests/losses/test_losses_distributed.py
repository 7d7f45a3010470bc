"""Two gloo processes against one process with the joined batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import two_processes

Result = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Result]:
    folder = tmp_path_factory.mktemp("gloo")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, two_processes.__file__]
    processes = [subprocess.Popen([*command, str(rank), str(folder)], env=environment) for rank in range(2)]
    try:
        assert [process.wait(timeout=120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    first, second = (torch.load(Path(folder) / f"{rank}.pt") for rank in range(2))
    return first, second


@pytest.mark.parametrize(("name", "form"), two_processes.CASES)
def test_two_processes_are_one(both: tuple[Result, Result], name: str, form: str) -> None:
    alone = two_processes.train(name, form, None)
    assert all(value > 0 for value in alone["values"])
    assert {"semantic.weight", "uncertainty.weight"} - alone["gradients"].keys() == (
        {"uncertainty.weight"} if form == "none" else set()
    )
    for result in (both[0][name, form], both[1][name, form]):
        torch.testing.assert_close(result["values"], alone["values"], rtol=1e-6, atol=1e-6)
        for key, gradient in alone["gradients"].items():
            scale = gradient.abs().max().clamp_min(1)
            assert (result["gradients"][key] - gradient).abs().max() <= 1e-6 * scale, key
        for key, value in alone["state"].items():
            torch.testing.assert_close(result["state"][key], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "form"), two_processes.CASES)
def test_parameters_and_memory_stay_in_step(both: tuple[Result, Result], name: str, form: str) -> None:
    states = [result[name, form]["state"] for result in both]
    for key in states[0]:
        assert torch.equal(states[0][key], states[1][key]), key
