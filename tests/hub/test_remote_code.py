"""A repository with its code works where there are torch, timm, torchvision and transformers, and nothing of ours."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from PIL import Image

from idml_hf import IDMLForImageClassification, IDMLImageProcessor, IDMLModel
from idml_hf.hub import push_folder

LOAD = """
import sys
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification, pipeline

torch.set_num_threads(1)
pictures = [Image.new("RGB", (40, 30), color) for color in ("red", "blue", "green")]


def run(auto, name):
    model = auto.from_pretrained(name, trust_remote_code=True)
    processor = AutoImageProcessor.from_pretrained(name, trust_remote_code=True)
    with torch.inference_mode():
        return dict(model(**processor(pictures, return_tensors="pt")))


found = {"retrieval": run(AutoModel, "tester/model"), "classifier": run(AutoModelForImageClassification, "tester/cl")}
extract = pipeline("image-feature-extraction", model="tester/model", trust_remote_code=True)
classify = pipeline("image-classification", model="tester/cl", trust_remote_code=True)
found["features"] = torch.tensor(extract(pictures, pool=True))
found["classes"] = [[entry["label"] for entry in answer] for answer in classify(pictures, top_k=3)]
for package in ("idml_hf", "datasets", "sklearn", "scipy", "matplotlib", "accelerate", "faiss"):
    try:
        __import__(package)
    except ImportError:
        continue
    raise AssertionError(f"the environment is not clean: {package} is there")
torch.save(found, sys.argv[1])

try:
    AutoModel.from_pretrained("tester/model", trust_remote_code=False)
except ValueError as error:
    assert "trust_remote_code=True" in str(error)
else:
    raise AssertionError("code was run that nobody trusted")
"""


def site_of(folder: Path, *packages: str) -> Path:
    """A folder of links to the installed packages, and to all that they depend on, and to nothing else."""
    wanted, seen = [*packages], set()
    while wanted:
        name = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # of another platform
        if name in seen:
            continue
        seen.add(name)
        for requirement in map(Requirement, distribution.requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                wanted.append(requirement.name)
        for top in {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(distribution.locate_file(top)))
    return folder


def test_bit_equal_outputs_where_idml_hf_is_not_installed(finished_run, classifier_folder, hub, tmp_path):
    push_folder(finished_run, "tester/model", with_code=True)
    push_folder(classifier_folder, "tester/cl", with_code=True)
    site = tmp_path / "site"
    site.mkdir()
    site_of(site, "torch", "timm", "transformers", "torchvision")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | hub.environment(tmp_path / "x")
    # -I and -S leave nothing but the standard library on the path
    code = f"import sys; sys.path.append({str(site)!r})\n{LOAD}"
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(tmp_path / "found.pt")],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]

    found = torch.load(tmp_path / "found.pt")
    pictures = [Image.new("RGB", (40, 30), color) for color in ("red", "blue", "green")]
    processor = IDMLImageProcessor.from_pretrained(finished_run)
    with torch.inference_mode():
        expected = IDMLModel.from_pretrained(finished_run)(**processor(pictures, return_tensors="pt"))
        classes = IDMLForImageClassification.from_pretrained(classifier_folder)(
            **IDMLImageProcessor.from_pretrained(classifier_folder)(pictures, return_tensors="pt")
        )
    assert found["retrieval"].keys() == expected.keys() and found["classifier"].keys() == classes.keys()
    assert all(torch.equal(found["retrieval"][name], expected[name]) for name in expected)
    assert all(torch.equal(found["classifier"][name], classes[name]) for name in classes)
    assert torch.allclose(found["features"].squeeze(), expected.semantic_embeds, atol=1e-6)
    names = ["cat", "dog", "owl"]
    assert found["classes"] == [[names[i] for i in row.argsort(descending=True)] for row in classes.logits]


def test_the_code_is_that_of_the_package_and_names_its_licence(finished_run, hub):
    push_folder(finished_run, "tester/model", with_code=True)
    files = hub.files("tester/model")
    import idml_hf

    for name in ("configuration_idml.py", "modeling_idml.py", "image_processing_idml.py", "similarity.py"):
        licence, code = files[name].split(b"\n", 1)
        assert b"Apache-2.0" in licence
        assert code == (Path(idml_hf.__file__).parent / name).read_bytes()
    assert not [name for name in files if name.endswith(".py") and b"import idml_hf" in files[name]]
    processor = json.loads(files["preprocessor_config.json"])
    assert processor["auto_map"]["AutoImageProcessor"] == "image_processing_idml.IDMLImageProcessor"


def test_a_model_whose_architecture_is_the_packages_own_is_not_pushed_with_half_its_code(tmp_path, hub):
    model = IDMLModel.from_backbone("resnet8_small", pretrained=False, embedding_dim=8)
    model.save_pretrained(tmp_path)
    IDMLImageProcessor.from_backbone("resnet8_small", image_size=32).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="resnet8_small"):
        push_folder(tmp_path, "tester/model", with_code=True)
    assert not hub.log
    push_folder(tmp_path, "tester/model")
    assert torch.equal(IDMLModel.from_pretrained("tester/model").semantic_head.weight, model.semantic_head.weight)
