"""`idml-hf tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .parameters import GroupColumn, Output
from .terminal import quiet, remark

commands = typer.Typer()

# a search asks which of many is better, so its trials are shorter than a training
TRIAL_EPOCHS = 8


@commands.command(
    epilog="Example: idml-hf tune --features my-features --loss proxy_nca --loss contrastive --output tuned"
)
def tune(
    features: Annotated[Path, typer.Option(help="What `idml-hf features` wrote, or embeddings (.parquet, .npy)")],
    output: Output,
    labels: Annotated[Path | None, typer.Option(help="Classes of the embeddings of a .npy file")] = None,
    group_column: GroupColumn = None,
    loss: Annotated[list[str] | None, typer.Option(help="Loss to try; may be repeated; unset: all")] = None,
    trials: Annotated[int, typer.Option(help="Trials in all", min=1)] = 50,
    embedding_dim: Annotated[int | None, typer.Option(help="Length of the semantic embedding", min=1)] = None,
    epochs: Annotated[int, typer.Option(help="Epochs of a trial", min=1)] = TRIAL_EPOCHS,
    batch_size: Annotated[int, typer.Option(help="Vectors in a batch", min=1)] = 120,
    seed: Annotated[int, typer.Option(help="Seed of everything random", min=0)] = 0,
) -> None:
    """Search for the loss and hyper-parameters by which a head on stored features is best (needs the extra `tune`).

    Trials are judged by MAP@R on training classes that are held out. Output gets best.yaml, a recipe that `train`
    takes, trials.csv and tune.png; the same command goes on with what was interrupted, and with more --trials adds.
    """
    quiet()
    from idml_hf.metric_names import metric
    from idml_hf.training.settings import Run
    from idml_hf.training.tune import OBJECTIVE
    from idml_hf.training.tune import tune as search

    run = Run(
        output=str(output),
        features=str(features),
        labels=None if labels is None else str(labels),
        group_column=group_column,
        embedding_dim=embedding_dim,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
    )
    found = search(run, loss or (), trials)
    title, value, closed = metric(OBJECTIVE).title, 100 * found.value, 100 * found.closed_form
    typer.echo(
        f"{found.recipe['loss']}: {title} {value:.1f} % on held-out training classes; "
        f"the head in closed form has {closed:.1f} %"
    )
    if found.closed_form >= found.value:
        typer.echo("No loss is better than the head in closed form, which `train --features` fits by default")
    remark(f"The best of {found.trials} trials is {output / 'best.yaml'}")


__all__ = ["commands"]
