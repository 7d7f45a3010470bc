"""Who may not read a folder is told so, and not that there is none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

CASES = [
    ("config.json", ["model", "push"]),
    ("model.safetensors", ["model"]),
    ("preprocessor_config.json", ["processor"]),
    ("metrics.json", ["push"]),
    ("index/index.json", ["index"]),
    (".", ["model", "processor", "push", "index"]),
    ("..", ["model", "processor", "push", "index"]),
]

LOAD = """
import json, os, sys
from pathlib import Path

from idml_hf import IDMLImageProcessor, IDMLIndex, IDMLModel
from idml_hf.hub import collect_files

folder, cases = Path(sys.argv[1]), json.loads(sys.argv[2])
ways = {"model": IDMLModel.from_pretrained, "processor": IDMLImageProcessor.from_pretrained}
ways["push"] = lambda folder: collect_files(Path(folder), "org/name")
ways["index"] = lambda folder: IDMLIndex.load(f"{folder}/index")
for closed, names in cases:
    path = (folder / closed).resolve()
    mode = path.stat().st_mode
    path.chmod(0)
    for name in names:
        if os.fork() == 0:
            if os.getuid() == 0:  # to whom nothing is closed
                os.setgid(65534)
                os.setuid(65534)
            try:
                ways[name](str(folder))
                print(json.dumps([closed, name, "nothing", ""]), flush=True)
            except Exception as error:
                print(json.dumps([closed, name, type(error).__name__, str(error)]), flush=True)
            os._exit(0)
        os.wait()
    path.chmod(mode)
"""


def test_permission_denied_is_said(finished_run):
    # outside of the folders of pytest, which are closed themselves
    place = Path(os.environ.get("TMPDIR", "/tmp")) / f"idml-permissions-{os.getpid()}"
    folder = place / "home" / "run"
    try:
        shutil.copytree(finished_run, folder)
        for path in (place, *place.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        command = [sys.executable, "-c", LOAD, str(folder), json.dumps(CASES)]
        environment = os.environ | {"HF_HOME": str(place / "cache"), "HF_TOKEN": "none"}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        answers = [json.loads(line) for line in ended.stdout.splitlines()]
        assert [(closed, way) for closed, way, *_ in answers] == [(c, way) for c, ways in CASES for way in ways]
        for closed, way, kind, message in answers:
            assert kind == "PermissionError", (closed, way, kind, message)
            assert str(folder) in message and "\n" not in message
            assert "may not be read" in message or "denied" in message
    finally:
        shutil.rmtree(place)
