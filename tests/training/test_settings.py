"""Settings: each declared once, checked by type and range, and handed on by name."""

from __future__ import annotations

import ast
import dataclasses
import json
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from transformers import PreTrainedConfig, TrainingArguments

import idml_hf
from idml_hf import IDMLConfig, configuration_idml
from idml_hf.training import ClassificationArguments, Run, load_recipe
from idml_hf.training.declaration import checked, declared
from idml_hf.training.effective import effective_settings
from idml_hf.training.models import CONFIG_FIELDS, model_fields, run_config
from idml_hf.training.recipes import find_recipe, packaged_recipes
from idml_hf.training.run import training_arguments
from idml_hf.training.settings import TASKS as RUN_TASKS
from idml_hf.training.settings import DataSettings, ModelSettings, TrainingSettings

OWN_CONFIG = {f.name for f in dataclasses.fields(IDMLConfig)} - {f.name for f in dataclasses.fields(PreTrainedConfig)}
OWN_ARGUMENTS = {f.name for f in dataclasses.fields(ClassificationArguments)} - {
    f.name for f in dataclasses.fields(TrainingArguments)
}


class TestEachOnce:
    # names that mean something else elsewhere: images embedded at a time and their precision, a picture's columns, a
    # data set's own task, whether an index may be replaced
    HOMONYMS = {"batch_size", "precision", "images_per_class", "task", "overwrite"}
    # the public functions of the metric and of the losses show their own
    SHOWN = {"form", "tau"}

    @staticmethod
    def literal(node):
        """The value that is written there, of a field's declaration its default; None for what is computed."""
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("field", "option"):
            named = [keyword.value for keyword in node.keywords if keyword.arg == "default"]
            return TestEachOnce.literal((named or node.args or [ast.Constant(None)])[0])
        try:
            return ast.literal_eval(node)
        except ValueError:
            return None

    @classmethod
    def written_defaults(cls, source):
        """Name and literal default of each annotated class attribute and each parameter in a module."""
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                for line in node.body:
                    if isinstance(line, ast.AnnAssign) and line.value is not None:
                        yield line.target.id, cls.literal(line.value)
            elif isinstance(node, ast.FunctionDef):
                positional = node.args.posonlyargs + node.args.args
                first = len(positional) - len(node.args.defaults)
                for argument, default in zip(positional[first:], node.args.defaults, strict=True):
                    yield argument.arg, cls.literal(default)
                for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
                    if default is not None:
                        yield argument.arg, cls.literal(default)

    def test_no_default_is_written_twice(self):
        """Zero, false and none leave something out; every other default of a setting stands in one place."""
        names = ({*declared(Run)} | OWN_CONFIG | OWN_ARGUMENTS) - self.HOMONYMS - self.SHOWN
        places = defaultdict(list)
        root = Path(idml_hf.__file__).parent
        for path in root.rglob("*.py"):
            for name, default in self.written_defaults(path.read_text(encoding="utf-8")):
                if name in names and default:
                    places[name].append((path.relative_to(root).as_posix(), default))
        assert len(places) > 20, "the defaults are found"
        assert {name: found for name, found in places.items() if len(found) > 1} == {}

    def test_the_search_finds_a_second_default(self):
        source = (
            "class A:\n    tau: float = 5.0\n    epochs: int = option(20, 'help')\ndef f(tau=4.0, *, flip=FLIP): ...\n"
        )
        assert list(self.written_defaults(source)) == [("tau", 5.0), ("epochs", 20), ("tau", 4.0), ("flip", None)]

    def test_every_field_of_the_model_can_be_set(self):
        unset = {f.name: f.default for f in dataclasses.fields(ModelSettings) if f.default is not dataclasses.MISSING}
        assert set(unset.values()) == {None}
        # what the training classes say
        assert OWN_CONFIG - {"num_train_classes"} == CONFIG_FIELDS
        assert (*configuration_idml.TASKS,) == RUN_TASKS

    def test_every_setting_stands_in_one_group(self):
        groups = [ModelSettings, DataSettings, TrainingSettings]
        names = [name for group in groups for name in declared(group)]
        assert len(names) == len(set(names))
        assert set(declared(Run)) - set(names) == {"task", "output", "resume", "overwrite"}


class TestHandedOn:
    @pytest.mark.parametrize("task", RUN_TASKS)
    @pytest.mark.parametrize("method", configuration_idml.METHODS)
    def test_methods_are_those_of_the_configuration(self, task, method):
        run = Run(output="x", dataset="d", task=task, method=method)
        settings, config = effective_settings(run), IDMLConfig.from_method(method, task)
        assert settings["method"] == method
        assert {name: settings[name] for name in CONFIG_FIELDS} == {n: getattr(config, n) for n in CONFIG_FIELDS}

    def test_what_is_set_replaces_the_methods(self):
        run = Run(output="x", method="published", tau=3.0, loss="contrastive", freeze_batch_norm=True)
        assert model_fields(run) == {"tau": 3.0, "loss": "contrastive", "freeze_batch_norm": True}
        config = run_config(run)
        assert (config.tau, config.uncertainty_activation, config.freeze_batch_norm) == (3.0, "l2", True)

    def test_trainer_arguments_get_what_is_set_and_keep_their_defaults(self):
        run = Run(output="x", epochs=3, batch_size=8, mixup=True, trainer={"mixup_alpha": 0.5, "use_cpu": True})
        args = training_arguments(run)
        assert (args.num_train_epochs, args.per_device_train_batch_size) == (3, 8)
        assert (args.mixup, args.mixup_alpha, args.learning_rate) == (True, 0.5, run.learning_rate)
        assert not training_arguments(Run(output="x", trainer={"use_cpu": True})).mixup

    @pytest.mark.parametrize(
        ("trainer", "message"),
        [
            ({"warmup_step": 3}, "Did you mean 'warmup_steps'"),
            ({"learning_rate": 1e-3}, "it is the setting learning_rate"),
            ({"num_train_epochs": 3}, "it is the setting epochs"),
            ({"fp16": True}, "it is the setting precision"),
            ({"mixup": True}, "it is the setting mixup"),
            ({"warmup_steps": "many"}, "trainer argument warmup_steps must be a number, not 'many'"),
            ({"max_steps": 2.5}, "trainer argument max_steps must be a whole number, not 2.5"),
            ({"use_cpu": 1}, "trainer argument use_cpu must be true or false, not 1"),
            ({"learning_rate_multipliers": [1]}, "must be a mapping or a text or unset"),
            ({"adam_epsilon": math.inf}, "must be finite"),
        ],
    )
    def test_the_back_door_is_watched(self, trainer, message):
        with pytest.raises(ValueError, match=message):
            training_arguments(Run(output="x", trainer={"use_cpu": True} | trainer))


# a value of another type than the setting's, for each kind of type
WRONG = {
    bool: [1, "true", 0.0],
    int: [1.5, "3", True, math.nan],
    float: ["1", True, math.nan, math.inf, [1.0]],
    str: [3, True, ["a"]],
    dict: ["a", 3, ["a"]],
}


def kinds(hint):
    return [
        kind for kind in WRONG if kind in (hint, getattr(hint, "__origin__", None), *getattr(hint, "__args__", ()))
    ]


class TestChecks:
    @pytest.mark.parametrize("name", declared(Run))
    def test_a_value_of_another_type_is_refused_by_name(self, name):
        (kind,) = (
            kinds(declared(Run)[name][1]) if name not in ("trainer", "backbone_kwargs", "loss_kwargs") else [dict]
        )
        for value in WRONG[kind]:
            with pytest.raises(ValueError, match=rf"^{name} must be"):
                checked(Run, name, value)

    @hypothesis_settings(max_examples=300, deadline=None)
    @given(st.sampled_from(sorted(declared(Run))), st.one_of(st.integers(), st.floats(), st.booleans(), st.text()))
    def test_what_passes_has_the_type_and_lies_in_the_range(self, name, value):
        spec, hint = declared(Run)[name]
        try:
            passed = checked(Run, name, value)
        except ValueError as error:
            assert name in str(error) and "\n" not in str(error).replace(repr(value), "")
            return
        assert type(passed) in kinds(hint)
        bounds = spec.metadata["bounds"]
        for key, holds in (
            ("at_least", lambda b: passed >= b),
            ("above", lambda b: passed > b),
            ("at_most", lambda b: passed <= b),
            ("below", lambda b: passed < b),
        ):
            assert bounds[key] is None or holds(bounds[key])

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"epochs": 0}, "epochs must be at least 1, not 0"),
            ({"epochs": -1}, "epochs must be at least 1, not -1"),
            ({"batch_size": 0}, "batch_size must be at least 1"),
            ({"learning_rate": 0.0}, "learning_rate must be above 0"),
            ({"validation_fraction": 1.0}, "validation_fraction must be below 1"),
            ({"flip": 1.1}, "flip must be at most 1"),
            ({"precision": "fp61"}, "Did you mean 'fp16'"),
            ({"task": "retreival"}, "Did you mean 'retrieval'"),
            ({"mix": "cutmix"}, "mix is a setting of task classification, not of retrieval"),
            ({"task": "classification", "dataset": "d", "loss": "fast_ap"}, "loss is a setting of task retrieval"),
            ({"task": "classification"}, "needs a data set"),
            ({"resume": True, "overwrite": True}, "set one of them"),
            ({"trainer": {"hub_token": "hf_x"}}, "trainer may not hold hub_token"),
            ({"trainer": {"accelerator_config": {"my_secret": 1}}}, "trainer may not hold my_secret"),
        ],
    )
    def test_what_is_refused(self, settings, message):
        with pytest.raises(ValueError, match=message):
            Run(**({"output": "x"} | settings))

    def test_numbers_of_numpy_and_paths_pass(self):
        run = Run(output=Path("x"), seed=np.int64(3), learning_rate=np.float32(0.5), epochs=np.uint8(2))
        assert (run.output, run.seed, run.learning_rate, run.epochs) == ("x", 3, 0.5, 2)
        assert json.loads(json.dumps(dataclasses.asdict(run)))["seed"] == 3


class TestRecipeValues:
    def read(self, folder, text):
        (folder / "recipe.yaml").write_text(text)
        return load_recipe(folder / "recipe.yaml")

    @pytest.mark.parametrize("written", ["1e-4", "1.0e-4", "1E-4", "+1e-4", ".0001", "0.0001", "100e-6", "1.e-4"])
    def test_every_way_to_write_a_number_is_one(self, tmp_path, written):
        settings = self.read(tmp_path, f"learning_rate: {written}\ntrainer: {{adam_epsilon: {written}}}\n")
        assert settings == {"learning_rate": 1e-4, "trainer": {"adam_epsilon": 1e-4}}

    @hypothesis_settings(max_examples=200, deadline=None)
    @given(st.floats(min_value=1e-300, max_value=1e300))
    def test_floats_come_back(self, tmp_path_factory, value):
        folder = tmp_path_factory.mktemp("recipe")
        assert self.read(folder, f"learning_rate: {value!r}\n") == {"learning_rate": value}

    def test_words_stay_words(self, tmp_path):
        settings = self.read(tmp_path, "trainer: {save_strategy: no, run_name: 1:30}\nform: none\nroot: null\n")
        assert settings == {"trainer": {"save_strategy": "no", "run_name": "1:30"}, "form": "none", "root": None}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("epochs: 0\n", "epochs must be at least 1"),
            ("epochs: many\n", "epochs must be a whole number, not 'many'"),
            ("learning_rate: 1e-4x\n", "learning_rate must be a number, not '1e-4x'"),
            ("mixup: yes\n", "mixup must be true or false or unset, not 'yes'"),
            ("trainer: 3\n", "trainer must be a mapping"),
            ("3: 4\n", "Unknown recipe key 3"),
        ],
    )
    def test_the_file_and_the_setting_are_named(self, tmp_path, text, message):
        (tmp_path / "run.yaml").write_text("base: recipe.yaml\n")
        with pytest.raises(ValueError, match=rf"recipe\.yaml: {message}"):
            self.read(tmp_path, text)
        # also where the file at fault is another's base
        with pytest.raises(ValueError, match=rf"recipe\.yaml: {message}"):
            load_recipe(tmp_path / "run.yaml")

    def test_recipes_that_include_each_other(self, tmp_path):
        (tmp_path / "sub").mkdir()
        for name, base in (("a", "sub/../b"), ("b", "./sub/c"), ("sub/c", "../a")):
            (tmp_path / f"{name}.yaml").write_text(f"base: {base}.yaml\n")
        with pytest.raises(ValueError, match="is its own base"):
            load_recipe(tmp_path / "a.yaml")

    def test_recipes_come_with_the_package(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert load_recipe("paper/cub")["dataset"] == "cub"
        with pytest.raises(FileNotFoundError, match=r"No recipe at paper/cup\. Did you mean 'paper/cub'"):
            load_recipe("paper/cup")
        # a file of one's own comes first
        (tmp_path / "emoji").write_text("epochs: 1\n")
        assert load_recipe("emoji") == {"epochs": 1}
        assert all(find_recipe(name).is_file() for name in packaged_recipes())
