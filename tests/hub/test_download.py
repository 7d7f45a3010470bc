"""Downloading over HTTP: pinned, private, resumed; and what it says when it cannot."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from hub_standin import Repository
from safetensors.torch import load, save
from transformers import AutoModel

from idml_hf import IDMLConfig, IDMLForImageClassification, IDMLForMetricLearning, IDMLImageProcessor, IDMLModel
from idml_hf.hub import push_folder


@pytest.fixture
def published(finished_run, hub):
    push_folder(finished_run, "tester/model")
    return hub


def publish(hub, **changes):
    """Put a repository beside the good one in which some files differ, or are missing."""
    files = dict(hub.files("tester/model"))
    files |= {name.replace("__", "."): content for name, content in changes.items()}
    hub.repositories["model", "tester/odd"] = Repository()
    hub.repositories["model", "tester/odd"].add(
        {path: content for path, content in files.items() if content is not None}
    )


def config_with(hub, **changes):
    return json.dumps(json.loads(hub.files("tester/model")["config.json"]) | changes).encode()


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_revision_is_pinned(run_folder, hub):
    first = push_folder(run_folder, "tester/model").oid
    old = IDMLModel.from_pretrained(run_folder)
    new = IDMLModel.from_pretrained(run_folder)
    torch.nn.init.ones_(new.semantic_head.bias)
    new.save_pretrained(run_folder)
    push_folder(run_folder, "tester/model")
    push_folder(run_folder, "tester/model", revision="v2")
    assert same(state(IDMLModel.from_pretrained("tester/model", revision=first)), state(old))
    assert same(state(IDMLModel.from_pretrained("tester/model")), state(new))
    assert same(state(IDMLModel.from_pretrained("tester/model", revision="v2")), state(new))
    hub.log.clear()
    again = IDMLModel.from_pretrained("tester/model", revision=first)
    assert same(state(again), state(old)) and not [line for line in hub.log if line.startswith("GET")]


def test_a_download_that_breaks_off_is_resumed(published, finished_run):
    published.cut = 10_000
    loaded = IDMLModel.from_pretrained("tester/model")
    assert same(state(loaded), state(IDMLModel.from_pretrained(finished_run)))
    weights = [line for line in published.log if line == "GET /tester/model/resolve/main/model.safetensors"]
    assert len(weights) == 2 and published.cut is None


def test_a_private_repository_opens_to_a_token(finished_run, hub, monkeypatch):
    push_folder(finished_run, "tester/secret", private=True)
    monkeypatch.setenv("HF_TOKEN", "")
    with pytest.raises(OSError, match="If it is private, log in"):
        IDMLModel.from_pretrained("tester/secret")
    with pytest.raises(OSError, match="does not accept the token"):
        IDMLModel.from_pretrained("tester/secret", token="hf_wrong")
    loaded = IDMLModel.from_pretrained("tester/secret", token="hf_of_the_tester")
    assert same(state(loaded), state(IDMLModel.from_pretrained(finished_run)))


@pytest.mark.parametrize(
    "cls", [IDMLModel, IDMLForMetricLearning, IDMLForImageClassification, IDMLConfig, IDMLImageProcessor]
)
def test_what_is_not_there_is_named_in_one_line(published, cls, tmp_path):
    for arguments, message in [
        (("tester/none",), "neither a folder tester/none nor such a repository"),
        (("tester/model", "v9"), r"tester/model has no revision 'v9'"),
        ((str(tmp_path / "none"),), "There is no folder"),
        (("./none/at/all",), r"There is no folder \./none/at/all"),
    ]:
        name, *revision = arguments
        with pytest.raises(OSError, match=message) as caught:
            cls.from_pretrained(name, **({"revision": revision[0]} if revision else {}))
        assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_is_named(published):
    publish(published, config__json=None)
    with pytest.raises(FileNotFoundError, match=r"tester/odd holds no model: it has no config\.json"):
        IDMLModel.from_pretrained("tester/odd")
    publish(published, model__safetensors=None)
    with pytest.raises(FileNotFoundError, match=r"tester/odd has no model\.safetensors"):
        IDMLModel.from_pretrained("tester/odd")
    publish(published, preprocessor_config__json=None)
    with pytest.raises(OSError, match=r"preprocessor_config\.json"):
        IDMLImageProcessor.from_pretrained("tester/odd")


class _Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


@pytest.mark.parametrize("where", ["hub", "folder"])
def test_a_pickle_is_refused_unread(published, run_folder, where):
    publish(published, model__safetensors=None, pytorch_model__bin=pickle.dumps(_Bomb()))
    (run_folder / "model.safetensors").unlink()
    (run_folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Bomb()))
    name = "tester/odd" if where == "hub" else run_folder
    for cls in (IDMLModel, IDMLForMetricLearning, AutoModel):
        with pytest.raises(FileNotFoundError, match="pickles"):
            cls.from_pretrained(name)
    with pytest.raises(ValueError, match="safetensors files only"):
        IDMLModel.from_pretrained(name, use_safetensors=False)
    assert not [line for line in published.log if "pytorch_model.bin" in line]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "resnet"}, "is not an IDML model: its config.json describes resnet"),
        ({"model_type": None}, "is not an IDML model"),
        ({"form": "unheard-of"}, "Unknown form 'unheard-of'"),
        ({"backbone": "local-dir:/etc"}, "must be the name of a timm architecture"),
        ({"backbone": "../../weights"}, "must be the name of a timm architecture"),
        ({"backbone": "hf-hub:somebody/model"}, "must be the name of a timm architecture"),
        ({"backbone_kwargs": {"checkpoint_path": "/etc/passwd"}}, "backbone_kwargs may not set checkpoint_path"),
        ({"backbone_kwargs": {"pretrained_cfg": {"file": "/etc/x"}}}, "backbone_kwargs may not set pretrained_cfg"),
        ({"transformers_weights": "../../other.safetensors"}, "names weights outside of it"),
        ({"transformers_weights": "/etc/other.safetensors"}, "names weights outside of it"),
        ({"embedding_dim": 8}, "other shapes"),
        ({"num_labels": 10**9, "id2label": None}, "num_labels is 1000000000, and at most"),
        ({"embedding_dim": 10**12}, "embedding_dim is 1000000000000, and at most"),
        ({"num_train_classes": 1e300}, "num_train_classes"),
        ({"attn_implementation": "somebody/kernel"}, "asks for code from the Hub"),
    ],
)
def test_a_config_that_lies_or_reaches_out_is_refused(published, changes, message):
    publish(published, config__json=config_with(published, **changes))
    with pytest.raises((ValueError, OSError), match=message):
        IDMLModel.from_pretrained("tester/odd")


def test_shards_do_not_reach_out_of_the_repository(published):
    weights = load(published.files("tester/model")["model.safetensors"])
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "../../../elsewhere.safetensors")}
    shards = {"model__safetensors__index__json": json.dumps(index).encode()}
    publish(published, model__safetensors=None, **shards)
    with pytest.raises((ValueError, OSError), match=r"\.\."):
        IDMLModel.from_pretrained("tester/odd")


def test_half_a_checkpoint_is_refused_not_made_up(published):
    content = published.files("tester/model")["model.safetensors"]
    publish(published, model__safetensors=content[:-100])
    with pytest.raises(ValueError, match="weights of tester/odd are damaged"):
        IDMLModel.from_pretrained("tester/odd")
    weights = load(content)
    headless = {name: tensor for name, tensor in weights.items() if "semantic_head" not in name}
    publish(published, model__safetensors=save(headless, {"format": "pt"}))
    with pytest.raises(ValueError, match=r"not a whole IDMLModel: it lacks 2 weights, as semantic_head\.bias"):
        IDMLModel.from_pretrained("tester/odd")
    trunkless = {name: tensor for name, tensor in weights.items() if "backbone.layer1" not in name}
    publish(published, model__safetensors=save(trunkless, {"format": "pt"}))
    for cls, more in ((IDMLModel, {}), (IDMLForMetricLearning, {"num_train_classes": 2})):
        with pytest.raises(ValueError, match=f"not a whole {cls.__name__}"):
            cls.from_pretrained("tester/odd", **more)
