"""The operators inside PyTorch: registration, tracing, compilation, autocast, FLOP counts."""

from typing import Any

import pytest
import torch
from torch.library import opcheck
from torch.utils.flop_counter import FlopCounterMode

from asycmst_ops import (
    acmst_attention,
    acmst_attention_qkvpacked,
    axial_attention,
    cross_modal_attention,
    fss_ranking_loss,
)
from asycmst_ops.testing import make_grids, make_mask

OPS = torch.ops.asycmst
SHAPE = (2, 3, 4, 2, 8)


@pytest.mark.parametrize("layout", ["contiguous", "packed", "permuted", "expanded"])
@pytest.mark.parametrize("needs_grad", [False, True], ids=["no-grad", "grad"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_opcheck(dtype: torch.dtype, needs_grad: bool, layout: Any, device: str) -> None:
    grids = make_grids(8, SHAPE, layout=layout, dtype=dtype, device=device)
    inputs = [x.requires_grad_(needs_grad) for x in grids[:6]]
    mask = make_mask(SHAPE[:3]).to(device)
    opcheck(OPS.axial.default, (*inputs[:3], mask, 2, 0.5))
    opcheck(OPS.acmst.default, (*inputs, None, mask, 0.5))
    opcheck(OPS.union.default, (*inputs, None, mask, 0.5))
    plain = [x.detach() for x in inputs]
    opcheck(OPS.axial_backward.default, (grids[6], *plain[:3], mask, 1, 0.5))
    opcheck(OPS.acmst_backward.default, (*grids[6:], *plain, mask, None, 0.5))
    opcheck(OPS.union_backward.default, (*grids[6:], *plain, mask, None, 0.5))


@pytest.mark.parametrize("needs_grad", [False, True], ids=["no-grad", "grad"])
def test_opcheck_packed_and_ranking(needs_grad: bool, device: str) -> None:
    packed = [torch.randn(2, 3, 4, 3, 2, 8, device=device) for _ in range(2)]
    mask = make_mask(SHAPE[:3]).to(device)
    grads = make_grids(2, SHAPE, device=device)
    opcheck(OPS.acmst_qkvpacked_backward.default, (*grads, *packed, mask, None, 0.5))
    packed = [x.requires_grad_(needs_grad) for x in packed]
    opcheck(OPS.acmst_qkvpacked.default, (*packed, mask, mask, 0.5))
    scores = torch.randn(3, 5, device=device, requires_grad=needs_grad)
    lengths = torch.tensor([5, 0, 2], device=device)
    for reduction in ("none", "mean", "sum"):
        opcheck(OPS.fss_ranking.default, (scores, lengths, 0.9, reduction))
    for grad in (scores.detach()[:, 0], scores.detach()[0, 0]):
        opcheck(OPS.fss_ranking_backward.default, (grad, *[scores.detach()] * 2))


def everything(bus: torch.Tensor, ceus: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """All public operators in one function."""
    att_bus, att_ceus = acmst_attention_qkvpacked(bus, ceus, bus_mask=mask)
    q, k, v = bus.unbind(3)
    both = acmst_attention(q, k, v, att_bus, att_ceus, v, ceus_mask=mask)
    both = cross_modal_attention(q, *both, *both, v, strategy="symmetric", bus_mask=mask)
    out = axial_attention(both[0], both[1], v, axis="space", scale=0.3, key_mask=mask)
    return out.square().mean() + fss_ranking_loss(out.mean((2, 3, 4)))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles_whole_forward_and_backward(backend: str, device: str) -> None:
    packed = [torch.randn(2, 3, 4, 3, 2, 8, device=device) for _ in range(2)]
    mask = make_mask(SHAPE[:3]).to(device)
    results = []
    for function in (everything, torch.compile(everything, fullgraph=True, backend=backend)):
        leaves = [x.clone().requires_grad_() for x in packed]
        loss = function(*leaves, mask)
        results.append([loss.detach(), *torch.autograd.grad(loss, leaves)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_a_new_batch_size_compiles_at_most_once_more(device: str) -> None:
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    function = torch.compile(everything, fullgraph=True, backend=counter)
    for batch in (2, 3, 5, 9):
        packed = [torch.randn(batch, 3, 4, 3, 2, 8, device=device) for _ in range(2)]
        function(*packed, torch.ones(batch, 3, 4, dtype=torch.bool, device=device))
    assert counter.frame_count <= 2


def test_exports_as_one_operator_each(device: str) -> None:
    class Module(torch.nn.Module):
        def forward(self, *x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return acmst_attention(*x)

    grids = make_grids(6, SHAPE, device=device)
    program = torch.export.export(Module(), tuple(grids))
    names = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
    assert "asycmst.acmst.default" in names
    for a, b in zip(program.module()(*grids), acmst_attention(*grids), strict=True):
        assert torch.equal(a, b)


def test_autocast_casts_as_sdpa_does(device: str) -> None:
    grids = make_grids(6, SHAPE, device=device)
    leaves = [x.requires_grad_() for x in grids]
    with torch.autocast(device, torch.bfloat16):
        outs = acmst_attention(*leaves)
        wide = axial_attention(*[x.double() for x in grids[:3]], axis="time")
        loss = fss_ranking_loss(leaves[0].mean((2, 3, 4)).bfloat16())
    assert {x.dtype for x in outs} == {torch.bfloat16}
    assert wide.dtype == torch.float64
    assert loss.dtype == torch.float32
    outs[0].float().sum().backward()
    assert leaves[0].grad.dtype == torch.float32


@pytest.mark.parametrize("strategy", ["asymmetric", "symmetric"])
def test_flops_are_counted(strategy: Any, device: str) -> None:
    """Scores and values of Eq 8 and Eq 10: 4 T N (T + N) H d, and with T + N - 1 keys in both
    directions 8 T N (T + N - 1) H d; the backward is 2.5 times that.
    """
    b, t, n, h, d = SHAPE
    leaves = [x.requires_grad_() for x in make_grids(6, SHAPE, device=device)]
    keys = t + n if strategy == "asymmetric" else 2 * (t + n - 1)
    forward = 4 * b * t * n * keys * h * d
    with FlopCounterMode(display=False) as counter:
        outs = cross_modal_attention(*leaves, strategy=strategy)
    assert counter.get_total_flops() == forward
    with FlopCounterMode(display=False) as counter:
        (outs[0].sum() + outs[1].sum()).backward()
    assert counter.get_total_flops() == forward * 5 // 2


def test_other_devices_run_plain_pytorch() -> None:
    """The meta device stands for every device without kernels of ours: shapes and dtypes hold."""
    grids = [x.to("meta") for x in make_grids(6, SHAPE, dtype=torch.bfloat16)]
    outs = acmst_attention(*grids)
    assert [(x.shape, x.dtype, x.device.type) for x in outs] == [
        (SHAPE, torch.bfloat16, "meta")
    ] * 2


def test_no_gradient_graph_without_need(device: str) -> None:
    grids = [x.requires_grad_() for x in make_grids(3, SHAPE, device=device)]
    with torch.no_grad():
        assert axial_attention(*grids, axis="time").grad_fn is None
    with torch.inference_mode():
        assert axial_attention(*grids, axis="time").is_inference()
