"""The strategy "symmetric" as an operator: one softmax over column and frame (Section 4.6)."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from asycmst_ops import _cpu, _eager, cross_modal_attention, reference
from asycmst_ops._problem import UnionBackward, UnionForward
from asycmst_ops.testing import LAYOUTS, assert_within_budget, make_grids, make_mask

NAMES = ("att_bus", "att_ceus", "dq_bus", "dk_ceus", "dv_ceus", "dq_ceus", "dk_bus", "dv_bus")
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SHAPE = (2, 3, 4, 2, 8)

symmetric = partial(cross_modal_attention, strategy="symmetric")
definition = partial(reference.cross_modal_attention, strategy="symmetric")


def run(function: Any, inputs: list[Tensor], grads: list[Tensor], **options: Any) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in inputs]
    outs = function(*leaves, **options)
    found = torch.autograd.grad(outs, leaves, [g.to(outs[0].dtype) for g in grads])
    return [*(o.detach() for o in outs), *found]


def check(inputs: list[Tensor], grads: list[Tensor], **options: Any) -> None:
    actual = run(symmetric, inputs, grads, **options)
    plain = run(definition, inputs, grads, **options)
    exact = run(definition, [x.double() for x in inputs], [g.double() for g in grads], **options)
    for name, *three in zip(NAMES, actual, plain, exact, strict=True):
        assert_within_budget(name, *three)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [(1, 1, 3), (16, 49, 64), (5, 13, 20), (33, 6, 48)], ids=str)
def test_matches_the_float64_reference(
    dtype: torch.dtype, size: tuple[int, int, int], device: str
) -> None:
    frames, places, width = size
    *inputs, g1, g2 = make_grids(8, (2, frames, places, 2, width), dtype=dtype, device=device)
    check(inputs, [g1, g2])
    bus, ceus = (make_mask((2, frames, places), seed=i).to(device) for i in range(2))
    check(inputs, [g1, g2], bus_mask=bus, ceus_mask=ceus, scale=0.3)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_reads_every_layout(layout: str, device: str) -> None:
    *inputs, g1, g2 = make_grids(8, (2, 6, 7, 2, 16), layout=layout, device=device)
    check(inputs, [g1, g2])


def test_masks_mark_keys_of_their_modality(device: str) -> None:
    inputs = make_grids(6, (2, 6, 7, 2, 16), device=device)
    mask = make_mask((2, 6, 7)).to(device)
    plain = symmetric(*inputs)
    for name, changed in (("bus_mask", 1), ("ceus_mask", 0)):
        outs = symmetric(*inputs, **{name: mask})
        assert torch.equal(outs[1 - changed], plain[1 - changed])
        assert not torch.equal(outs[changed], plain[changed])


def test_gradients_by_hand() -> None:
    """dv_j = sum p_j g, ds_j = p_j (g v_j - sum p_k g v_k) / sqrt(4), query by query."""
    *inputs, g_bus, g_ceus = make_grids(8, (1, 3, 4, 1, 4), dtype=torch.float64)
    found = run(symmetric, inputs, [g_bus, g_ceus])[2:]
    wanted = [torch.zeros_like(x) for x in inputs]
    for first, grad in ((0, g_bus), (3, g_ceus)):
        q, k, v = (x[0, :, :, 0] for x in inputs[first : first + 3])
        dq, dk, dv = (x[0, :, :, 0] for x in wanted[first : first + 3])
        for t in range(3):
            for n in range(4):
                seen = [(u, n) for u in range(3)] + [(t, m) for m in range(4) if m != n]
                at = tuple(torch.tensor(x) for x in zip(*seen, strict=True))
                g = grad[0, t, n, 0]
                p = (k[at] @ q[t, n] / 2).softmax(0)
                gv = v[at] @ g
                ds = p * (gv - p @ gv) / 2
                dq[t, n] += ds @ k[at]
                dk[at] += ds[:, None] * q[t, n]
                dv[at] += p[:, None] * g
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("shape", "strategy"), [((2, 1, 7, 2, 16), "spatial"), ((2, 5, 1, 2, 16), "temporal")]
)
def test_one_frame_or_one_place_leaves_one_axis(
    shape: tuple[int, ...], strategy: Any, device: str
) -> None:
    *inputs, g1, g2 = make_grids(8, shape, device=device)
    other = partial(cross_modal_attention, strategy=strategy)
    for a, b in zip(run(symmetric, inputs, [g1, g2]), run(other, inputs, [g1, g2]), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_one_token_passes_its_value_and_no_gradient(device: str) -> None:
    *inputs, g1, g2 = make_grids(8, (2, 1, 1, 2, 16), device=device)
    att_bus, att_ceus, *grads = run(symmetric, inputs, [g1, g2])
    assert torch.equal(att_bus, inputs[2]) and torch.equal(att_ceus, inputs[5])
    assert torch.equal(grads[2], g1) and torch.equal(grads[5], g2)
    for i in (0, 1, 3, 4):
        assert grads[i].abs().max() <= (0 if device == "cpu" else 1e-6)


def test_an_empty_batch_gives_empty_results(device: str) -> None:
    *inputs, g1, g2 = make_grids(8, (0, 3, 4, 2, 8), device=device)
    assert {x.shape for x in run(symmetric, inputs, [g1, g2])} == {(0, 3, 4, 2, 8)}


def test_takes_expanded_gradients(device: str) -> None:
    inputs = make_grids(6, SHAPE, device=device)
    ones = torch.ones(SHAPE, device=device)
    dense = run(symmetric, inputs, [ones, ones])
    expanded = run(symmetric, inputs, [ones[:1, :1, :1, :1, :1].expand(SHAPE)] * 2)
    assert all(map(torch.equal, expanded, dense))


def test_the_backward_is_the_same_bits_each_time(device: str) -> None:
    *inputs, g1, g2 = make_grids(8, (2, 16, 49, 2, 64), device=device)
    first = run(symmetric, inputs, [g1, g2])
    for _ in range(3):
        assert all(map(torch.equal, run(symmetric, inputs, [g1, g2]), first))


def test_saves_nothing_but_its_inputs(device: str) -> None:
    leaves = [x.requires_grad_() for x in make_grids(6, SHAPE, device=device)]
    mask = make_mask(SHAPE[:3]).to(device)
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        symmetric(*leaves, bus_mask=mask)
    inputs = {x.untyped_storage().data_ptr() for x in (*leaves, mask)}
    assert {x.untyped_storage().data_ptr() for x in saved} == inputs


def test_a_second_derivative_names_the_reference(device: str) -> None:
    leaves = [x.requires_grad_() for x in make_grids(6, SHAPE, device=device)]
    outs = symmetric(*leaves)
    (grad,) = torch.autograd.grad(outs[0].square().sum(), leaves[0], create_graph=True)
    with pytest.raises(RuntimeError, match=r"no second derivatives.*asycmst_ops\.reference"):
        grad.sum().backward()


@pytest.mark.skipif(not _cpu.available, reason="plain PyTorch copies as it likes")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_a_strided_last_dimension_is_copied(layout: Any) -> None:
    *inputs, g1, g2 = make_grids(8, SHAPE, layout=layout)
    leaves = [x.requires_grad_() for x in inputs]
    with profile(activities=[ProfilerActivity.CPU]) as record:
        torch.autograd.grad(symmetric(*leaves), leaves, [g1, g2])
    counts = {event.key: event.count for event in record.key_averages()}
    assert counts["asycmst::union"] and counts["asycmst::union_backward"]
    assert (counts.get("aten::copy_", 0) > 0) is (layout == "strided")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_plain_pytorch_backward_is_that_of_the_reference(dtype: torch.dtype) -> None:
    """What other devices run."""
    q, k, v, grad = make_grids(4, (2, 5, 7, 2, 16), dtype=dtype)
    mask = make_mask((2, 5, 7))
    out, *grads = (torch.empty_like(q) for _ in range(4))
    _eager.union_forward([UnionForward(out, q, k, v, mask)], 0.3)
    _eager.union_backward([UnionBackward(*grads, grad, q, k, v, mask)], 0.3)
    results = []
    for kind in (dtype, torch.float64):
        leaves = [x.to(kind).requires_grad_() for x in (q, k, v)]
        wanted = reference.union_attention(*leaves, scale=0.3, key_mask=mask)
        gradients = torch.autograd.grad(wanted, leaves, grad.to(kind))
        results.append([wanted.detach(), *gradients])
    for name, *three in zip(("out", "dq", "dk", "dv"), [out, *grads], *results, strict=True):
        assert_within_budget(name, *three)


def test_exports_as_one_operator(device: str) -> None:
    class Module(torch.nn.Module):
        def forward(self, *x: Tensor) -> tuple[Tensor, Tensor]:
            return symmetric(*x)

    grids = make_grids(6, SHAPE, device=device)
    program = torch.export.export(Module(), tuple(grids))
    names = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
    assert "asycmst.union.default" in names
    assert all(map(torch.equal, program.module()(*grids), symmetric(*grids)))


def test_autocast_casts_as_sdpa_does(device: str) -> None:
    leaves = [x.requires_grad_() for x in make_grids(6, SHAPE, device=device)]
    with torch.autocast(device, torch.bfloat16):
        outs = symmetric(*leaves)
    assert {x.dtype for x in outs} == {torch.bfloat16}
    outs[0].float().sum().backward()
    assert leaves[0].grad is not None and leaves[0].grad.dtype == torch.float32
