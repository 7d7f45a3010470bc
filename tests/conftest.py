"""What all tests share."""

from __future__ import annotations

import os

# Tests reach no network, and small models are faster on one thread than on many.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest
import torch

torch.set_num_threads(1)
# the same examples in each run, and no failure because a machine is busy
hypothesis.settings.register_profile("idml_hf", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("idml_hf")


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)
