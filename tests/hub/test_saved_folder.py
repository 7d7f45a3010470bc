"""A saved folder is whole: other libraries read the embedding from it, and other users may read its files."""

from __future__ import annotations

import os
import stat

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from transformers import PreTrainedModel

from idml_hf import IDMLConfig, IDMLForImageClassification, IDMLForMetricLearning, IDMLImageProcessor, IDMLModel
from idml_hf.hub.sentence_transformers_config import sentence_transformers_files

PICTURES = [Image.effect_noise((48, 40), 90).convert("RGB"), *(Image.new("RGB", (40, 30), c) for c in ("red", "blue"))]


def embedding(model, processor):
    with torch.inference_mode():
        return model.eval().base_model(**processor(PICTURES, return_tensors="pt")).semantic_embeds.numpy()


def encoding(folder):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    return sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(PICTURES)


@pytest.mark.parametrize("cls", [IDMLModel, IDMLForMetricLearning])
@pytest.mark.parametrize("processor_saved", [True, False])
def test_sentence_transformers_gives_the_embedding_of_a_saved_model(cls, processor_saved, tmp_path):
    more = {} if cls is IDMLModel else {"num_train_classes": 3}
    model = cls.from_backbone("test_resnet", pretrained=False, embedding_dim=16, image_size=40, **more)
    processor = IDMLImageProcessor.from_backbone("test_resnet", image_size=32 if processor_saved else 40)
    model.save_pretrained(tmp_path)
    if processor_saved:
        processor.save_pretrained(tmp_path)
    np.testing.assert_allclose(encoding(tmp_path), embedding(model, processor), atol=1e-5)
    again = tmp_path / "again"
    cls.from_pretrained(tmp_path).save_pretrained(again)
    np.testing.assert_allclose(encoding(again), embedding(model, processor), atol=1e-5)


def test_and_of_a_pushed_one(tmp_path, hub):
    model = IDMLModel.from_backbone("test_resnet", pretrained=False, embedding_dim=16, image_size=40)
    processor = IDMLImageProcessor.from_backbone("test_resnet", image_size=40)
    model.push_to_hub("tester/pushed")
    np.testing.assert_allclose(encoding("tester/pushed"), embedding(model, processor), atol=1e-5)
    model.save_pretrained(tmp_path / "saved", push_to_hub=True, repo_id="tester/saved")
    assert set(hub.files("tester/saved")) == set(hub.files("tester/pushed"))
    IDMLModel.from_pretrained("tester/pushed").save_pretrained(tmp_path / "back")
    np.testing.assert_allclose(encoding(tmp_path / "back"), embedding(model, processor), atol=1e-5)


def test_a_classifier_does_not_pretend_to_embed(classifier_folder):
    assert not set(sentence_transformers_files()) & set(os.listdir(classifier_folder))


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_all_files_have_the_mode_of_the_umask(umask, tmp_path):
    previous = os.umask(umask)
    try:
        model = IDMLForImageClassification(IDMLConfig(backbone="test_resnet", form="released_classification"))
        model.save_pretrained(tmp_path, max_shard_size="300KB")
    finally:
        os.umask(previous)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) > 3 and set(modes.values()) == {0o666 & ~umask}, modes


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
            "No space left",
        ),
        (
            RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
            "no space left on the disk",
        ),
        (
            RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
            "no space left on the disk",
        ),
    ],
)
def test_a_full_disk_is_said_in_one_line(error, said, tmp_path, monkeypatch):
    model = IDMLModel(IDMLConfig(backbone="test_resnet", embedding_dim=8))

    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", fail)
    with pytest.raises(OSError, match=said) as caught:
        model.save_pretrained(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
    error.args = ("another reason",)
    if isinstance(error, RuntimeError):
        with pytest.raises(RuntimeError, match="another reason"):
            model.save_pretrained(tmp_path)
