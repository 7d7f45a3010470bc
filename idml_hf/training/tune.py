"""Search over losses and their hyper-parameters on stored features, judged on held-out training classes."""

from __future__ import annotations

import csv
import dataclasses
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tqdm.auto import tqdm
from transformers import set_seed
from transformers.utils import logging

from idml_hf.configuration_idml import VECTORS, IDMLConfig
from idml_hf.data import VectorSet
from idml_hf.data.splits import hold_out_classes
from idml_hf.embedding import embed_dataset
from idml_hf.errors import one_of
from idml_hf.evaluation.retrieval import retrieval_metrics
from idml_hf.files import read_json, replacing, write_json, write_text
from idml_hf.losses import LOSSES
from idml_hf.losses.pair import MEMORY_PARAMETERS
from idml_hf.metric_names import metric
from idml_hf.modeling_metric_learning import IDMLForMetricLearning

from .checkpoints import data_fingerprint
from .frozen_trunk import FrozenFeatures, Head, closed_form, fit_heads
from .run import training_arguments
from .settings import Run
from .stored_data import run_on_vectors

logger = logging.get_logger(__name__)

HELD_OUT = 0.3
"""Share of the training classes by which trials are judged."""
OBJECTIVE = "map_at_r"
_FACTOR = 4.0  # how far from its default, up or down, a number is looked for
_LEARNING_RATES = 1e-4, 1e-2
_IN_MEMORY = 2**30  # bytes of features that are read once for all trials
_STUDY, _SETTINGS = "study.db", "study.json"


@dataclass(frozen=True)
class Tuned:
    """What a search has found.

    Args:
        recipe: Settings of the best trial, as `train` takes them.
        value: Its MAP@R on the held-out training classes.
        closed_form: That of the head in closed form, from which all trials start.
        trials: Number of finished trials.
    """

    recipe: dict[str, Any]
    value: float
    closed_form: float
    trials: int


def tune(run: Run, losses: Sequence[str] = (), trials: int = 50, progress: bool = True) -> Tuned:
    """Search for the loss, its hyper-parameters and the learning rate by which a head on stored features is best.

    Each trial goes on with a loss from the head in closed form, for `run.epochs` epochs over the training classes that
    are left, in the loss's plain form, and is measured by MAP@R on the held-out ones; test classes are not looked at.
    Each loss is tried with its defaults first. Positive numbers are looked for up to four times above and below their
    defaults. The search can be interrupted: started again it goes on, and with more trials it adds to those there.

    `run.output` then holds `best.yaml` (a recipe for `train`), `trials.csv`, `tune.png`, and the study of optuna.

    Args:
        run: Settings with `features`; those of the loss are searched for.
        losses: Names of losses; all by default.
        trials: Number of trials in all.
        progress: Whether to show a progress bar.

    Raises:
        ImportError: if optuna is not installed.
        ValueError: for an unknown loss, or a folder that holds the search over other features.
    """
    try:
        import optuna
    except ImportError as error:
        raise ImportError('tune needs optuna: pip install "idml-hf[tune]"') from error
    losses = [one_of("loss", name, list(LOSSES)) for name in losses] or list(LOSSES)
    output = Path(run.output)
    run, data = run_on_vectors(run)
    _check_same(output, {"data": data_fingerprint(data), "epochs": run.epochs, "seed": run.seed})
    left, held_out = hold_out_classes(_read(data.train), HELD_OUT, run.seed)
    start = closed_form(left.vectors, left.labels, _dimensions(run))
    baseline = _measure(_fitted(run, left, "closed_form", start), held_out)[OBJECTIVE]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=f"sqlite:///{(output / _STUDY).absolute()}",
        study_name="tune",
        direction="maximize",
        load_if_exists=True,
    )
    done = study.get_trials(states=[optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED])
    # another seed for what is added, or it would be what is there
    study.sampler = optuna.samplers.TPESampler(seed=run.seed + len(done))
    tried = {trial.params.get("loss") for trial in done}
    for name in losses:
        if name not in tried:
            study.enqueue_trial({"loss": name, **defaults(name, run.learning_rate)}, skip_if_exists=True)

    def objective(trial: Any) -> float:
        name = trial.suggest_categorical("loss", losses)
        chosen = {key: _suggest(trial, key, value) for key, value in defaults(name, run.learning_rate).items()}
        settings = dataclasses.replace(run, **_recipe(name, chosen))
        started = time.monotonic()
        try:
            found = _measure(_fitted(settings, left, "trained", start), held_out)
        except (ValueError, FloatingPointError) as error:
            # a value out of the loss's range, or one by which the loss is no number any more
            trial.set_user_attr("failed", str(error))
            raise optuna.TrialPruned from error
        trial.set_user_attr("recall_at_1", found["recall_at_1"])
        trial.set_user_attr("seconds", time.monotonic() - started)
        return found[OBJECTIVE]

    with tqdm(total=trials, initial=min(trials, len(done)), desc="Trials", disable=not progress) as bar:

        def show(study: Any, trial: Any) -> None:
            bar.update()
            if trial.value is not None:
                best = study.best_trial
                bar.set_postfix_str(f"best {100 * best.value:.1f} ({best.params['loss']})")
                _write(output, study, baseline, run)

        study.optimize(objective, n_trials=max(0, trials - len(done)), callbacks=[show])
    return _write(output, study, baseline, run)


def defaults(loss: str, learning_rate: float) -> dict[str, float]:
    """What is searched for with a loss: its own positive numbers by `loss.name`, and the learning rate.

    Example:
        >>> defaults("proxy_nca", 1e-3)
        {'learning_rate': 0.001, 'proxy_nca.scale': 32.0}
    """
    own = {
        f"{loss}.{name}": value
        for name, value in LOSSES[loss].hyper_parameters().items()
        if name not in MEMORY_PARAMETERS and isinstance(value, (int, float)) and value > 0
    }
    return {"learning_rate": learning_rate, **own}


def _suggest(trial: Any, name: str, value: float) -> Any:
    if name == "learning_rate":
        low, high = _LEARNING_RATES
        return trial.suggest_float(name, min(low, value), max(high, value), log=True)
    if isinstance(value, int):
        return trial.suggest_int(name, max(1, round(value / _FACTOR)), round(value * _FACTOR), log=True)
    return trial.suggest_float(name, value / _FACTOR, value * _FACTOR, log=True)


def _recipe(loss: str, chosen: dict[str, float]) -> dict[str, Any]:
    own = {name.partition(".")[2]: value for name, value in chosen.items() if name.startswith(f"{loss}.")}
    return {"loss": loss, "loss_kwargs": own, "learning_rate": chosen["learning_rate"], "head": "trained"}


def _read(train: VectorSet) -> VectorSet:
    """The training vectors, in memory if they are few."""
    if len(train) * train.width * 2 > _IN_MEMORY:
        return train
    return dataclasses.replace(train, vectors=np.asarray(train.vectors[:], dtype=np.float16))


def _dimensions(run: Run) -> int:
    return run.embedding_dim or IDMLConfig.embedding_dim


def _fitted(run: Run, left: VectorSet, head: str, start: Head) -> Any:
    """A model of vectors whose semantic head alone is fitted."""
    set_seed(run.seed)
    config = IDMLConfig.from_method(
        "plain",
        backbone=VECTORS,
        backbone_kwargs={"width": left.width},
        pool="avg",
        embedding_dim=_dimensions(run),
        uncertainty_ranking=0.0,
        loss=run.loss,
        loss_kwargs=run.loss_kwargs or None,
        num_train_classes=left.num_classes,
    )
    model = IDMLForMetricLearning(config)
    args = training_arguments(run, progress=False, save_strategy="no", save_steps=500, logging_strategy="no")
    fit_heads(model, FrozenFeatures(left.vectors, None, left.labels, left.groups), args, head, start)
    return model.idml


def _measure(model: Any, held_out: VectorSet) -> dict[str, Any]:
    said = embed_dataset(model, None, held_out, progress=False)
    return dict(retrieval_metrics(said.semantic, held_out.labels, ks=(1,), groups=held_out.groups))


def _check_same(output: Path, settings: dict[str, Any]) -> None:
    """Make sure that trials which are compared saw the same.

    Raises:
        ValueError: naming what is another.
    """
    file = output / _SETTINGS
    if not file.is_file():
        write_json(file, settings)
        return
    there = read_json(file)
    for name, value in settings.items():
        if there.get(name) != value:
            raise ValueError(f"{output} holds a search with other {name}: choose another folder")


def _write(output: Path, study: Any, baseline: float, run: Run) -> Tuned:
    best = study.best_trial
    recipe = {**_recipe(best.params["loss"], best.params), "epochs": run.epochs}
    if run.embedding_dim is not None:
        recipe["embedding_dim"] = run.embedding_dim
    title = metric(OBJECTIVE).title
    head = f"# {title} {best.value:.4f} on held-out training classes; the head in closed form has {baseline:.4f}\n"
    write_text(output / "best.yaml", head + yaml.safe_dump(recipe, sort_keys=False))
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    _write_table(output / "trials.csv", trials)
    _plot(output / "tune.png", trials, baseline)
    return Tuned(recipe, best.value, baseline, len(trials))


def _write_table(path: Path, trials: Sequence[Any]) -> None:
    names = ["trial", "loss", OBJECTIVE, "recall_at_1", "seconds", "learning_rate"]
    own = sorted({key for trial in trials for key in trial.params} - {"loss", "learning_rate"})
    text = io.StringIO()
    writer = csv.DictWriter(text, [*names, *own, "failed"], lineterminator="\n")
    writer.writeheader()
    for trial in trials:
        writer.writerow({"trial": trial.number, OBJECTIVE: trial.value, **trial.user_attrs, **trial.params})
    write_text(path, text.getvalue())


def _plot(path: Path, trials: Sequence[Any], baseline: float) -> None:
    """MAP@R of each trial, and of the best one so far."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4), layout="constrained")
    axes = figure.subplots()
    known = [trial for trial in trials if trial.value is not None]
    for number, loss in enumerate(dict.fromkeys(trial.params["loss"] for trial in known)):
        own = [trial for trial in known if trial.params["loss"] == loss]
        axes.scatter([t.number + 1 for t in own], [100 * t.value for t in own], 22, f"C{number}", label=loss)
    best = np.maximum.accumulate([100 * trial.value for trial in known])
    axes.step([trial.number + 1 for trial in known], best, "0.4", where="post", linewidth=1, label="best so far")
    axes.axhline(100 * baseline, color="0.2", linestyle="--", linewidth=1, label="closed form")
    axes.set(xlabel="trial", ylabel=f"{metric(OBJECTIVE).title} in %, held-out training classes")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    with replacing(path) as part:
        figure.savefig(part, dpi=110)


__all__ = ["Tuned", "defaults", "tune"]
