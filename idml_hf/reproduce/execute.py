"""Makes the runs that are missing."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from importlib.metadata import version
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

from idml_hf.files import read_json, write_json
from idml_hf.processes import is_first_process, join_processes
from idml_hf.training import run as training
from idml_hf.training.checkpoints import last_complete_checkpoint

from .plan import PlannedRun, planned_settings
from .results import Result, append_result, read_results, results_file

PACKAGES = ("idml-hf", "torch", "transformers", "timm", "numpy")


def execute(planned: PlannedRun, progress: bool = True) -> Result:
    """Make one run, or go on with it where it was interrupted.

    Under `accelerate launch` all processes make the run together.
    """
    state = join_processes()
    folder, settings = Path(planned.run.output), planned_settings(planned)
    begun = training.is_finished(folder) or last_complete_checkpoint(folder / training.CHECKPOINTS) is not None
    interrupted = begun and _same_run(folder, settings)
    state.wait_for_everyone()
    if state.is_main_process:
        write_json(folder / "planned.json", settings)
    run = replace(planned.run, resume=interrupted, overwrite=not interrupted)
    metrics = training.train(run, progress)
    return Result(planned.table, planned.row, planned.run.seed, settings, metrics, environment())


def _same_run(folder: Path, settings: dict[str, Any]) -> bool:
    """Whether what lies in the folder was started with these settings."""
    try:
        return read_json(folder / "planned.json") == json.loads(json.dumps(settings))
    except (OSError, ValueError):
        return False


def environment() -> dict[str, Any]:
    """Versions, and the machine in words."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    versions = {name: version(name) for name in PACKAGES}
    return {**versions, "python": platform.python_version(), "device": device, "threads": torch.get_num_threads()}


def execute_all(planned: list[PlannedRun], results: Path, jobs: int = 1, progress: bool = True) -> None:
    """Make the runs whose results are missing, `jobs` at a time, each job on a GPU of its own where there are some.

    The first run that fails ends it: what is finished is kept, and the next call goes on from there.

    Args:
        planned: The runs of one table.
        results: Folder of the results.
        jobs: Runs at a time.
        progress: Whether to show progress bars.
    """
    missing = [run for run in planned if not run.done]
    if jobs == 1:
        for i, run in enumerate(missing):
            # another call may have made it; the processes of one launch must not differ in what they make
            if "RANK" not in os.environ and _is_there(run, results):
                continue
            _announce(f"{i + 1} of {len(missing)}: {run.name}")
            _keep(execute(run, progress), results)
        return
    import torch

    context = multiprocessing.get_context("spawn")
    arguments = (context.Value("i", 0), jobs, torch.cuda.device_count())
    with ProcessPoolExecutor(jobs, context, initializer=_set_up_worker, initargs=arguments) as pool:
        futures = {pool.submit(execute, run, False): run for run in missing}
        try:
            for i, future in enumerate(as_completed(futures)):
                _keep(future.result(), results)
                _announce(f"{i + 1} of {len(missing)} done: {futures[future].name}")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _is_there(run: PlannedRun, results: Path) -> bool:
    return any(result.key == run.key for result in read_results(results, run.table))


def _keep(result: Result, results: Path) -> None:
    if is_first_process():
        append_result(results_file(results, result.table), result)


def _set_up_worker(counter: Synchronized, jobs: int, gpus: int) -> None:
    """Give the worker a GPU, or its share of the cores; before torch is imported."""
    with counter.get_lock():
        number = counter.value
        counter.value += 1
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(number % gpus)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))


def _announce(text: str) -> None:
    if is_first_process():
        from rich.console import Console

        Console().rule(text)


__all__ = ["environment", "execute", "execute_all"]
