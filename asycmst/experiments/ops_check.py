"""The cross attention at the paper's shape: against its definition, and against the clock."""

import statistics
import time
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F

import asycmst_ops
from asycmst_ops import reference

Strategy = Literal["global", "symmetric", "asymmetric", "spatial", "temporal"]
STRATEGIES: tuple[Strategy, ...] = ("global", "symmetric", "asymmetric", "spatial", "temporal")


class Shape(NamedTuple):
    """A token grid; the defaults are the paper's for one clip pair."""

    batch: int = 1
    frames: int = 16
    positions: int = 49
    heads: int = 6
    channels: int = 64


class Timing(NamedTuple):
    """Median milliseconds of one provider."""

    provider: str
    forward_ms: float
    forward_backward_ms: float


class OpsCheck(NamedTuple):
    """What :func:`check_ops` found: largest absolute differences, and times."""

    shape: Shape
    threads: int
    forward_difference: float
    gradient_difference: float
    timings: list[Timing]


def sdpa_attention(
    q_bus: torch.Tensor,
    k_ceus: torch.Tensor,
    v_ceus: torch.Tensor,
    q_ceus: torch.Tensor,
    k_bus: torch.Tensor,
    v_bus: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Eq 8 and Eq 10 by PyTorch's own attention on views, nothing copied.

    Tensors (1, T, N, H, d): with one clip, positions (or frames) serve as SDPA's batch, which is
    the four-dimensional form that its fast CPU kernel takes.
    """

    def attend(axis: int, *tensors: torch.Tensor) -> torch.Tensor:
        # (1, T, N, H, d) -> (N, H, T, d) for time, (T, H, N, d) for space, and back.
        order = (1, 2, 0, 3) if axis == 1 else (0, 2, 1, 3)
        back = (2, 0, 1, 3) if axis == 1 else (0, 2, 1, 3)
        q, k, v = (tensor[0].permute(order) for tensor in tensors)
        return F.scaled_dot_product_attention(q, k, v).permute(back)[None]

    return attend(1, q_bus, k_ceus, v_ceus), attend(2, q_ceus, k_bus, v_bus)


def check_ops(shape: Shape | None = None, *, rounds: int = 30, seed: int = 0) -> OpsCheck:
    """Compare ours with the definition, then time ours, the definition and SDPA in turn.

    Float32 on the CPU with torch's current thread count. The providers take turns within each
    round, so a change of the clock meets all of them; a median over rounds is reported.

    Args:
        shape: the grid; None is the paper's. Its batch must be 1 (SDPA's views need that).
        rounds: timed rounds after three for warm-up.
        seed: of the random tokens.
    """
    shape = Shape() if shape is None else shape
    if shape.batch != 1:
        raise ValueError(f"batch={shape.batch} cannot be viewed in four dimensions; use 1")
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(*shape, generator=generator) for _ in range(6)]
    upstream = (torch.randn(*shape, generator=generator), torch.randn(*shape, generator=generator))
    providers: dict[str, Callable[..., tuple[torch.Tensor, torch.Tensor]]] = {
        "asycmst_ops": asycmst_ops.acmst_attention,
        "einsum reference": reference.acmst_attention,
        "SDPA on views": sdpa_attention,
    }
    ours = _forward_backward(asycmst_ops.acmst_attention, inputs, upstream)
    truth = _forward_backward(reference.acmst_attention, inputs, upstream)
    differences = [float((a - b).abs().max()) for a, b in zip(ours, truth, strict=True)]

    forward: dict[str, list[float]] = {name: [] for name in providers}
    both: dict[str, list[float]] = {name: [] for name in providers}
    for round_ in range(rounds + 3):
        for name, provider in providers.items():
            with torch.no_grad():
                start = time.perf_counter()
                provider(*inputs)
                middle = time.perf_counter()
            _forward_backward(provider, inputs, upstream)
            end = time.perf_counter()
            if round_ >= 3:
                forward[name].append(1e3 * (middle - start))
                both[name].append(1e3 * (end - middle))
    return OpsCheck(
        shape=shape,
        threads=torch.get_num_threads(),
        forward_difference=max(differences[:2]),
        gradient_difference=max(differences[2:]),
        timings=[
            Timing(name, statistics.median(forward[name]), statistics.median(both[name]))
            for name in providers
        ],
    )


def _forward_backward(
    provider: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    inputs: list[torch.Tensor],
    upstream: tuple[torch.Tensor, torch.Tensor],
) -> list[torch.Tensor]:
    """Both outputs and the six gradients."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    outputs = provider(*leaves)
    return [
        *(output.detach() for output in outputs),
        *torch.autograd.grad(outputs, leaves, upstream),
    ]
