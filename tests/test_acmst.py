"""Both directions of the asymmetric attention in one call (Section 3.3, Eq 6-10)."""

from typing import Any

import pytest
import torch
from torch import Tensor

from asycmst_ops import (
    acmst_attention,
    acmst_attention_qkvpacked,
    axial_attention,
    reference,
)
from asycmst_ops.testing import LAYOUTS, assert_within_budget, make_grids, make_mask

NAMES = ("dq_bus", "dk_ceus", "dv_ceus", "dq_ceus", "dk_bus", "dv_bus")
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def run(function: Any, inputs: list[Tensor], grads: list[Tensor], **options: Any) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in inputs]
    outs = function(*leaves, **options)
    found = torch.autograd.grad(outs, leaves, [g.to(outs[0].dtype) for g in grads])
    return [*(o.detach() for o in outs), *found]


def check(inputs: list[Tensor], grads: list[Tensor], **options: Any) -> None:
    actual = run(acmst_attention, inputs, grads, **options)
    plain = run(reference.acmst_attention, inputs, grads, **options)
    wide = [x.double() for x in inputs]
    exact = run(reference.acmst_attention, wide, [g.double() for g in grads], **options)
    for name, *three in zip(("att_bus", "att_ceus", *NAMES), actual, plain, exact, strict=True):
        assert_within_budget(name, *three)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [(1, 1, 3), (16, 49, 64), (5, 13, 20), (33, 6, 48)], ids=str)
def test_matches_the_float64_reference(
    dtype: torch.dtype, size: tuple[int, int, int], device: str
) -> None:
    frames, places, width = size
    *inputs, g1, g2 = make_grids(8, (2, frames, places, 2, width), dtype=dtype, device=device)
    check(inputs, [g1, g2])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_reads_every_layout(layout: str, device: str) -> None:
    *inputs, g1, g2 = make_grids(8, (2, 6, 7, 2, 16), layout=layout, device=device)
    check(inputs, [g1, g2])


def test_masks_mark_keys_of_their_modality(device: str) -> None:
    *inputs, g1, g2 = make_grids(8, (2, 6, 7, 2, 16), device=device)
    bus, ceus = make_mask((2, 6, 7)).to(device), make_mask((2, 6, 7), seed=1).to(device)
    check(inputs, [g1, g2], bus_mask=bus, ceus_mask=ceus)
    plain = acmst_attention(*inputs)
    only_bus = acmst_attention(*inputs, bus_mask=bus)
    only_ceus = acmst_attention(*inputs, ceus_mask=ceus)
    assert torch.equal(only_bus[0], plain[0])
    assert not torch.equal(only_bus[1], plain[1])
    assert torch.equal(only_ceus[1], plain[1])
    assert not torch.equal(only_ceus[0], plain[0])


def test_equals_the_two_single_directions(device: str) -> None:
    *inputs, g1, g2 = make_grids(8, (2, 16, 49, 2, 64), device=device)
    joint = run(acmst_attention, inputs, [g1, g2])

    def singles(*x: Tensor) -> tuple[Tensor, Tensor]:
        return axial_attention(*x[:3], axis="time"), axial_attention(*x[3:], axis="space")

    for a, b in zip(joint, run(singles, inputs, [g1, g2]), strict=True):
        assert torch.equal(a, b)


def test_support_is_a_column_for_bus_and_a_frame_for_ceus(device: str) -> None:
    """d att_bus(t, n) / d v_ceus(t', n') = 0 unless n' = n, and the mirror image (Eq 8, Eq 10)."""
    inputs = [x.requires_grad_() for x in make_grids(6, (1, 4, 5, 1, 8), device=device)]
    att_bus, att_ceus = acmst_attention(*inputs)
    (by_ceus,) = torch.autograd.grad(att_bus[0, 1, 2].sum(), inputs[2], retain_graph=True)
    (by_bus,) = torch.autograd.grad(att_ceus[0, 1, 2].sum(), inputs[5])
    places, frames = (by_ceus[0].abs().sum((2, 3)) > 0).nonzero(as_tuple=True)[::-1]
    assert set(places.tolist()) == {2}
    assert set(frames.tolist()) == {0, 1, 2, 3}
    places, frames = (by_bus[0].abs().sum((2, 3)) > 0).nonzero(as_tuple=True)[::-1]
    assert set(places.tolist()) == {0, 1, 2, 3, 4}
    assert set(frames.tolist()) == {1}


def test_the_directions_are_independent(device: str) -> None:
    inputs = [x.requires_grad_() for x in make_grids(6, (2, 4, 5, 2, 8), device=device)]
    att_bus, _ = acmst_attention(*inputs)
    found = torch.autograd.grad(att_bus.square().sum(), inputs)
    assert all(g.abs().max() > 0 for g in found[:3])
    assert all(g.abs().max() == 0 for g in found[3:])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_packed_projections_give_the_same_bits(dtype: torch.dtype, device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    packed = [
        torch.randn(2, 6, 7, 3, 2, 16, generator=generator).to(device, dtype).requires_grad_()
        for _ in range(2)
    ]
    g1, g2 = make_grids(2, (2, 6, 7, 2, 16), dtype=dtype, device=device, seed=1)
    bus_mask = make_mask((2, 6, 7)).to(device)
    outs = acmst_attention_qkvpacked(*packed, bus_mask=bus_mask, scale=0.3)
    grads = torch.autograd.grad(outs, packed, [g1, g2])
    (q_b, k_b, v_b), (q_c, k_c, v_c) = (x.detach().unbind(3) for x in packed)
    six = run(
        acmst_attention, [q_b, k_c, v_c, q_c, k_b, v_b], [g1, g2], bus_mask=bus_mask, scale=0.3
    )
    assert torch.equal(outs[0], six[0])
    assert torch.equal(outs[1], six[1])
    dq_b, dk_c, dv_c, dq_c, dk_b, dv_b = six[2:]
    assert torch.equal(grads[0], torch.stack((dq_b, dk_b, dv_b), 3))
    assert torch.equal(grads[1], torch.stack((dq_c, dk_c, dv_c), 3))
    assert all(g.is_contiguous() for g in grads)


def test_gradcheck() -> None:
    inputs = [x.requires_grad_() for x in make_grids(6, (2, 3, 4, 1, 5), dtype=torch.float64)]
    masks = {"bus_mask": make_mask((2, 3, 4)), "ceus_mask": make_mask((2, 3, 4), seed=1)}
    assert torch.autograd.gradcheck(lambda *x: acmst_attention(*x, **masks), inputs)


def test_the_graph_keeps_nothing_but_the_inputs(device: str) -> None:
    """The backward recomputes: no output and no weights are saved."""
    inputs = [x.requires_grad_() for x in make_grids(6, (2, 8, 9, 2, 16), device=device)]
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: (kept.append(x.data_ptr()), x)[1], lambda x: x
    ):
        acmst_attention(*inputs)
    assert sorted(kept) == sorted(x.data_ptr() for x in inputs)


def test_outputs_are_contiguous(device: str) -> None:
    inputs = make_grids(6, (2, 6, 7, 2, 16), layout="permuted", device=device)
    assert all(x.is_contiguous() for x in acmst_attention(*inputs))


@pytest.mark.parametrize(
    ("shape", "direction"),
    [((2, 1, 6, 2, 8), 0), ((2, 6, 1, 2, 8), 1)],
    ids=["one frame", "one place"],
)
def test_a_single_key_passes_its_value_and_moves_no_query(
    shape: tuple[int, ...], direction: int, device: str
) -> None:
    """With one frame att_bus is v_ceus (Eq 8), with one place att_ceus is v_bus (Eq 10)."""
    *inputs, g_bus, g_ceus = make_grids(8, shape, device=device)
    outs = run(acmst_attention, inputs, [g_bus, g_ceus])
    dq, dk, dv = outs[2 + 3 * direction : 5 + 3 * direction]
    assert torch.equal(outs[direction], inputs[2 + 3 * direction])
    assert torch.equal(dv, (g_bus, g_ceus)[direction])
    limit = 0 if device == "cpu" else 1e-6
    assert dq.abs().max() <= limit
    assert dk.abs().max() <= limit


@pytest.mark.parametrize("dim", [1, 2], ids=["frames", "places"])
def test_tokens_of_both_modalities_may_change_places_together(dim: int, device: str) -> None:
    inputs = make_grids(6, (2, 5, 7, 2, 8), dtype=torch.float64, device=device)
    order = torch.randperm(inputs[0].shape[dim]).to(device)
    moved = acmst_attention(*(x.index_select(dim, order) for x in inputs))
    for out, x in zip(moved, acmst_attention(*inputs), strict=True):
        torch.testing.assert_close(out, x.index_select(dim, order))


def test_the_order_of_the_attended_keys_does_not_matter(device: str) -> None:
    """At each place another order of the CEUS frames, in each frame one of the BUS places."""
    inputs = make_grids(6, (2, 5, 7, 2, 8), dtype=torch.float64, device=device)
    moved = list(inputs)
    for positions, dim in (((1, 2), 1), ((4, 5), 2)):
        order = torch.rand(2, 5, 7, device=device).argsort(dim)[..., None, None]
        for i in positions:
            moved[i] = inputs[i].gather(dim, order.expand_as(inputs[i]))
            assert not torch.equal(moved[i], inputs[i])
    for out, expected in zip(acmst_attention(*moved), acmst_attention(*inputs), strict=True):
        torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("scale", [0.0, 0.3, 30.0])
def test_outputs_lie_among_the_values_they_attend(scale: float, device: str) -> None:
    """And are their mean where no key is preferred."""
    inputs = make_grids(6, (2, 5, 7, 2, 8), device=device)
    att_bus, att_ceus = acmst_attention(*inputs, scale=scale)
    for out, values, dim in ((att_bus, inputs[2], 1), (att_ceus, inputs[5], 2)):
        assert (out >= values.amin(dim, keepdim=True) - 1e-6).all()
        assert (out <= values.amax(dim, keepdim=True) + 1e-6).all()
        mean = values.mean(dim, keepdim=True).expand_as(out)
        assert torch.allclose(out, mean, atol=1e-6) is (scale == 0)


def test_gradients_by_hand() -> None:
    """dv_j = sum p_j g, ds_j = p_j (g v_j - sum p_k g v_k), dq = sum ds_j k_j, dk_j = sum ds_j q
    with the scale 1/sqrt(4) in ds: Eq 8 and Eq 10 differentiated query by query.
    """
    *inputs, g_bus, g_ceus = make_grids(8, (1, 3, 4, 1, 4), dtype=torch.float64)
    found = run(acmst_attention, inputs, [g_bus, g_ceus])[2:]
    expected = [torch.zeros_like(x) for x in inputs]
    for t in range(3):
        for n in range(4):
            for first, grad, seen in (
                (0, g_bus, (0, slice(None), n)),
                (3, g_ceus, (0, t, slice(None))),
            ):
                q, k, v = (x.squeeze(3) for x in inputs[first : first + 3])
                dq, dk, dv = (x.squeeze(3) for x in expected[first : first + 3])
                g, asked = grad[0, t, n, 0], q[0, t, n]
                p = (k[seen] @ asked / 2).softmax(0)
                gv = v[seen] @ g
                ds = p * (gv - p @ gv) / 2
                dq[0, t, n] += ds @ k[seen]
                dk[seen] += ds[:, None] * asked
                dv[seen] += p[:, None] * g
    for name, a, b in zip(NAMES, found, expected, strict=True):
        torch.testing.assert_close(a, b, msg=lambda text, name=name: f"{name}: {text}")


G = make_grids(1, (2, 3, 4, 2, 8))[0]


@pytest.mark.parametrize(
    ("error", "match", "position", "value"),
    [
        (ValueError, r"k_bus has shape .* but q_bus has .*same grid", 4, G[:, :2]),
        (TypeError, r"v_bus is torch.bfloat16 but q_bus is torch.float32", 5, G.bfloat16()),
        (TypeError, r"q_ceus is a NoneType; pass a tensor", 3, None),
    ],
)
def test_bad_grids_are_one_clear_line(
    error: type[Exception], match: str, position: int, value: Any
) -> None:
    call = [G] * 6
    call[position] = value
    with pytest.raises(error, match=match):
        acmst_attention(*call)


def test_a_wrong_packed_shape_is_one_clear_line() -> None:
    with pytest.raises(ValueError, match=r"qkv_ceus has shape .*\(B, T, N, 3, H, d\)"):
        acmst_attention_qkvpacked(torch.zeros(2, 3, 4, 3, 2, 8), torch.zeros(2, 3, 4, 2, 2, 8))


@pytest.mark.parametrize("name", ["bus_mask", "ceus_mask"])
def test_a_wrong_mask_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} has shape .*\(2, 3, 4\)"):
        acmst_attention(*[G] * 6, **{name: torch.ones(2, 3, 5, dtype=torch.bool)})
