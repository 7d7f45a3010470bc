from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "evaluation.py"


@pytest.mark.slow
def test_benchmark_runs_and_all_systems_agree(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    command = [sys.executable, str(SCRIPT), "--quick", "--json", str(results)]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rounds = json.loads(results.read_text())
    assert list(rounds) == ["idml_hf", "bare", "bare (small k)", "pytorch-metric-learning"]
    assert all(f"| {name} |" in table for name in rounds)
    for key in ("recall_at_1", "r_precision", "map_at_r"):
        assert rounds["idml_hf"][0][key] == pytest.approx(rounds["pytorch-metric-learning"][0][key], abs=1e-6)
