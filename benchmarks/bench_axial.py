"""One direction at the paper's size: temporal column ("time") and in-frame ("space")."""

from typing import Any

import pytest
import torch
from providers import AXIAL, forward, forward_backward

from asycmst_ops import reference
from asycmst_ops.testing import assert_within_budget, make_grids


@pytest.mark.parametrize("provider", AXIAL["time"])
@pytest.mark.parametrize("mode", ["forward", "forward-backward"])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("axis", AXIAL)
def test_axial_on_cpu(benchmark: Any, axis: Any, batch: int, mode: str, provider: str) -> None:
    shape = (batch, 16, 49, 6, 64)
    *inputs, grad = make_grids(4, shape)
    function = AXIAL[axis][provider]
    plain = reference.axial_attention(*inputs, axis=axis)
    exact = reference.axial_attention(*[x.double() for x in inputs], axis=axis)
    assert_within_budget(provider, function(*inputs), plain, exact)
    benchmark.group = (
        f"{axis}, {mode}, (B, T, N, H, d) = {shape}, {torch.get_num_threads()} threads"
    )
    benchmark.extra_info.update(axis=axis, shape=shape, mode=mode, provider=provider)
    run = (
        forward(function, inputs)
        if mode == "forward"
        else forward_backward(function, inputs, [grad])
    )
    benchmark(run)
