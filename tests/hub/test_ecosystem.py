"""The model in other libraries: transformers' pipelines, sentence-transformers, onnxruntime."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from idml_hf import IDMLForImageClassification, IDMLImageProcessor, IDMLModel
from idml_hf import export_onnx as onnx_export
from idml_hf.cli import main
from idml_hf.export_onnx import export_onnx
from idml_hf.hub import collect_files, push_folder

PICTURES = [Image.effect_noise((48, 40), 90).convert("RGB"), *(Image.new("RGB", (40, 30), c) for c in ("red", "blue"))]


def outputs(cls, folder, pictures=PICTURES):
    processor = IDMLImageProcessor.from_pretrained(folder)
    with torch.inference_mode():
        return cls.from_pretrained(folder)(**processor(pictures, return_tensors="pt"))


def test_feature_extraction_pipeline(finished_run):
    extract = pipeline("image-feature-extraction", model=str(finished_run))
    expected = outputs(IDMLModel, finished_run).semantic_embeds
    for pooled in (True, False):
        found = torch.tensor(extract(PICTURES, pool=pooled, batch_size=2)).squeeze()
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_classification_pipeline(classifier_folder):
    classify = pipeline("image-classification", model=str(classifier_folder))
    logits = outputs(IDMLForImageClassification, classifier_folder).logits
    for answer, row in zip(classify(PICTURES, function_to_apply="none"), logits, strict=True):
        scores = {entry["label"]: entry["score"] for entry in answer}
        assert scores == pytest.approx({"cat": row[0].item(), "dog": row[1].item(), "owl": row[2].item()}, abs=1e-5)


def test_sentence_transformers_encodes_images(finished_run, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    for path, content in collect_files(finished_run, "org/name").items():
        (tmp_path / path).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    encoder = sentence_transformers.SentenceTransformer(str(tmp_path), device="cpu")
    expected = outputs(IDMLModel, finished_run).semantic_embeds.numpy()
    np.testing.assert_allclose(encoder.encode(PICTURES), expected, atol=1e-5)
    assert encoder.get_embedding_dimension() == 16
    np.testing.assert_allclose(encoder.similarity(expected, expected), expected @ expected.T, atol=1e-5)


@pytest.mark.parametrize("fixture", ["finished_run", "classifier_folder"])
def test_onnx_gives_the_same_for_any_batch(fixture, request, tmp_path, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    folder = request.getfixturevalue(fixture)
    cls, first = (
        (IDMLModel, "semantic_embeds") if fixture == "finished_run" else (IDMLForImageClassification, "logits")
    )
    with pytest.raises(SystemExit) as ended:
        main(["export", str(folder), "--output", str(tmp_path)])
    assert ended.value.code == 0 and "computes what PyTorch does" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} >= {"model.onnx", "preprocessor_config.json"}
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == [first, "uncertainty_embeds"]
    processor = IDMLImageProcessor.from_pretrained(tmp_path)
    for number in (1, 2, 3):
        pixel_values = processor(PICTURES[:number], return_tensors="np")["pixel_values"]
        found = session.run(None, {"pixel_values": pixel_values})
        expected = outputs(cls, folder, PICTURES[:number])
        for name, array in zip((first, "uncertainty_embeds"), found, strict=True):
            np.testing.assert_allclose(array, expected[name].numpy(), atol=1e-5, rtol=1e-5)


def test_an_export_that_computes_something_else_is_not_kept(finished_run, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(onnx_export, "_export", lambda wrapper, path, size: path.write_bytes(b"?"))
    monkeypatch.setattr(onnx_export, "_compare", lambda wrapper, path, size: float("nan"))
    with pytest.raises(FloatingPointError, match="differs from torch"):
        export_onnx(finished_run, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_onnx_says_what_to_install(finished_run, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"install idml-hf\[onnx\]"):
        export_onnx(finished_run, tmp_path)


def test_the_usage_code_of_a_pushed_card_runs_as_printed(run_folder, hub, capsys):
    pytest.importorskip("sentence_transformers")
    push_folder(run_folder, "tester/model", with_code=True)
    card = hub.files("tester/model")["README.md"].decode()
    blocks = re.findall(r"^```python\n(.*?)^```", card, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        assert "tester/model" in block
        exec(compile(block, "card", "exec"), {})
    assert "(2, 16) 2" in capsys.readouterr().out
