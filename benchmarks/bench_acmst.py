"""The joint operator at the paper's size, in float32 and bfloat16."""

from typing import Any

import pytest
import torch
from providers import JOINT, forward, forward_backward

from asycmst_ops import reference
from asycmst_ops.testing import assert_within_budget, make_grids


@pytest.mark.parametrize("provider", JOINT)
@pytest.mark.parametrize("mode", ["forward", "forward-backward"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("batch", [1, 4])
def test_acmst_on_cpu(
    benchmark: Any, batch: int, dtype: torch.dtype, mode: str, provider: str
) -> None:
    shape = (batch, 16, 49, 6, 64)
    *inputs, grad_bus, grad_ceus = make_grids(8, shape, dtype=dtype)
    function = JOINT[provider]
    plain = reference.acmst_attention(*inputs)
    exact = reference.acmst_attention(*[x.double() for x in inputs])
    for name, *three in zip(("bus", "ceus"), function(*inputs), plain, exact, strict=True):
        assert_within_budget(f"{provider} {name}", *three)
    benchmark.group = (
        f"joint, {mode}, {dtype}, (B, T, N, H, d) = {shape}, {torch.get_num_threads()} threads"
    )
    benchmark.extra_info.update(shape=shape, dtype=str(dtype), mode=mode, provider=provider)
    run = (
        forward(function, inputs)
        if mode == "forward"
        else forward_backward(function, inputs, [grad_bus, grad_ceus])
    )
    benchmark(run)
