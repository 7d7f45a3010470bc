"""The model card says what the run recorded, in metadata that the Hub reads and code that runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from idml_hf import IDMLConfig
from idml_hf.hub import RunRecord, render_card, validate_card, write_model_card
from idml_hf.hub.card import GENERATED
from idml_hf.hub.record import without_folders


def python_blocks(card: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", card, flags=re.MULTILINE | re.DOTALL)


def read_card(folder: Path, *arguments: object, **options: object) -> str:
    """The card, with the cells of its tables as wide as what they hold."""
    return re.sub(r" +\|", " |", write_model_card(folder, *arguments, **options).read_text())


def change(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_metadata_passes_the_hubs_own_reading_and_holds_the_measured_values(run_folder):
    card = ModelCard(write_model_card(run_folder).read_text())
    metrics = json.loads((run_folder / "metrics.json").read_text())
    results = {result.metric_type: result for result in card.data.eval_results}
    for key in ("recall_at_1", "recall_at_8", "map_at_r", "r_precision", "mrr", "nmi", "r_auroc", "aurc"):
        assert results[key].metric_value == metrics[key]
    first = results["recall_at_1"]
    assert (first.dataset_type, first.dataset_split) == ("emoji-mini", "test")
    assert first.dataset_args == {"protocol": "grouped:family"}
    assert card.data.model_name == "small-run" and card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "image-feature-extraction"
    assert card.data.license == "cc-by-sa-4.0"
    assert card.data.base_model == "timm/tf_efficientnet_lite0.in1k"


def test_the_hub_accepts_the_metadata(run_folder, classifier_folder, hub):
    for folder in (run_folder, classifier_folder):
        ModelCard.load(write_model_card(folder)).validate()
    with pytest.raises(ValueError, match="must be an array"):
        ModelCard("---\ndatasets: one\n---\n").validate()


def test_text_shows_results_pictures_data_and_settings(run_folder):
    text = read_card(run_folder)
    metrics = json.loads((run_folder / "metrics.json").read_text())
    assert f"| **this model** | {metrics['recall_at_1']:.4f} |" in text
    assert f"| **this model** | {metrics['plain_recall_at_1']:.4f} |" in text
    assert "| raw pixels | 0.2500 |" in text
    assert f"| uncertainty | {metrics['r_auroc']:.4f} | {metrics['aurc']:.4f} |" in text
    assert f"| margin | {metrics['auroc_margin']:.4f} |" in text
    assert "](risk_coverage.png)" in text and "](training_curve.png)" in text and "retrieval_sheet.png" not in text
    for owed in ("Twitter", "OpenMoji", "Google Inc", "Microsoft", "CC-BY-SA-4.0", "CC-BY-4.0", "MIT", "Apache-2.0"):
        assert owed in text
    assert "| `epochs` | `3` |" in text and '| `trainer` | `{"warmup_steps": 5}` |' in text
    assert "2205.04449" in text and "2309.09982" in text
    assert "not recorded, so these numbers do not show" in text


def test_the_plain_baseline_stands_beside_the_model_and_stays(run_folder, tmp_path):
    metrics = json.loads((run_folder / "metrics.json").read_text())
    baseline = tmp_path / "plain"
    baseline.mkdir()
    (baseline / "metrics.json").write_text(json.dumps(metrics | {"recall_at_1": 0.123, "form": "none"}))
    for text in (
        read_card(run_folder, baseline=baseline),
        read_card(run_folder),
    ):
        assert "| plain loss, otherwise the same | 0.1230 |" in text
        assert "not recorded, so these numbers" not in text
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_model_card(run_folder, baseline=tmp_path / "nowhere")


def test_no_path_of_the_machine_is_told(run_folder):
    text = read_card(run_folder, "org/name")
    assert "/home/someone" not in text and str(run_folder) not in text
    assert "| `weights` | `tf_efficientnet_lite0.in1k.safetensors` |" in text
    assert "`output`" not in text and "`root`" not in text and "`workers`" not in text


@pytest.mark.parametrize("gone", ["metrics.json", "run.json", "risk_coverage.png", "training_curve.png"])
def test_what_is_missing_is_left_out(run_folder, gone):
    (run_folder / gone).unlink()
    text = read_card(run_folder)
    validate_card(text)
    assert f"({gone})" not in text
    assert ("## Results" in text) == (gone != "metrics.json")


def test_a_model_alone_gets_a_card(run_folder):
    for name in ("metrics.json", "run.json", "risk_coverage.png", "training_curve.png"):
        (run_folder / name).unlink()
    text = read_card(run_folder)
    assert validate_card(text).eval_results is None
    assert "licence of the training data was not recorded" in text
    assert python_blocks(text)


def test_values_that_are_undefined_are_no_results(run_folder):
    change(run_folder / "metrics.json", uncertainty_is_constant=True)
    content = json.loads((run_folder / "metrics.json").read_text()) | {"r_auroc": None, "aurc": None}
    (run_folder / "metrics.json").write_text(json.dumps(content))
    text = read_card(run_folder)
    assert "r_auroc" not in {result.metric_type for result in validate_card(text).eval_results}
    assert "| uncertainty | undefined |" in text and "same for all images" in text


@pytest.mark.parametrize(
    ("own", "free", "expected"),
    [(0.8, 0.7, "foretells a wrong match better (AUROC 0.800) than"), (0.6, 0.7, "prefer it")],
)
def test_the_card_says_whether_the_uncertainty_is_worth_using(run_folder, own, free, expected):
    change(run_folder / "metrics.json", r_auroc=own, auroc_max_similarity=free, auroc_margin=free, auroc_norm=0.5)
    assert expected in read_card(run_folder)


def test_text_from_elsewhere_is_shown_and_does_nothing(run_folder):
    nasty = "<script>alert(1)<script> | **x** `y` _z_\n# heading"
    change(run_folder / "run.json", run={"dataset": nasty, "loss": "a|b", "weights": "`w`"})
    change(run_folder / "config.json", backbone="x`|<b>")
    text = read_card(run_folder, 'org/"name')
    data = validate_card(text)
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text.split("\n---\n", 1)[1])
    assert "<script>" not in html and "<b>" not in html and html.count("<h1>") == 1
    assert "&lt;script&gt;alert(1)&lt;script&gt; | **x** `y` _z_ # heading</code>" in html
    assert data.eval_results[0].dataset_name == nasty
    compile(python_blocks(text)[0], "card", "exec")
    rows = [line for line in text.splitlines() if "a\\|b" in line]
    assert rows == ["| `loss` | `a\\|b` |"]


NASTY = (
    "<b>x</b>",
    "<script>1</script>",
    "\\<b>",
    "`<i>`",
    "|<b>|",
    "</details>",
    "&#60;b>",
    "\n<p>",
    "[x](y)<a>",
)


@given(
    text=st.sampled_from(NASTY) | st.text(alphabet="<>b&\"'|*_`[](){}#!\n\\ -=:x1", min_size=1, max_size=30),
    key=st.sampled_from(["split", "protocol", "corruption_spearman_{}", "robustness_images"]),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(text="<b>", key="split")
@example(text="<b>", key="protocol")
@example(text="<b>", key="corruption_spearman_{}")
@example(text="<b>", key="robustness_images")
def test_no_text_of_a_folder_becomes_html(finished_run, text, key):
    """Whatever stands in `metrics.json`, the card shows it as text or refuses it."""
    record = RunRecord.read(finished_run)
    entry = {key.format(text): 0.5, "crop_test": 0.5} if "{}" in key else {key: text}
    record = replace(record, metrics=record.metrics | entry)
    body = render_card(record, "org/name", "name").split(GENERATED)[1]
    tokens = list(all_tokens(MarkdownIt("commonmark", {"html": True}).enable("table").parse(body)))
    assert not [token.content for token in tokens if token.type == "html_inline"]
    blocks = [token.content.strip() for token in tokens if token.type == "html_block"]
    assert sorted(block.split()[0] for block in blocks) == ["</details>", "<details><summary>Sources"]


def all_tokens(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from all_tokens(token.children or [])


@pytest.mark.parametrize(("key", "value"), [("recall_at_1", "<b>1</b>"), ("mrr", [1]), ("split", 3), ("seconds", {})])
def test_a_metric_that_is_no_number_is_refused(run_folder, key, value):
    change(run_folder / "metrics.json", **{key: value})
    with pytest.raises(ValueError, match=rf"metrics\.json is damaged: {key} is .* which is no (number|text)"):
        write_model_card(run_folder)


def test_a_card_of_ones_own_is_left_alone(run_folder):
    card = write_model_card(run_folder)
    mine = card.read_text().replace(GENERATED, "") + "\nMy own words.\n"
    card.write_text(mine)
    assert write_model_card(run_folder, "org/name").read_text() == mine


def test_classification(classifier_folder):
    text = read_card(classifier_folder)
    data = validate_card(text)
    assert {r.metric_type: r.metric_value for r in data.eval_results} == {
        "top1": 0.5,
        "top5": 0.9,
        "ece": 0.1,
        "nll": 1.5,
    }
    assert data.pipeline_tag == "image-classification" and data.datasets == ["uoft-cs/cifar10"]
    assert "| **this model** | 0.5000 | 0.9000 | 0.1000 | 1.5000 |" in text
    assert "similarity" not in python_blocks(text)[0]


@pytest.mark.parametrize("fixture", ["run_folder", "classifier_folder"])
def test_usage_code_runs_as_printed(fixture, request, capsys):
    blocks = python_blocks(write_model_card(request.getfixturevalue(fixture)).read_text())
    assert len(blocks) == (2 if fixture == "run_folder" else 1)
    for block in blocks:
        exec(compile(block, "card", "exec"), {})
    assert "uncertainty: tensor(" in capsys.readouterr().out


def test_a_configuration_says_only_what_it_says_and_the_rest_is_the_default(run_folder):
    (run_folder / "config.json").write_text(json.dumps({"model_type": "idml", "backbone": "test_resnet"}))
    text = read_card(run_folder)
    default = IDMLConfig()
    assert f"of {default.embedding_dim} values" in text and f"(form `{default.form}`)" in text
    assert f"up to {default.reference_size} training images" in text


def test_errors_name_the_file(run_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        write_model_card(tmp_path)
    (run_folder / "metrics.json").write_text("{nope")
    with pytest.raises(ValueError, match=r"metrics\.json is damaged: it is not JSON"):
        write_model_card(run_folder)
    with pytest.raises(ValueError, match="metadata"):
        validate_card("---\nmodel-index: 3\n---\n")


def test_names_without_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    assert without_folders("org/name") == "org/name"
    assert without_folders("emoji-mini") == "emoji-mini"
    assert [without_folders(x) for x in ("/a/b/c", "./x", "C:\\data\\birds", "photos")] == [
        "c",
        "x",
        "birds",
        "photos",
    ]
