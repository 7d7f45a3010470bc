"""From one process to another over HTTP: push, download with an empty cache, and again without the network."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading

import datasets
import torch
from PIL import Image

from idml_hf import IDMLImageProcessor, IDMLModel
from idml_hf.hub import push_folder

LOAD = """
import sys
import numpy as np
import torch
from idml_hf import IDMLImageProcessor, IDMLModel
from idml_hf.data import load_images

torch.set_num_threads(1)
model = IDMLModel.from_pretrained("tester/model")
processor = IDMLImageProcessor.from_pretrained("tester/model")
images = load_images("tester/toy", "all")
assert images.labels.tolist() == [0, 0, 1, 1, 2, 2] and images.class_names == ("a", "b", "c")
assert [np.asarray(image)[0, 0, 0] for image in images] == [0, 20, 40, 60, 80, 100]
with torch.inference_mode():
    out = model(**processor(list(images), return_tensors="pt"))
torch.save({name: out[name] for name in ("semantic_embeds", "uncertainty_embeds", "uncertainty")}, sys.argv[1])
"""


def run(code, environment, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    ended = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


def test_a_killed_push_is_repeated_then_downloaded_then_used_offline(run_folder, hub, tmp_path):
    weights = (run_folder / "model.safetensors").read_bytes()
    halfway, go_on = threading.Event(), threading.Event()

    def wait_at_the_weights(method, path):
        if path == f"/lfs/{hashlib.sha256(weights).hexdigest()}" and method == "PUT":
            halfway.set()
            go_on.wait(60)

    hub.before = wait_at_the_weights
    command = [sys.executable, "-c", "from idml_hf.cli import main; main()", "push", str(run_folder), "tester/model"]
    doomed = subprocess.Popen(command, env=os.environ | hub.environment(tmp_path / "pusher"), stderr=subprocess.PIPE)
    try:
        assert halfway.wait(120), "the push never got to the weights"
    finally:
        doomed.kill()
        doomed.communicate()
    hub.before = lambda method, path: None
    go_on.set()
    assert set(hub.files("tester/model")) == {".gitattributes"}

    push_folder(run_folder, "tester/model")
    assert hub.files("tester/model")["model.safetensors"] == weights

    pictures = [Image.new("RGB", (7, 9), (20 * i, 20 * i, 20 * i)) for i in range(6)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])})
    columns = {"image": pictures, "label": [0, 0, 1, 1, 2, 2]}
    datasets.Dataset.from_dict(columns, features=features).push_to_hub("tester/toy", split="train")

    run(LOAD, hub.environment(tmp_path / "user"), tmp_path / "online.pt")
    requests = len(hub.log)
    run(LOAD, hub.environment(tmp_path / "user", offline=True), tmp_path / "offline.pt")
    assert len(hub.log) == requests, "offline, nothing is asked"

    model, processor = IDMLModel.from_pretrained(run_folder), IDMLImageProcessor.from_pretrained(run_folder)
    with torch.inference_mode():
        local = model(**processor(pictures, return_tensors="pt"))
    online, offline = torch.load(tmp_path / "online.pt"), torch.load(tmp_path / "offline.pt")
    for name in ("semantic_embeds", "uncertainty_embeds", "uncertainty"):
        assert torch.equal(online[name], local[name]) and torch.equal(offline[name], local[name])
