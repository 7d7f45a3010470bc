"""The README: its Python runs as printed, and its commands exist with the options they are given."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import typer

from idml_hf import IDMLImageProcessor, IDMLModel

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_python_runs_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    IDMLModel.from_backbone("test_resnet", pretrained=False, embedding_dim=128).save_pretrained("demo")
    IDMLImageProcessor.from_backbone("test_resnet", image_size=48).save_pretrained("demo")
    names: dict = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert names["distances"].shape == (2, 2)
    assert (tmp_path / "my-index").is_dir() and (tmp_path / "my-finer-model" / "model.safetensors").exists()


COMMANDS = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("idml-hf ")]


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_exist_with_their_options(line):
    from idml_hf.cli.main import app

    _, name, *arguments = shlex.split(line)
    command = typer.main.get_command(app).commands[name]
    try:
        command.make_context(name, arguments)
    except click.exceptions.Exit as stop:
        assert stop.exit_code == 0
