"""The model card: a README written from what the run recorded, with results that the Hub can read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import CardData, EvalResult, ModelCard, ModelCardData
from transformers.modelcard import make_markdown_table

from idml_hf.configuration_idml import IDMLConfig
from idml_hf.data.registry import DATASETS, data_licence
from idml_hf.files import read_json, write_json, write_text
from idml_hf.metric_names import SIGNALS, is_number, key_for, measured, metric
from idml_hf.metric_tables import CLASSIFICATION, RETRIEVAL, metric_tables

from .escaping import Markdown, code, shown
from .record import BASELINE_FILE, CARD_FILE, PICTURES, RunRecord

GENERATED = (
    "<!-- Written by idml_hf from what the run recorded; it is written anew when the model is pushed. "
    "To keep changes of your own, remove this comment. -->"
)

_TAGS = ("timm", "metric-learning", "image-retrieval", "uncertainty", "idml")
_HUB_RESULTS = (*RETRIEVAL, "r_auroc", "aurc", *CLASSIFICATION)
_RESULTS = (*RETRIEVAL, *CLASSIFICATION)
_SMALLER_REFERENCES = {"untrained_": "the trunk before training", "pixels_": "raw pixels"}
_MODEL_SETTINGS = (
    "backbone",
    "pool",
    "image_size",
    "embedding_dim",
    "uncertainty_dim",
    "uncertainty_activation",
    "uncertainty_level",
    "form",
    "tau",
)


def write_model_card(
    folder: str | Path,
    repo_id: str | None = None,
    *,
    baseline: str | Path | None = None,
    remote_code: bool = False,
    home: str | Path | None = None,
) -> Path:
    """Write `README.md`, the model card, into the folder of a run.

    It says only what the folder holds: `config.json`, `metrics.json`, `run.json` and the pictures named in
    `idml_hf.hub.record.PICTURES`. What is missing is left out of the card. A card without the comment that marks it as
    written by this function belongs to its author, and is left alone.

    Args:
        folder: what `idml-hf train` or `demo` wrote.
        repo_id: Hub id that the usage code loads; None: the folder itself.
        baseline: folder of the run with the plain loss (form `none`) and otherwise the same settings. Its metrics are
            kept in the folder, for later cards, and stand beside those of the model.
        remote_code: whether the repository carries the model's code, so that idml_hf need not be installed.
        home: where the files of `folder` will lie, if not there: the folder that usage code loads.

    Returns:
        The path of the card.

    Raises:
        FileNotFoundError: if there is no model in the folder, or no metrics in that of the baseline.
        ValueError: naming a file that cannot be read.

    Example:
        >>> write_model_card("runs/cub-ratio", baseline="runs/cub-plain")  # doctest: +SKIP
        PosixPath('runs/cub-ratio/README.md')
    """
    folder = Path(folder)
    if baseline is not None:
        _keep_baseline(Path(baseline), folder)
    card, home = folder / CARD_FILE, folder if home is None else Path(home)
    record = RunRecord.read(folder)
    if not (home / CARD_FILE).exists() or is_generated((home / CARD_FILE).read_text(encoding="utf-8")):
        name = (repo_id or home.resolve().name).rsplit("/", 1)[-1]
        location, on_hub = (str(home), False) if repo_id is None else (repo_id, True)
        text = render_card(record, location, name, on_hub=on_hub, remote_code=remote_code)
        write_text(card, text)
    return card


def is_generated(text: str) -> bool:
    """Whether a card was written by a program, this one or transformers, and may be written anew."""
    return GENERATED in text or "This model card has been automatically generated." in text


def render_card(
    record: RunRecord,
    location: str,
    name: str,
    *,
    on_hub: bool = False,
    remote_code: bool = False,
    tags: Sequence[str] = (),
) -> str:
    """The card as text.

    Args:
        record: what is known of the model.
        location: Hub id or folder that the usage code loads.
        name: what the card calls the model.
        on_hub: whether `location` is a repository with all that `push_folder` sends.
        remote_code: as for `write_model_card`.
        tags: more tags for the Hub's search.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("idml_hf.hub", "."),
        autoescape=False,  # Markdown is no HTML
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"code": code, "string": lambda text: Markdown(json.dumps(text))}
    licence = data_licence(record.dataset)
    spec = DATASETS.get(record.dataset or "")
    body = environment.get_template("model_card.md.jinja").render(
        name=name,
        location=location,
        on_hub=on_hub,
        record=record,
        config=IDMLConfig().to_dict() | record.config,
        metrics=record.metrics,
        data_title=spec.title if spec else None,
        terms=Markdown(licence.terms),
        attribution=[Markdown(line) for line in licence.attribution],
        base_model=base_model(record),
        results=_results(record),
        plain_results=_results(record, "plain_"),
        measured=[
            (entry.title, entry.note, _table(entry.head, entry.rows))
            for entry in metric_tables({"protocol": "", **record.metrics})
            if entry.title != "Retrieval"
        ],
        advice=_advice(record),
        settings=_settings(record),
        pictures={Markdown(picture): Markdown(PICTURES[picture]) for picture in record.pictures},
        remote_code=remote_code,
    )
    return f"---\n{card_data(record, name, tags).to_yaml()}\n---\n{GENERATED}\n\n{body.strip()}\n"


def card_data(record: RunRecord, name: str, tags: Sequence[str] = ()) -> ModelCardData:
    """The card's metadata: what the Hub's search and its result tables read."""
    task = "image-classification" if record.is_classifier else "image-feature-extraction"
    task = "feature-extraction" if record.takes_vectors else task
    spec = DATASETS.get(record.dataset or "")
    results = [
        EvalResult(
            task_type=task,
            task_name="Image Classification" if record.is_classifier else "Image Retrieval",
            dataset_type=(spec.hub_id if spec else None) or record.dataset or "unknown",
            dataset_name=spec.title if spec else record.dataset or "unknown",
            dataset_split=record.metrics.get("split", "test"),
            dataset_revision=spec.revision if spec else None,
            dataset_args={"protocol": record.metrics["protocol"]} if "protocol" in record.metrics else None,
            metric_type=key,
            metric_name=metric(key).name,
            metric_value=record.metrics[key],
        )
        for key in measured(record.metrics, *_HUB_RESULTS)
        if is_number(record.metrics[key])
    ]
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=task,
        license=data_licence(record.dataset).model_licence,
        base_model=base_model(record),
        datasets=[spec.hub_id] if spec and spec.hub_id else None,
        metrics=[result.metric_type for result in results] or None,
        tags=list(dict.fromkeys([*_TAGS, *tags])),
        model_name=name,
        eval_results=results or None,
    )


def base_model(record: RunRecord) -> str | None:
    """Hub id of the weights that training started from, if they have one."""
    started = record.settings.get("model")
    if started is not None:
        return started if started.count("/") == 1 else None
    weights = str(record.metrics.get("trunk_weights", "random"))
    name = record.config.get("backbone", "") if weights == "pretrained" else weights.rsplit(".", 1)[0]
    import timm

    try:
        known = timm.get_pretrained_cfg(name)
    except RuntimeError:
        return None
    return getattr(known, "hf_hub_id", None)


def _keep_baseline(baseline: Path, folder: Path) -> None:
    path = baseline / "metrics.json" if baseline.is_dir() else baseline
    if not path.is_file():
        raise FileNotFoundError(f"There are no metrics of a baseline at {path}")
    write_json(folder / BASELINE_FILE, read_json(path))


def _results(record: RunRecord, prefix: str = "") -> Markdown | None:
    """The model's results, and below them those of whatever it can be compared with."""
    columns = [key for key in measured(record.metrics, *_RESULTS) if f"{prefix}{key}" in record.metrics]
    if not columns:
        return None
    lines: dict[str, list[Any]] = {
        Markdown("**this model**"): [record.metrics.get(f"{prefix}{key}") for key in columns]
    }
    if record.baseline:
        lines["plain loss, otherwise the same"] = [record.baseline.get(f"{prefix}{key}") for key in columns]
    if not prefix:
        for other, title in _SMALLER_REFERENCES.items():
            if f"{other}recall_at_1" in record.metrics:
                lines[title] = [record.metrics.get(f"{other}{key}") for key in columns]
    rows = [[title, *map(_cell, values)] for title, values in lines.items()]
    return _table(["", *(metric(key).title for key in columns)], rows)


def _cell(value: Any) -> str:
    return f"{value:.4f}" if is_number(value) else ""


def _advice(record: RunRecord) -> str | None:
    """Whether the uncertainty is worth sorting by, as measured."""
    metrics = record.metrics
    if metrics.get("uncertainty_is_constant"):
        return (
            "The uncertainty of this model is the same for all images, so it says nothing. Use "
            f"{SIGNALS['max_similarity'].phrase} instead."
        )
    own: Any = metrics.get("r_auroc")
    keys = {signal.phrase: key_for("auroc", signal.key) for signal in SIGNALS.values() if signal.key}
    free = {phrase: metrics[key] for phrase, key in keys.items() if is_number(metrics.get(key))}
    if not is_number(own) or not free:
        return None
    best, auroc = max(free, key=free.__getitem__), metric("auroc").title
    if own > free[best]:
        return (
            f"On the test data the uncertainty foretells a wrong match better ({auroc} {own:.3f}) than {best} does, "
            f"which costs nothing ({auroc} {free[best]:.3f})."
        )
    return (
        f"On the test data {best}, which costs nothing, foretells a wrong match better ({auroc} {free[best]:.3f}) "
        f"than the uncertainty does ({auroc} {own:.3f}; 0.5 is chance). To decide which matches to trust, prefer it."
    )


def _settings(record: RunRecord) -> Markdown | None:
    model = {key: record.config[key] for key in _MODEL_SETTINGS if record.config.get(key) is not None}
    run = {key: value for key, value in record.settings.items() if value not in (None, {}, "") and key not in model}
    rows = [[code(key), code(value)] for key, value in (model | run).items()]
    return _table(["setting", "value"], rows) if rows else None


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Markdown:
    cells = [dict(zip(map(shown, head), map(shown, row), strict=True)) for row in rows]
    return Markdown(make_markdown_table(cells).strip())


def validate_card(text: str) -> CardData:
    """Read a card's metadata as the Hub does.

    Raises:
        ValueError: if there is none, or it cannot be read.
    """
    try:
        return ModelCard(text).data
    except Exception as error:
        raise ValueError(f"The model card's metadata cannot be read: {' '.join(str(error).split())}") from error


__all__ = ["base_model", "card_data", "is_generated", "render_card", "validate_card", "write_model_card"]
