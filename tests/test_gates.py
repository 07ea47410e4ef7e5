"""The gates of the dual-attention fusion: variance-guided by channel, patch-wise in space."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.library import opcheck

from asycmst_ops import _eager, dual_attention_gates, reference
from asycmst_ops.testing import FEATURE_LAYOUTS, assert_within_budget, make_features

OPS = torch.ops.asycmst
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SIZES = ((1, 1), (1, 9), (3, 2), (4, 4), (5, 18), (14, 14), (33, 7), (16, 64))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def by_hand(x: Tensor, patch: int, channel: bool, spatial: bool) -> Tensor:
    """One map (H, W), pixel by pixel."""
    h, w = x.shape
    values = x.flatten().tolist()
    mean = sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1) if h * w > 1 else 0.0
    rows, columns = -(-h // patch), -(-w // patch)
    gate = [
        [
            sigmoid(x[patch * i : patch * (i + 1), patch * j : patch * (j + 1)].mean().item())
            for j in range(columns)
        ]
        for i in range(rows)
    ]

    def between(place: int, patches: int) -> tuple[int, int, float]:
        """The patches whose centres lie around a pixel, and how far it is on the way."""
        position = min(max((place + 0.5) / patch - 0.5, 0.0), patches - 1.0)
        first = min(int(position), patches - 1)
        return first, min(first + 1, patches - 1), position - first

    out = torch.zeros_like(x)
    for y in range(h):
        for z in range(w):
            i, i_next, down = between(y, rows)
            j, j_next, right = between(z, columns)
            upper = gate[i][j] * (1 - right) + gate[i][j_next] * right
            lower = gate[i_next][j] * (1 - right) + gate[i_next][j_next] * right
            total = channel * sigmoid(variance) + spatial * (upper * (1 - down) + lower * down)
            out[y, z] = x[y, z] * total
    return out


def value_and_gradient(
    function: Any, features: Tensor, grad: Tensor, **options: Any
) -> tuple[Tensor, Tensor]:
    leaf = features.detach().requires_grad_()
    out = function(leaf, **options)
    return out.detach(), torch.autograd.grad(out, leaf, grad)[0]


def check(features: Tensor, grad: Tensor, **options: Any) -> None:
    """Value and gradient against the definition in float64, within the error of plain PyTorch."""
    found = value_and_gradient(dual_attention_gates, features, grad, **options)
    plain = value_and_gradient(reference.dual_attention_gates, features, grad, **options)
    exact = value_and_gradient(
        reference.dual_attention_gates, features.double(), grad.double(), **options
    )
    for name, *three in zip(("value", "gradient"), found, plain, exact, strict=True):
        assert_within_budget(f"{name} {tuple(features.shape)}", *three)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 4), (8, 4), (7, 10)], ids=str)
@pytest.mark.parametrize("patch", [1, 3, 4])
def test_is_the_formula_written_out(size: tuple[int, int], patch: int, device: str) -> None:
    x = torch.randn(1, 4, *size, dtype=torch.float64)
    both = dual_attention_gates(x.to(device), patch=patch).cpu()
    split = dual_attention_gates(x.to(device), patch=patch, scope="split").cpu()
    for c in range(4):
        torch.testing.assert_close(both[0, c], by_hand(x[0, c], patch, True, True))
        torch.testing.assert_close(split[0, c], by_hand(x[0, c], patch, c < 2, c >= 2))


def test_whole_patches_are_pooled_and_resized_as_pytorch_does(device: str) -> None:
    """y2 = x * up(sigmoid(avgpool x)) wherever the patches fill the map."""
    x = torch.randn(2, 3, 8, 12, dtype=torch.float64, device=device)
    gate = torch.nn.functional.avg_pool2d(x, 4).sigmoid()
    gate = torch.nn.functional.interpolate(gate, size=(8, 12), mode="bilinear")
    expected = x * x.var((2, 3), keepdim=True).sigmoid() + x * gate
    torch.testing.assert_close(dual_attention_gates(x), expected)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("scope", ["both", "split"])
def test_matches_the_definition(
    scope: str, dtype: torch.dtype, size: tuple[int, int], device: str
) -> None:
    features = make_features((2, 6, *size), dtype=dtype, device=device)
    grad = make_features((2, 6, *size), dtype=dtype, device=device, seed=1)
    check(features, grad, scope=scope)


@pytest.mark.parametrize("layout", FEATURE_LAYOUTS)
@pytest.mark.parametrize("grad_layout", FEATURE_LAYOUTS)
@pytest.mark.parametrize("shape", [(2, 38, 6, 9), (2, 2, 5, 1), (2, 1, 1, 6)], ids=str)
def test_any_layout(shape: Any, layout: Any, grad_layout: Any, device: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        features = make_features(shape, layout=layout, dtype=dtype, device=device)
        grad = make_features(shape, layout=grad_layout, dtype=dtype, device=device, seed=1)
        check(features, grad)
        last = layout.endswith("channels_last") and shape[1] > 1
        order = torch.channels_last if last else torch.contiguous_format
        found = value_and_gradient(dual_attention_gates, features, grad)
        assert all(x.is_contiguous(memory_format=order) for x in found)


@pytest.mark.parametrize("patch", [1, 2, 5, 7, 100])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_any_patch(layout: Any, patch: int, device: str) -> None:
    features = make_features((1, 4, 11, 20), layout=layout, device=device)
    check(features, torch.ones_like(features), patch=patch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_patch_far_beyond_the_map_is_the_map(dtype: torch.dtype, device: str) -> None:
    """No memory and no time grow with the part of a patch that holds no pixel."""
    x = make_features((1, 2, 14, 9), dtype=dtype, device=device)
    for function in (dual_attention_gates, reference.dual_attention_gates):
        found = value_and_gradient(function, x, x.cos(), patch=2**40)
        whole = value_and_gradient(function, x, x.cos(), patch=14)
        torch.testing.assert_close(found, whole)


def test_the_backward_in_plain_pytorch_takes_such_a_patch_too() -> None:
    x = make_features((1, 4, 14, 9))
    found, whole = torch.empty_like(x), torch.empty_like(x)
    for split in (False, True):
        for out, patch in ((found, 2**40), (whole, 14)):
            _eager.gates_backward(out, x.cos(), x, patch, split)
        assert torch.equal(found, whole)


def test_the_channel_gate_is_half_for_constants_and_one_for_large_variance(device: str) -> None:
    x = torch.full((1, 4, 5, 5), 3.0, dtype=torch.float64, device=device)
    x[0, 1] = 100 * torch.randn(5, 5)
    out = dual_attention_gates(x, scope="split")
    torch.testing.assert_close(out[0, 0], x[0, 0] / 2)
    assert torch.equal(out[0, 1], x[0, 1])
    torch.testing.assert_close(out[0, 2:], x[0, 2:] * sigmoid(3.0))


def test_a_single_pixel_has_no_variance(device: str) -> None:
    x = torch.tensor([[[[2.0]], [[-1.0]]]], dtype=torch.float64, device=device)
    out = dual_attention_gates(x).flatten().tolist()
    assert out == pytest.approx([2 * (0.5 + sigmoid(2.0)), -(0.5 + sigmoid(-1.0))])


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_a_large_mean_does_not_drown_the_variance(layout: Any, device: str) -> None:
    """Squares of the values would have no digit left for a variance of 1."""
    x = make_features((1, 32, 40, 40), layout=layout, dtype=torch.float64, device=device) + 3e3
    narrow = x.float()
    gate = (dual_attention_gates(narrow, scope="split") / narrow)[:, :16].double()
    exact = narrow.double().var((2, 3), keepdim=True).sigmoid()[:, :16]
    torch.testing.assert_close(gate, exact.expand(gate.shape), atol=2e-6, rtol=0)
    check(narrow, torch.randn_like(narrow))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("scope", ["both", "split"])
def test_a_large_first_pixel_leaves_the_patches_far_away_their_digits(
    scope: Any, layout: Any, device: str
) -> None:
    """The means of other patches, and so their gates and gradients, have no part in it."""
    x = make_features((1, 4, 16, 9), layout=layout, device=device)
    x[:, :, 0, 0] = 1e8
    found = value_and_gradient(dual_attention_gates, x, x.cos(), scope=scope)
    exact = value_and_gradient(
        reference.dual_attention_gates, x.double(), x.cos().double(), scope=scope
    )
    for narrow, wide in zip(found, exact, strict=True):
        torch.testing.assert_close(narrow[:, :, 8:].double(), wide[:, :, 8:], atol=1e-5, rtol=0)


def test_nan_stays_in_its_channel(device: str) -> None:
    x = make_features((1, 4, 6, 6), device=device)
    clean = dual_attention_gates(x)
    x[0, 1, 2, 3] = math.nan
    out = dual_attention_gates(x)
    assert out[0, 1].isnan().all()
    assert torch.equal(out[0, [0, 2, 3]], clean[0, [0, 2, 3]])


def test_infinite_variance_opens_the_gate(device: str) -> None:
    x = torch.tensor([1e30, -1e30, 2.0, 0.0], device=device).view(1, 1, 2, 2)
    out, grad = value_and_gradient(dual_attention_gates, x, torch.ones_like(x), patch=1)
    torch.testing.assert_close(out.flatten().cpu()[:2], torch.tensor([2e30, -1e30]))
    assert torch.isfinite(grad).all()


@pytest.mark.parametrize("scope", ["both", "split"])
@pytest.mark.parametrize("size", [(1, 1), (3, 6), (5, 4)], ids=str)
def test_gradcheck(scope: Any, size: tuple[int, int]) -> None:
    x = torch.randn(2, 2, *size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: dual_attention_gates(x, scope=scope, patch=3), x)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_runs_are_bitwise_equal_on_any_number_of_threads(layout: Any, device: str) -> None:
    x = make_features((2, 40, 30, 30), layout=layout, device=device)
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        found.append(value_and_gradient(dual_attention_gates, x, x.cos()))
    torch.set_num_threads(before)
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


@pytest.mark.parametrize("layout", FEATURE_LAYOUTS[:4])
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("needs_grad", [False, True], ids=["no-grad", "grad"])
def test_opcheck(needs_grad: bool, split: bool, layout: Any, device: str) -> None:
    x = make_features((2, 4, 5, 6), layout=layout, device=device)
    opcheck(OPS.gates_backward.default, (x.sin(), x, 4, split))
    opcheck(OPS.gates.default, (x.requires_grad_(needs_grad), 4, split))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles_whole_forward_and_backward(backend: str, layout: Any, device: str) -> None:
    def gated(x: Tensor) -> Tensor:
        return (dual_attention_gates(x) + dual_attention_gates(x, scope="split")).square()

    x = make_features((2, 4, 5, 6), layout=layout, device=device)
    made = torch.compile(gated, fullgraph=True, backend=backend)
    results = [value_and_gradient(f, x, torch.ones_like(x)) for f in (gated, made)]
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_new_sizes_compile_at_most_once_more_each(device: str) -> None:
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    function = torch.compile(dual_attention_gates, fullgraph=True, backend=counter)
    for batch, side in ((2, 8), (3, 8), (5, 8), (5, 12), (2, 30), (7, 14)):
        function(torch.randn(batch, 4, side, side, device=device))
    assert counter.frame_count <= 3


def test_only_the_features_are_kept_for_the_backward(device: str) -> None:
    x = torch.randn(2, 4, 9, 9, device=device, requires_grad=True)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
        dual_attention_gates(x)
    assert [t.data_ptr() for t in kept] == [x.data_ptr()]


def test_an_empty_batch_is_empty(device: str) -> None:
    x = torch.empty(0, 4, 5, 5, device=device, requires_grad=True)
    dual_attention_gates(x).sum().backward()
    assert x.grad is not None and x.grad.shape == x.shape


def test_a_second_derivative_names_the_reference(device: str) -> None:
    x = torch.randn(1, 2, 4, 4, device=device, requires_grad=True)
    (grad,) = torch.autograd.grad(dual_attention_gates(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"asycmst_ops\.reference"):
        grad.square().sum().backward()


def test_other_devices_keep_shape_dtype_and_order() -> None:
    x = make_features((2, 4, 5, 6), layout="channels_last", dtype=torch.bfloat16).to("meta")
    out = dual_attention_gates(x)
    assert out.shape == x.shape and out.dtype == x.dtype
    assert out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (TypeError, r"features is a list; pass a float16", {"features": [1.0]}),
        (TypeError, r"features is torch.int64", {"features": torch.zeros(1, 2, 3, 3).long()}),
        (
            ValueError,
            r"features has shape \(2, 3, 3\); pass \(B, C, H, W\)",
            {"features": (2, 3, 3)},
        ),
        (ValueError, r"of which only B may be 0", {"features": (1, 2, 0, 3)}),
        (ValueError, r'scope is \'channel\'; pass "both" or "split"', {"scope": "channel"}),
        (ValueError, r"features has 3 channels", {"features": (1, 3, 4, 4), "scope": "split"}),
        (TypeError, r"patch is a float; pass an integer", {"patch": 4.0}),
        (ValueError, r"patch is 0; pass the side", {"patch": 0}),
    ],
)
def test_bad_input_is_one_clear_line(
    error: type[Exception], match: str, call: dict[str, Any]
) -> None:
    call = {"features": (1, 2, 4, 4), **call}
    features = call.pop("features")
    with pytest.raises(error, match=match):
        dual_attention_gates(
            torch.zeros(features) if isinstance(features, tuple) else features, **call
        )
