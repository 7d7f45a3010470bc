"""torch.compile of the losses that draw nothing, without graph breaks."""

from __future__ import annotations

import pytest
import torch
from batches import batch

from idml_hf.losses import LOSSES, build_loss

CASES = [
    pytest.param(name, form, marks=() if form == "ratio" else pytest.mark.slow)
    for name, loss in LOSSES.items()
    for form in loss.forms
    if name != "margin_dw"
]


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("name", "form"), CASES)
def test_compiles_without_breaks(name: str, form: str, backend: str) -> None:
    semantic, uncertainty, labels = batch("p_x_k", 16, 8)
    loss = build_loss(name, 4, 8, form)
    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    inputs = [semantic, *([uncertainty] if form != "none" else []), *loss.parameters()]
    value, expected = (x(semantic, uncertainty, labels) for x in (compiled, loss))
    assert expected > 0
    torch.testing.assert_close(value, expected)
    grads = [torch.autograd.grad(x, inputs) for x in (value, expected)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["contrastive"])
def test_compiles_with_a_memory(name: str) -> None:
    eager, other = (build_loss(name, None, 8, memory_size=20) for _ in range(2))
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    for _ in range(3):
        semantic, uncertainty, labels = batch("p_x_k", 12, 8)
        torch.testing.assert_close(compiled(semantic, uncertainty, labels), eager(semantic, uncertainty, labels))
