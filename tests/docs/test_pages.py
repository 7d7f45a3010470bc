"""The pages: their Python and shell runs from top to bottom, and every option they name exists."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from pages import DOCS, README, ROOT, Block, blocks, pages, split_command, written_options

from idml_hf.cli.main import app, main

# what the extras that a page installs bring with them
EXTRAS = {
    "app": ("gradio",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "milvus": ("pymilvus", "milvus_lite"),
    "st": ("sentence_transformers",),
    "tune": ("optuna",),
}
# a training as a page recommends it, cut down to what shows that the command works
SMALL = {"--backbone": "test_resnet", "--epochs": "1", "--image-size": "32", "--batch-size": "16"}


def run_page(page: Path, todo: tuple[str, ...], organisation: str) -> None:
    """Run the blocks of a page in the working folder; skip a page that installs what is not installed."""
    for extra in re.findall(r'pip install "idml-hf\[(\w+)\]"', page.read_text(encoding="utf-8")):
        for package in EXTRAS[extra]:
            pytest.importorskip(package)
    names: dict = {"__name__": "__main__"}
    for block in blocks(page):
        code = block.code.replace('"org/', f'"{organisation}/').replace(" org/", f" {organisation}/")
        if block.title is not None:
            Path(block.title).write_text(code, encoding="utf-8")
        elif block.todo not in todo:
            continue
        elif block.language == "python":
            # padded, so that a traceback names the line of the page
            exec(compile("\n" * (block.line - 1) + code, str(page), "exec"), names)
        elif block.language == "bash":
            for command in Block(block.language, code, block.line, None, block.todo).commands:
                run_command(command)


def run_command(command: str) -> None:
    """Run one line of shell; `idml-hf` in this process, for a new one takes seconds to start."""
    words = shlex.split(command)
    if words[0] == "idml-hf":
        with pytest.raises(SystemExit) as stop:
            main(made_small(words[1:]))
        assert not stop.value.code, command
        return
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    if words[0] == "python":
        words[0] = sys.executable
    words = [str(ROOT / word) if word.startswith(("training_scripts/", "benchmarks/")) else word for word in words]
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, f"{command}\n{ended.stderr[-3000:]}"


def made_small(arguments: list[str]) -> list[str]:
    """The arguments of a command, with those of a training replaced by small ones."""
    if arguments[0] == "tune":
        return [*arguments, "--trials", "2", "--epochs", "1", "--batch-size", "16"]
    if arguments[0] not in ("train", "features"):
        return arguments
    given = [name for name in SMALL if name in arguments]
    replaced = [part for name in given for part in (name, SMALL[name])]
    fresh = "--model" not in arguments and "--features" not in arguments
    always = ["--epochs", "1"] * (arguments[0] == "train")
    always += ["--backbone", "test_resnet", "--image-size", "32", "--no-pretrained"] * fresh
    return [*arguments, *replaced, *always]


WITH_CODE = [page for page in pages() if page == README or page.is_relative_to(DOCS)]
RUN = [page for page in WITH_CODE if any(b.todo == "run" and b.language in ("python", "bash") for b in blocks(page))]
SLOW = [page for page in WITH_CODE if any(b.todo == "slow" for b in blocks(page))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_the_page_runs_from_top_to_bottom(page, workspace, hub, organisation, monkeypatch):
    monkeypatch.syspath_prepend(workspace)
    run_page(page, ("run",), organisation)


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW, ids=name_of)
def test_the_page_runs_with_what_takes_long(page, workspace, hub, organisation, monkeypatch):
    monkeypatch.syspath_prepend(workspace)
    run_page(page, ("run", "slow"), organisation)


COMMANDS = [
    pytest.param(command, id=f"{name_of(page)}:{block.line} {command[:60]}")
    for page in pages()
    for block in blocks(page)
    if block.language in ("bash", "sh")
    for command in block.commands
    if split_command(command)
]


def the_command(words: list[str]) -> tuple[typer.core.TyperCommand, list[str]]:
    """The command of `idml-hf` that words name, and its arguments."""
    command = typer.main.get_command(app)
    words = list(words)
    while hasattr(command, "commands"):
        assert words[0] in command.commands, f"there is no command {words[0]}"
        command = command.commands[words.pop(0)]
    return command, words


@pytest.mark.parametrize("line", COMMANDS)
def test_the_command_exists_with_its_options(line):
    program, arguments = split_command(line)
    same = {"training_scripts/train_retrieval.py": "train", "training_scripts/evaluate_retrieval.py": "evaluate"}
    if program in same:
        program, arguments = "idml-hf", [same[program], *arguments]
    if program == "idml-hf":
        command, arguments = the_command(arguments)
        command.make_context(command.name, arguments)
        return
    script = next(
        (folder / program for folder in (ROOT, *ROOT.glob("training_scripts")) if (folder / program).exists()), None
    )
    if script is None:
        return  # a file that the page itself has
    source = script.read_text(encoding="utf-8")
    for option in (word.split("=")[0] for word in arguments if word.startswith("--")):
        assert knows_option(source, option), f"{program} has no option {option}"


def knows_option(source: str, option: str) -> bool:
    """Whether the source of a script with argparse or typer declares an option."""
    return f'"{option}"' in source or f"    {option[2:].replace('-', '_')}: Annotated" in source


def all_options() -> set[str]:
    found = set()
    commands = [typer.main.get_command(app)]
    while commands:
        command = commands.pop()
        commands += list(getattr(command, "commands", {}).values())
        found |= {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    return found


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_an_option_that_the_prose_names_exists(page):
    options = written_options(page) - all_options()
    scripts = [*ROOT.glob("training_scripts/*.py"), *ROOT.glob("benchmarks/*.py")]
    sources = [path.read_text(encoding="utf-8") for path in scripts]
    others = {"--num_processes", "--multi_gpu", "--help"}  # of accelerate, and of every command
    unknown = {o for o in options - others if not any(knows_option(source, o) for source in sources)}
    assert not unknown, f"{name_of(page)} names {unknown}"
