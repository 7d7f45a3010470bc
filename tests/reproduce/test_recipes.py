"""Every recipe of every table: its settings are those of the paper, its model, loss, optimizer and schedule build."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset

from idml_hf import IDMLForMetricLearning, IDMLTrainer, modeling_idml
from idml_hf.data import DATASETS
from idml_hf.losses import LOSSES
from idml_hf.reproduce.estimate import fresh_model
from idml_hf.reproduce.plan import settings_of
from idml_hf.reproduce.tables import LOSS_ROWS, TABLES
from idml_hf.training import Run, load_recipe
from idml_hf.training.effective import effective_settings
from idml_hf.training.recipes import packaged_recipes
from idml_hf.training.run import training_arguments

RECIPES = Path(__file__).parents[2] / "training_scripts" / "recipes"
ALL_ROWS = [(table, row) for table in TABLES.values() for row in table.rows]

# The authors' README and train.py: batch 120, AdamW, weight decay 1e-4, 60 epochs, 512 values pooled by average plus
# maximum, five epochs with the trunk frozen, batch normalisation frozen, values clipped at 10, proxies learning 100
# times as fast; then by data set the learning rate, and how often it falls by which factor.
PAPER = {"cub": (6e-4, 5, 0.5), "cars": (2.5e-4, 10, 0.5), "sop": (6e-4, 10, 0.25)}
PAPER_MULTIPLIERS = {"proxies": 100, "heads": 1}
MULTIPLIERS = {"dinov2": {"proxies": 1000, "heads": 10}, "siglip": {"proxies": 1000, "heads": 10}}
# PML's, the authors' and RDML's defaults of the losses
MARGINS = {
    "contrastive": {"pos_margin": 0.0, "neg_margin": 0.5},
    "triplet_semihard": {"margin": 0.1},
    "margin_dw": {"margin": 0.2, "beta": 1.2, "nu": 0.0, "cutoff": 0.5, "nonzero_loss_cutoff": 1.4},
    "multi_similarity": {"alpha": 2.0, "beta": 50.0, "base": 0.5, "epsilon": 0.1},
    "fast_ap": {"num_bins": 10},
    "proxy_nca": {"scale": 32.0},
    "proxy_anchor": {"margin": 0.1, "alpha": 32.0},
}


def run_of(table, row, **changes):
    return Run(output="somewhere", **(settings_of(table, row, RECIPES) | changes))


@pytest.mark.parametrize("name", PAPER)
def test_retrieval_settings_are_the_papers(name):
    rate, step, gamma = PAPER[name]
    assert len(TABLES[name].rows) == 14
    for row, (loss, plain) in zip(TABLES[name].rows, itertools.product(LOSS_ROWS, (True, False)), strict=True):
        run = run_of(TABLES[name], row)
        assert (run.dataset, run.loss, run.loss_kwargs) == (name, loss[2], MARGINS[loss[2]])
        assert (row.name, row.against) == ((loss[0], None) if plain else (loss[1], loss[0]))
        assert run.method == ("plain" if plain else "published")
        assert effective_settings(run)["form"] == ("none" if plain else "ratio")
        assert (run.batch_size, run.epochs, run.weight_decay) == (120, 60, 1e-4)
        assert (run.embedding_dim, run.pool, run.backbone) == (512, "avg_max", "resnet50.tv_in1k")
        assert (run.image_size, run.crop_pct, run.crop_scale) == (224, 224 / 256, 0.08)
        assert run.learning_rate == rate and run.freeze_batch_norm and run.mixup
        args = training_arguments(run, progress=False, use_cpu=True)
        assert (
            args.mixup and args.optim == "adamw_torch" and args.frozen_trunk_epochs == 5 and args.clip_grad_value == 10
        )
        assert (args.lr_step_epochs, args.lr_step_gamma) == ([step], gamma)
        assert list(args.learning_rate_multipliers.values()) == [100.0]


@pytest.mark.parametrize("name", ["imagenet", "cifar10", "cifar100", "cifar10-resnet50", "cifar100-resnet50"])
def test_classification_settings_are_those_of_cutmix(name):
    """clovaai/CutMix-PyTorch, README and train.py."""
    rows = [run_of(TABLES[name], row) for row in TABLES[name].rows]
    assert [run.mix for run in rows] == ["none", "none", "mixup", "mixup", "cutmix", "cutmix"]
    assert [effective_settings(run)["form"] for run in rows] == ["none", "released_classification"] * 3
    imagenet = name == "imagenet"
    for run in rows:
        assert run.epochs == 300 and run.pretrained is False
        settings = effective_settings(run)
        assert settings["tau"] == 5 and settings["uncertainty_dim"] == 512
        assert settings["uncertainty_activation"] == "relu" and settings["uncertainty_head"] == "linear"
        assert (run.batch_size, run.learning_rate, run.weight_decay) == ((256, 0.1) if imagenet else (64, 0.25)) + (
            1e-4,
        )
        assert run.augmentation == ("crop" if imagenet else "shift") and settings["flip"] == 0.5
        assert (settings["padding"], run.image_size) == (4, 224 if imagenet else 32)
        args = training_arguments(run, progress=False, use_cpu=True)
        assert (args.mix, args.mix_alpha, args.mix_probability) == (
            run.mix,
            settings["mix_alpha"],
            settings["mix_probability"],
        )
        assert args.optim == "sgd" and args.decay_all and args.clip_grad_value is None
        assert (args.lr_step_epochs, args.lr_step_gamma) == ([75] if imagenet else [150, 225], 0.1)
        if run.mix != "none":
            assert run.mix_alpha == 1.0
            assert run.mix_probability == (1.0 if imagenet or run.mix == "mixup" else 0.5)
    trunk = "resnet50" if imagenet else "resnet50_small" if "resnet50" in name else "pyramidnet200_a240"
    assert {run.backbone for run in rows} == {trunk}


@pytest.fixture(scope="module")
def trunks_once():
    """Builds each trunk once: a table's rows share theirs, and trunks without memory can be shared."""
    create, trunks = modeling_idml.create_trunk, {}

    def create_once(name, **kwargs):
        key = name, str(kwargs)
        if key not in trunks:
            trunks[key] = create(name, **kwargs)
        return trunks[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modeling_idml, "create_trunk", create_once)
        yield


@pytest.mark.parametrize(("table", "row"), ALL_ROWS, ids=[f"{table.name}-{row.name}" for table, row in ALL_ROWS])
def test_every_row_builds_on_the_meta_device(table, row, trunks_once):
    run = run_of(table, row)
    with torch.device("meta"):
        model = fresh_model(run)
    assert model.device.type == "meta" and model.config.method == (run.method if row.against else "plain")
    classes = DATASETS[run.dataset].expected["train"][1]
    if table.task == "retrieval":
        assert type(model.loss) is LOSSES[run.loss] and model.config.num_train_classes == classes
        assert model.idml.semantic_head.out_features == run.embedding_dim
        frozen = [m for m in model.train().trunk.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert all(m.training != bool(run.freeze_batch_norm) for m in frozen)
    else:
        assert model.classifier.out_features == classes


class Nothing(Dataset):
    labels = torch.zeros(1200, dtype=torch.int64).numpy()

    def __len__(self):
        return len(self.labels)


def trainer_of(run, tmp_path):
    """The trainer of a run, with a small trunk in place of its own."""
    model = IDMLForMetricLearning.from_backbone(
        "test_resnet", pretrained=False, num_train_classes=10, embedding_dim=16, loss=run.loss, method=run.method
    )
    own = {"use_cpu": True, "output_dir": str(tmp_path), "bf16": False}
    args = training_arguments(run, progress=False, **own)
    return IDMLTrainer(model, args, train_dataset=Nothing())


@pytest.mark.parametrize("name", ["cub", "cars", "sop", "cub-dinov2", "cub-siglip"])
def test_optimizer_groups_and_schedule(name, tmp_path):
    table = TABLES[name]
    for row in table.rows:
        run = run_of(table, row, precision="fp32")
        trainer = trainer_of(run, tmp_path)
        steps = 10
        trainer.create_optimizer_and_scheduler(steps * run.epochs)
        assert type(trainer.optimizer).__name__ == "AdamW"
        names = {id(p): n for n, p in trainer.model.named_parameters()}
        group_of = {names[id(p)]: g for g in trainer.optimizer.param_groups for p in g["params"]}
        assert len(group_of) == len(names)
        rate, multipliers = run.learning_rate, MULTIPLIERS.get(name.split("-")[-1], PAPER_MULTIPLIERS)
        for parameter, group in group_of.items():
            factor = 1
            if parameter.endswith("proxies"):
                factor = multipliers["proxies"]
            elif "_head." in parameter:
                factor = multipliers["heads"]
            assert group["initial_lr"] == pytest.approx(rate * factor), parameter
            decays = not parameter.endswith("bias") and "bn" not in parameter and "downsample.1" not in parameter
            if "head" in parameter or parameter.endswith("conv1.weight"):
                assert group["weight_decay"] == (run.weight_decay if decays else 0), parameter
        assert any(n.endswith("proxies") for n in group_of) == (run.loss in ("proxy_anchor", "proxy_nca"))
        rates = []
        for _ in range(run.epochs):
            rates.append(trainer.lr_scheduler.get_last_lr()[0] / trainer.optimizer.param_groups[0]["initial_lr"])
            for _ in range(steps):
                trainer.optimizer.step()
                trainer.lr_scheduler.step()
        if name in PAPER:
            _, every, gamma = PAPER[name]
            assert rates == pytest.approx([gamma ** (epoch // every) for epoch in range(60)])


def test_every_part_can_be_given_to_the_command_line():
    """A data set's, a loss's and a form's part, put together in one call."""
    for data, loss, form in itertools.product(PAPER, MARGINS, ("none", "ratio")):
        parts = (f"paper/{data}.yaml", f"losses/{loss}.yaml", f"forms/{form}.yaml")
        settings = load_recipe(*(RECIPES / part for part in parts))
        assert (settings["dataset"], settings["loss"], settings["form"]) == (data, loss, form)
        # mappings of several parts are merged
        assert settings["trainer"]["frozen_trunk_epochs"] == 5 and "lr_step_epochs" in settings["trainer"]
    released = load_recipe(
        RECIPES / "paper/cub.yaml", RECIPES / "losses/proxy_anchor.yaml", RECIPES / "forms/released.yaml"
    )
    settings = effective_settings(Run(output="x", **released))
    assert settings["uncertainty_activation"] == "l2" and settings["method"] == "released"


def test_no_recipe_is_left_out():
    """Every file belongs to a table, is a base of one, or is a form of the metric or a tuned loss, to put together."""
    used = {part for table in TABLES.values() for row in table.rows for part in row.recipes}
    bases = {
        "paper/retrieval.yaml",
        "modern/vit.yaml",
        "classification/cutmix_setting.yaml",
        "classification/cifar.yaml",
    }
    there = {path.relative_to(RECIPES).as_posix() for path in RECIPES.rglob("*.yaml")}
    forms = {f"forms/{form}.yaml" for form in ("none", "ratio", "released", "released_classification")}
    tuned = {path for path in there if path.startswith("tuned/")}
    assert there == used | bases | forms | tuned
    assert there == {f"{name}.yaml" for name in packaged_recipes()}


TUNED = [name for name in packaged_recipes() if name.startswith("tuned/")]


def test_both_kinds_of_loss_have_tuned_recipes():
    assert {name.split("/")[1] for name in TUNED} == {"plain", "introspective"}


@pytest.mark.parametrize("name", TUNED)
def test_tuned_losses_are_not_the_papers(name):
    """What beat the paper's settings on two sets has a recipe of its own; the paper's recipes keep the paper's."""
    _, method, loss = name.split("/")
    run = Run(output="somewhere", **load_recipe(RECIPES / f"{name}.yaml"))
    assert (run.method, run.loss) == (method, loss)
    assert run.loss_kwargs.items() != MARGINS[loss].items()
    model = IDMLForMetricLearning.from_backbone(
        "resnet18",
        pretrained=False,
        method=run.method,
        loss=loss,
        loss_kwargs=run.loss_kwargs,
        embedding_dim=8,
        num_train_classes=3,
    )
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    assert model.train()(torch.randn(6, 3, 32, 32), labels=labels).loss.isfinite()
