"""The README: its Python runs as printed. That its commands exist is tested with those of the pages, in `docs/`."""

from __future__ import annotations

import re
from pathlib import Path

from idml_hf import IDMLImageProcessor, IDMLModel

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_python_runs_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    IDMLModel.from_backbone("test_resnet", pretrained=False, embedding_dim=128).save_pretrained("demo")
    IDMLImageProcessor.from_backbone("test_resnet", image_size=48).save_pretrained("demo")
    names: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL):
        exec(compile(block, "README.md", "exec"), names)
    assert names["distances"].shape == (2, 2)
    assert (tmp_path / "my-index").is_dir() and (tmp_path / "my-finer-model" / "model.safetensors").exists()


def test_it_is_read_in_one_sitting_and_has_the_two_commands():
    assert len(README.splitlines()) <= 175
    for command in ('pip install ".[cpu]" && idml-hf demo --output demo', 'pip install ".[cpu,test]" && pytest -n 2'):
        assert f"python3 -m venv .venv && . .venv/bin/activate && {command}\n" in README
