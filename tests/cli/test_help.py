"""Every command: its help has an example, and the example runs."""

from __future__ import annotations

import re
import shlex
import shutil

import pytest
import typer
from small import run, save_model, save_photos

from idml_hf import IDMLIndex
from idml_hf.cli.main import app

# an example that serves until it is interrupted, one that needs a Hub, a data set that is not here, an extra
NOT_RUN = {"app": "serves", "push": "Hub", "data check": "data set", "export": "extra onnx", "demo": "minutes"}
# trainings cut down to what shows that the command works
SMALL = {
    "train": ["--backbone", "test_resnet", "--no-pretrained", "--epochs", "1", "--image-size", "32"],
    "features": ["--backbone", "test_resnet", "--no-pretrained", "--image-size", "32"],
    "tune": ["--trials", "2"],
}


def commands():
    """Name -> command, for all of them."""
    found, left = {}, [("", typer.main.get_command(app))]
    while left:
        prefix, group = left.pop(0)
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                left.append((f"{prefix}{name} ", command))
            else:
                found[f"{prefix}{name}"] = command
    return found


COMMANDS = commands()


def example(name):
    words = shlex.split(COMMANDS[name].epilog.removeprefix("Example: "))
    assert words[0] == "idml-hf" and " ".join(words[1:]).startswith(name)
    return words[1:]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_has_an_example_whose_options_exist(name, capsys):
    assert not run(*name.split(), "--help")
    shown = re.sub(r"[│\s]+", " ", capsys.readouterr().out)
    assert f"Example: idml-hf {name}" in shown and "--quiet" in shown
    command = COMMANDS[name]
    command.make_context(name, example(name)[len(name.split()) :])
    for parameter in command.params:
        assert parameter.name == "help" or parameter.help, f"{parameter.name} of {name} has no help"


@pytest.fixture(scope="module")
def beginning(tmp_path_factory):
    """What the examples speak of: pictures, a model, an index."""
    folder = tmp_path_factory.mktemp("beginning")
    save_model(folder / "my-model")
    save_photos(folder / "photos", range(8), 4)
    save_photos(folder / "more-photos", range(8, 10), 2)
    (folder / "photos" / "red mug").mkdir()
    shutil.copyfile(folder / "photos" / "class [0]" / "0.png", folder / "photos" / "red mug" / "3.jpg")
    shutil.copyfile(folder / "photos" / "class [0]" / "0.png", folder / "query.jpg")
    IDMLIndex.build(folder / "my-model", str(folder / "photos")).save(folder / "my-index")
    return folder


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in NOT_RUN])
def test_the_example_runs(name, beginning, tmp_path, monkeypatch, capsys):
    place = tmp_path / "place"
    shutil.copytree(beginning, place)
    monkeypatch.chdir(place)
    monkeypatch.setattr("sys.stdin", None)
    if name == "remove":
        index = IDMLIndex.build("my-model", ["photos/red mug/3.jpg", "query.jpg"], progress=False)
        index.save("my-index")
    if name == "index":
        shutil.rmtree("my-index")
    if name == "train":
        shutil.rmtree("my-model")
    words = example(name)
    if name == "tune":
        pytest.importorskip("optuna")
        assert not run(*example("features"), *SMALL["features"])
    if name == "audit":  # no weights of a backbone are here
        at = words.index("--backbone")
        words[at : at + 2] = ["--model", "my-model"]
    capsys.readouterr()
    assert not run(*words, *SMALL.get(name, []), "--quiet")
    printed = capsys.readouterr()
    assert "{'loss'" not in printed.out and not printed.err
