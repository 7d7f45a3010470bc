"""`idml-hf evaluate`."""

from __future__ import annotations

from typing import Annotated

import typer

from .parameters import BatchSize, Dataset, GroupColumn, Model, Output, Root, SkipBad, Workers
from .terminal import quiet, report_metrics

commands = typer.Typer()


@commands.command(epilog="Example: idml-hf evaluate my-model --dataset photos/ --output report")
def evaluate(
    model: Model,
    dataset: Dataset,
    output: Output,
    root: Root = None,
    group_column: GroupColumn = None,
    split: Annotated[str, typer.Option(help="train, validation, test or all")] = "test",
    foreign: Annotated[str | None, typer.Option(help="Data of another kind, to be told from what belongs")] = None,
    skip_bad_images: SkipBad = False,
    batch_size: BatchSize = 64,
    workers: Workers = 0,
) -> None:
    """Measure retrieval and uncertainty on a data set; writes metrics.json, classes.csv and an HTML report."""
    quiet()
    from idml_hf.model_evaluation import evaluate_model

    metrics = evaluate_model(
        model,
        dataset,
        output,
        root=root,
        group_column=group_column,
        split=split,
        foreign=foreign,
        skip_bad_images=skip_bad_images,
        batch_size=batch_size,
        num_workers=workers,
    )
    report_metrics(metrics, output)


__all__ = ["commands"]
