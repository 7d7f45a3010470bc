"""Pushing over HTTP: what goes up, what never does, and that a push which fails leaves nothing behind."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from hub_standin import Refusal
from PIL import Image

import idml_hf
from idml_hf import IDMLForMetricLearning, IDMLImageProcessor, IDMLIndex, IDMLModel, IDMLTrainer, IDMLTrainingArguments
from idml_hf.cli import main
from idml_hf.hub import push_folder, validate_card
from idml_hf.hub.card import GENERATED

MODEL = {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"}
ENCODER = {"modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"}
RECORDS = {"metrics.json", "run.json", "risk_coverage.png", "training_curve.png"}


def index_files(folder):
    """What belongs to the index of a run: not its lock."""
    files = {path.relative_to(folder).as_posix() for path in (folder / "index").rglob("*") if path.is_file()}
    return files - {"index/.lock"}


def picture(color):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(buffer, "PNG")
    return buffer.getvalue()


PACKAGE = Path(idml_hf.__file__).parent


def with_neighbours(*names):
    """The named files of the package, and all that they import from beside them."""
    found = set()
    for name in names:
        tree = ast.parse((PACKAGE / name).read_text())
        imports = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
        found |= {name} | with_neighbours(*(f"{module}.py" for module in imports))
    return found


CODE = with_neighbours("configuration_idml.py", "modeling_idml.py", "image_processing_idml.py")


def pushed(hub, repo_id="tester/model"):
    files = dict(hub.files(repo_id))
    del files[".gitattributes"]
    return files


def test_everything_of_the_model_goes_up_and_nothing_else(run_folder, hub):
    address = push_folder(run_folder, "tester/model")
    files = pushed(hub)
    assert set(files) == MODEL | ENCODER | RECORDS
    assert files["model.safetensors"] == (run_folder / "model.safetensors").read_bytes()
    assert address == f"{hub.url}/tester/model/commit/{address.oid}"
    assert len(hub.repositories["model", "tester/model"].commits) == 2, (
        "a repository is made, and filled in one commit"
    )
    assert not any(b"never to be seen" in content for content in hub.large.values())
    assert not any(b"/home/someone" in content for content in files.values())
    assert str(run_folder).encode() not in b"".join(files.values())


def test_the_card_names_the_repository(run_folder, hub):
    push_folder(run_folder, "tester/model")
    text = pushed(hub)["README.md"].decode()
    assert 'model_id = "tester/model"' in text and validate_card(text).model_name == "model"
    assert "SentenceTransformer" in text and "trust_remote_code" not in text


def test_code_and_index_go_up_if_asked(run_folder, hub):
    push_folder(run_folder, "tester/model", with_code=True, with_index=True)
    files = pushed(hub)
    assert set(files) == MODEL | ENCODER | RECORDS | CODE | index_files(run_folder)
    assert "errors.py" in CODE
    assert json.loads(files["config.json"])["auto_map"]["AutoModel"] == "modeling_idml.IDMLModel"
    assert "auto_map" not in (run_folder / "config.json").read_text()
    assert "trust_remote_code" in files["README.md"].decode()


def test_the_same_push_again_sends_nothing(run_folder, hub):
    first = push_folder(run_folder, "tester/model")
    hub.log.clear()
    assert push_folder(run_folder, "tester/model").oid == first.oid
    assert not [line for line in hub.log if line.startswith("PUT") or "/commit/" in line]


def test_command_line(run_folder, hub, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["push", str(run_folder), "tester/model", "--private", "--with-code"])
    assert ended.value.code == 0
    assert hub.repositories["model", "tester/model"].private and set(pushed(hub)) >= CODE
    assert f"{hub.url}/tester/model/commit/" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("break_it", "error", "message"),
    [
        (lambda f: shutil.rmtree(f), FileNotFoundError, "There is no folder"),
        (lambda f: (f / "config.json").unlink(), FileNotFoundError, r"no config\.json"),
        (lambda f: (f / "model.safetensors").unlink(), FileNotFoundError, r"training_args\.bin is a pickle"),
        (lambda f: (f / "preprocessor_config.json").unlink(), FileNotFoundError, "no image processor"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 100), ValueError, "not a whole safetensors file"),
        (lambda f: (f / "config.json").write_text('{"model_type": "resnet"}'), ValueError, "not an IDML model"),
        (lambda f: (f / "config.json").write_text('{"model_type": "idml", "form": "odd"}'), ValueError, "form 'odd'"),
        (lambda f: (f / "metrics.json").write_text("{"), ValueError, r"metrics\.json is damaged: it is not JSON"),
        (lambda f: (f / "README.md").write_text("---\nmodel-index: 3\n---\nmine"), ValueError, "metadata"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused_before_the_hub_is_asked(run_folder, hub, break_it, error, message):
    break_it(run_folder)
    with pytest.raises(error, match=message):
        push_folder(run_folder, "tester/model")
    assert hub.log == []


@pytest.mark.parametrize(
    ("token", "repo_id", "error", "message"),
    [
        ("hf_wrong", "tester/model", PermissionError, "does not accept the token"),
        (None, "forbidden/model", PermissionError, "may not write to forbidden/model"),
        (None, "a/b/c", ValueError, "cannot be the name of a repository"),
    ],
)
def test_a_refusal_is_one_clear_line_and_nothing_is_sent(run_folder, hub, token, repo_id, error, message):
    with pytest.raises(error, match=message) as caught:
        push_folder(run_folder, repo_id, token=token)
    assert "\n" not in str(caught.value)
    assert not hub.repositories and not hub.large


def test_without_a_token_it_says_how_to_log_in(run_folder, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "")
    with pytest.raises(PermissionError, match="hf auth login"):
        push_folder(run_folder, "tester/model")
    assert not hub.repositories and not hub.large


def test_a_public_repository_does_not_take_a_private_push(run_folder, hub):
    push_folder(run_folder, "tester/model")
    before = hub.files("tester/model")
    with pytest.raises(ValueError, match="is public"):
        push_folder(run_folder, "tester/model", private=True, with_code=True)
    assert hub.files("tester/model") == before


def test_an_upload_that_breaks_off_leaves_the_old_model_and_goes_on_later(run_folder, hub):
    push_folder(run_folder, "tester/model")
    old = hub.files("tester/model")
    model = IDMLModel.from_pretrained(run_folder)
    torch.nn.init.ones_(model.semantic_head.bias)
    model.save_pretrained(run_folder)
    (run_folder / "risk_coverage.png").write_bytes(picture("red"))
    weights = (run_folder / "model.safetensors").read_bytes()
    sent: list[str] = []

    def note(method, path):
        if method == "PUT":
            sent.append(path)

    def break_off(method, path):
        note(method, path)
        if path == f"/lfs/{hashlib.sha256(weights).hexdigest()}":
            while picture("red") not in hub.large.values():
                time.sleep(0.01)
            raise Refusal(400, "The line is dead")

    hub.before = break_off
    with pytest.raises(ConnectionError, match="The line is dead"):
        push_folder(run_folder, "tester/model")
    assert hub.files("tester/model") == old and len(sent) == 2

    hub.before = note
    push_folder(run_folder, "tester/model")
    new = hub.files("tester/model")
    assert new["model.safetensors"] == weights and new["risk_coverage.png"] == picture("red")
    assert len(sent) == 3, "what has arrived is not sent again"


def test_a_card_that_somebody_edited_is_kept(run_folder, hub):
    push_folder(run_folder, "tester/model")
    repository = hub.repositories["model", "tester/model"]
    edited = hub.files("tester/model")["README.md"].decode().replace(GENERATED, "") + "\nEdited on the Hub.\n"
    repository.add(hub.files("tester/model") | {"README.md": edited.encode()})

    (run_folder / "training_curve.png").write_bytes(picture("blue"))
    push_folder(run_folder, "tester/model")
    assert pushed(hub)["README.md"].decode() == edited and pushed(hub)["training_curve.png"] == picture("blue")
    IDMLModel.from_pretrained(run_folder).push_to_hub("tester/model")
    assert pushed(hub)["README.md"].decode() == edited

    (run_folder / "README.md").write_text("---\nlicense: mit\n---\nMy own card.\n")
    push_folder(run_folder, "tester/model")
    assert pushed(hub)["README.md"] == (run_folder / "README.md").read_bytes()


def test_a_branch_takes_the_push(run_folder, hub):
    push_folder(run_folder, "tester/model", revision="next")
    assert set(hub.files("tester/model", revision="next")) >= MODEL
    assert set(hub.files("tester/model")) == {".gitattributes"}


def test_a_model_of_a_run_takes_the_runs_results_along(run_folder, hub):
    IDMLModel.from_pretrained(run_folder).push_to_hub("tester/model", commit_message="From memory", tags=["birds"])
    files = pushed(hub)
    assert set(files) == MODEL | ENCODER | RECORDS
    data = validate_card(files["README.md"].decode())
    assert data.eval_results and "birds" in data.tags
    assert files["preprocessor_config.json"] == (run_folder / "preprocessor_config.json").read_bytes()


def test_a_model_that_has_changed_since_claims_no_results(run_folder, hub):
    push_folder(run_folder, "tester/model")
    model = IDMLModel.from_pretrained(run_folder)
    torch.nn.init.ones_(model.semantic_head.bias)
    model.push_to_hub("tester/model")
    files = pushed(hub)
    assert set(files) == MODEL | ENCODER, "results of the old weights are gone"
    assert validate_card(files["README.md"].decode()).eval_results is None
    assert torch.equal(IDMLModel.from_pretrained("tester/model").semantic_head.bias, torch.ones(16))


def test_nothing_stale_is_left_to_be_read_as_new(run_folder, hub):
    push_folder(run_folder, "tester/model", with_index=True)
    first = {path for path in pushed(hub) if path.startswith("index/")}
    model = IDMLModel.from_pretrained(run_folder)
    torch.nn.init.ones_(model.semantic_head.bias)
    IDMLIndex.build(model, [Image.new("RGB", (9, 9))] * 2, progress=False).save(run_folder / "index")
    model.save_pretrained(run_folder, max_shard_size="500KB")
    push_folder(run_folder, "tester/model", with_index=True)
    files = pushed(hub)
    assert "model.safetensors.index.json" in files and "model.safetensors" not in files
    second = index_files(run_folder)
    assert {path for path in files if path.startswith("index/")} == second != first
    assert torch.equal(IDMLModel.from_pretrained("tester/model").semantic_head.bias, torch.ones(16))
    push_folder(run_folder, "tester/model")
    assert {path for path in pushed(hub) if path.startswith("index/")} == second


def test_offline_nothing_is_tried(run_folder, hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match="Offline mode is on"):
        push_folder(run_folder, "tester/model")
    assert hub.log == []


def test_the_order_of_model_and_processor_does_not_matter(run_folder, hub):
    processor = IDMLImageProcessor.from_pretrained(run_folder)
    processor.push_to_hub("tester/model")
    assert "automatically generated" in pushed(hub)["README.md"].decode()
    IDMLModel.from_pretrained(run_folder).push_to_hub("tester/model")
    card = pushed(hub)["README.md"]
    assert GENERATED in card.decode()
    processor.push_to_hub("tester/model")
    assert validate_card(pushed(hub)["README.md"].decode()).eval_results == validate_card(card.decode()).eval_results


def test_the_trainer_keeps_the_card(tmp_path, hub):
    model = IDMLForMetricLearning.from_backbone(
        "test_resnet", pretrained=False, embedding_dim=8, num_train_classes=2, loss="proxy_anchor"
    )
    args = IDMLTrainingArguments(
        str(tmp_path / "out"), use_cpu=True, report_to="none", hub_model_id="tester/trained", learning_rate=0.00123
    )
    trainer = IDMLTrainer(model, args, processing_class=IDMLImageProcessor.from_backbone("test_resnet", 32))
    trainer.state.log_history = [{"loss": 1.0}, {"eval_recall_at_1": 0.25, "eval_protocol": "plain", "epoch": 1.0}]
    trainer.push_to_hub(dataset="birds")
    files = pushed(hub, "tester/trained")
    text = files["README.md"].decode()
    (result,) = validate_card(text).eval_results
    assert (result.metric_type, result.metric_value, result.dataset_split) == ("recall_at_1", 0.25, "evaluation")
    assert "`0.00123`" in text and 'model_id = "tester/trained"' in text and "`birds`" in text
    assert {"model.safetensors", "preprocessor_config.json"} <= set(files)
    loaded = IDMLModel.from_pretrained("tester/trained")
    assert torch.equal(loaded.semantic_head.weight, model.idml.semantic_head.weight)
