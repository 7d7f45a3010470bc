"""The commands of `idml-hf`. They only read options, call the library and print; heavy imports wait for the call."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from idml_hf.training.recipe import RetrievalRun, load_recipe

from .options import given, options_from

app = typer.Typer(
    name="idml-hf",
    help="Image embeddings that know when they may be wrong: train, evaluate, index, search, share.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

Dataset = Annotated[str, typer.Option(help="Name, folder (class folders or train/test.parquet), or Hub id")]
Root = Annotated[Path | None, typer.Option(help="Where a named data set lies on disk")]
GroupColumn = Annotated[str | None, typer.Option(help="Column of groups whose same-class matches do not count")]
SkipBad = Annotated[bool, typer.Option("--skip-bad-images", help="Go on without the images that cannot be read")]
Output = Annotated[Path, typer.Option(help="Folder to write")]
Model = Annotated[str, typer.Argument(help="Folder or Hub id of an IDML model")]
BatchSize = Annotated[int, typer.Option(help="Images at a time", min=1)]
Workers = Annotated[int, typer.Option(help="Processes that decode images", min=0)]


@app.command(
    epilog="Example: idml-hf train --dataset photos/ --loss proxy_anchor --form ratio --backbone resnet18 "
    "--embedding-dim 128 --image-size 224 --epochs 10 --output my-model"
)
@options_from(RetrievalRun)
def train(
    recipe: Annotated[list[Path] | None, typer.Argument(help="YAML files with the options below as keys")] = None,
    **options: Any,
) -> None:
    """Train a model, or fine-tune one (--model), and evaluate it on classes it has not seen.

    Options on the command line replace those of the recipes, and later recipes those of earlier ones. Output holds
    the model in Hub format, its metrics and a training curve.
    """
    settings = load_recipe(*(recipe or [])) | given(RetrievalRun, options)
    if not settings.get("output"):
        raise typer.BadParameter("give --output, the folder for the model", param_hint="--output")
    run = RetrievalRun(**settings)
    _quiet()
    from idml_hf.training.run import train_retrieval

    metrics = train_retrieval(run)
    if os.environ.get("RANK", "0") == "0":
        _report(metrics, Path(run.output))


@app.command(epilog="Example: idml-hf evaluate my-model --dataset emoji-mini --output report")
def evaluate(
    model: Model,
    dataset: Dataset,
    output: Output,
    root: Root = None,
    group_column: GroupColumn = None,
    split: Annotated[str, typer.Option(help="train, validation, test or all")] = "test",
    skip_bad_images: SkipBad = False,
    batch_size: BatchSize = 64,
    workers: Workers = 0,
) -> None:
    """Measure retrieval and uncertainty on a data set; writes metrics.json and an HTML report with pictures."""
    _quiet()
    from idml_hf.evaluation.run import evaluate_model

    metrics = evaluate_model(
        model,
        dataset,
        output,
        root=root,
        group_column=group_column,
        split=split,
        skip_bad_images=skip_bad_images,
        batch_size=batch_size,
        num_workers=workers,
    )
    _report(metrics, output)


@app.command(epilog="Example: idml-hf embed my-model --dataset photos/ --output embeddings")
def embed(
    model: Model,
    dataset: Dataset,
    output: Output,
    root: Root = None,
    split: Annotated[str | None, typer.Option(help="train, validation, test or all")] = None,
    skip_bad_images: SkipBad = False,
    batch_size: BatchSize = 64,
    workers: Workers = 0,
) -> None:
    """Embed images; writes embeddings.parquet, with a row for each image."""
    _quiet()
    from idml_hf.data import load_images

    from .embedding import embed_to_parquet

    images = load_images(dataset, split, root=root, skip_bad_images=skip_bad_images)
    file = embed_to_parquet(model, images, output, batch_size=batch_size, num_workers=workers)
    typer.echo(f"{len(images)} images in {file}")


@app.command(epilog="Example: idml-hf index my-model --dataset photos/ --output my-index")
def index(
    model: Model,
    dataset: Dataset,
    output: Output,
    root: Root = None,
    split: Annotated[str | None, typer.Option(help="train, validation, test or all")] = None,
    calibrate: Annotated[str | None, typer.Option(help="Labelled data to learn from when to say: not sure")] = None,
    group_column: GroupColumn = None,
    skip_bad_images: SkipBad = False,
    batch_size: BatchSize = 64,
    workers: Workers = 0,
) -> None:
    """Put a collection of images into an index that can be searched."""
    _quiet()
    from idml_hf.data import load_images
    from idml_hf.index import IDMLIndex

    images = load_images(dataset, split, root=root, group_column=group_column, skip_bad_images=skip_bad_images)
    built = IDMLIndex.build(model, images, batch_size=batch_size, num_workers=workers)
    if calibrate is not None:
        built.calibrate(load_images(calibrate, None, group_column=group_column, skip_bad_images=skip_bad_images))
    built.save(output)
    typer.echo(f"{len(built)} images in {output}")


@app.command(epilog="Example: idml-hf search my-index query.jpg --top-k 5")
def search(
    index: Annotated[Path, typer.Argument(help="Folder that `idml-hf index` wrote")],
    images: Annotated[list[Path], typer.Argument(help="Query images")],
    top_k: Annotated[int, typer.Option(help="Matches for each query", min=1)] = 5,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table")] = False,
    sheet: Annotated[Path | None, typer.Option(help="PNG file for a sheet of queries and matches")] = None,
    model: Annotated[str | None, typer.Option(help="Another copy of the model the index was built with")] = None,
    metric: Annotated[str, typer.Option(help="cosine, or introspective to rank by the distance D")] = "cosine",
    error_rate: Annotated[
        float | None, typer.Option(help="Accepted share of wrong first matches; the index must be calibrated")
    ] = None,
) -> None:
    """Search an index with pictures; says how certain each answer is."""
    _quiet()
    from .searching import search_index

    search_index(
        index, images, top_k=top_k, as_json=json, sheet=sheet, model=model, metric=metric, error_rate=error_rate
    )


@app.command("app", epilog="Example: idml-hf app my-model my-index")
def browse(
    model: Model,
    index: Annotated[str, typer.Argument(help="Folder or Hub id of an index")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Port; unset: the first free one from 7860 on")] = None,
) -> None:
    """Search an index in the browser (needs the extra `app`)."""
    _quiet()
    from idml_hf.app.page import launch_app

    launch_app(index, model, host=host, port=port)


@app.command(epilog="Example: idml-hf demo --output demo")
def demo(
    output: Output,
    weights: Annotated[Path | None, typer.Option(help="Local trunk weights in timm's naming")] = None,
) -> None:
    """The whole product on real pictures in minutes: train, evaluate, save, reload, search."""
    _quiet()
    from .demo import run_demo

    _report(run_demo(output, weights), output)


@app.command(epilog="Example: idml-hf push my-model org/my-model --private")
def push(
    folder: Annotated[Path, typer.Argument(help="Folder that `idml-hf train` or `demo` wrote")],
    repo: Annotated[str, typer.Argument(help="Repository on the Hub: ORG/NAME")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private")] = False,
    with_code: Annotated[
        bool, typer.Option("--with-code", help="Add the code that loads the model where idml_hf is not installed")
    ] = False,
    with_index: Annotated[bool, typer.Option("--with-index", help="Add the search index in FOLDER/index")] = False,
) -> None:
    """Push a model to the Hub with its model card, results and plots, in one commit."""
    _quiet()
    from idml_hf.hub import push_folder

    typer.echo(push_folder(folder, repo, private, with_code, with_index=with_index))


@app.command(epilog="Example: idml-hf export my-model --output onnx")
def export(model: Model, output: Output) -> None:
    """Write a model as ONNX, checked against PyTorch, with its image processor's settings."""
    _quiet()
    from idml_hf.export_onnx import export_onnx

    difference = export_onnx(model, output)
    typer.echo(f"{output / 'model.onnx'} computes what PyTorch does, to {difference:.1g}")


data_app = typer.Typer(help="Look after data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@data_app.command(epilog="Example: idml-hf data check cub --root CUB_200_2011 --output cub-check")
def check(
    dataset: Annotated[str, typer.Argument(help="Name, folder, or Hub id of a data set")],
    root: Root = None,
    output: Annotated[Path | None, typer.Option(help="Folder for report.json and a contact sheet")] = None,
) -> None:
    """Verify counts, classes, unreadable images and duplicates between train and test; exits with 1 on a problem."""
    _quiet()
    from idml_hf.data import check_dataset

    report = check_dataset(dataset, root)
    typer.echo(report.describe())
    if output is not None:
        import json as json_module

        output.mkdir(parents=True, exist_ok=True)
        (output / "report.json").write_text(json_module.dumps(report.to_dict(), indent=2), encoding="utf-8")
        report.contact_sheet.save(output / "contact_sheet.png")
    if not report.ok:
        raise typer.Exit(1)


def _quiet() -> None:
    """Keep other libraries' remarks out of the way of ours."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from transformers.utils import logging

    logging.set_verbosity_warning()


def _report(metrics: dict[str, Any], output: Path) -> None:
    from .metrics_table import metrics_table, print_table

    print_table(metrics_table(metrics))
    typer.echo(f"Everything is in {output}")


def main(arguments: list[str] | None = None) -> None:
    """Run `idml-hf`."""
    run_app(app, arguments)


def run_app(app: typer.Typer, arguments: list[str] | None = None) -> None:
    """Run an application. An error that names its cause is printed as one line, without a traceback."""
    # Threads that spin while they wait make small models twenty times slower as soon as another program wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app(arguments)
    except (ValueError, OSError, FloatingPointError, ImportError) as error:
        if os.environ.get("IDML_HF_TRACEBACK"):
            raise
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
        sys.exit(1)


__all__ = ["app", "main", "run_app"]
