"""The losses of saliency maps of training's size, beside eager and compiled PyTorch."""

from typing import Any

import pytest
import torch
from providers import compiled, forward, forward_backward, saliency_providers

from asycmst_ops.testing import assert_within_budget


@pytest.mark.parametrize("provider", ["ours", "eager", "eager-compiled"])
@pytest.mark.parametrize("mode", ["forward", "forward-backward"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("images", [1, 16])
def test_saliency_losses_on_cpu(
    benchmark: Any, images: int, dtype: torch.dtype, mode: str, provider: str
) -> None:
    shape = (images, 224, 224)
    # 256ths: sums without rounding, so that all agree about the sign of a difference.
    target, saliency = (torch.randint(0, 257, (2, *shape)) / 256).to(dtype)
    grad = torch.ones(images, 3)
    providers = saliency_providers(target)
    function = providers[provider.removesuffix("-compiled")]
    if provider.endswith("compiled"):
        torch.compiler.reset()
        function = compiled(function)

    def call(function: Any, wide: bool = False) -> Any:
        x, g = (t.double() if wide else t for t in (saliency, grad))
        return (
            forward(function, [x]) if mode == "forward" else forward_backward(function, [x], [g])
        )

    run = call(function)
    definition = providers["eager"]
    results = [run(), call(definition)(), call(definition, wide=True)()]
    assert_within_budget(provider, *(r[0] if isinstance(r, tuple) else r for r in results))
    benchmark.group = f"saliency losses {mode}, {shape}, {dtype}"
    benchmark.extra_info.update(shape=shape, dtype=str(dtype), provider=provider)
    benchmark(run)
