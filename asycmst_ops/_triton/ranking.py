"""The pairwise ranking loss of frame scores and its gradient on CUDA, in one launch."""

import math
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from asycmst_ops._triton.axial_tiles import kernel
from asycmst_ops._triton.layout import on_device

_MAX_BLOCK = 32


@kernel
def ranking_kernel(
    loss,
    grad,
    scores,
    lengths,
    batch_stride: tl.int64,
    frame_stride: tl.int64,
    frames: tl.int32,
    floor: tl.float32,
    BLOCK: tl.constexpr,
    HAS_LENGTHS: tl.constexpr,
):
    """Loss and gradient of one row of scores; grid (batch,).

    A pair (t, i) with t < i costs f = max(softplus(s_t - s_i), floor) (Eq 3-4). The row is worked
    on in BLOCK x BLOCK pairs, each frame against all others, so every gradient is summed by one
    program in a fixed order.

    Args:
        loss, grad: float32 (batch,) and (batch, frames), contiguous.
        scores: (batch, frames) with the strides `batch_stride` and `frame_stride`, in elements.
        lengths: int64 (batch,), how many first frames of a row count; any pointer without
            HAS_LENGTHS.
        frames: Frames of a row, padding included.
        floor: Minus the logarithm of the clamp; a pair at or below it has no gradient.
        BLOCK: Frames of a tile, a power of two.
        HAS_LENGTHS: Whether `lengths` is read.
    """
    row = tl.program_id(0).to(tl.int64)
    count = frames
    if HAS_LENGTHS:
        count = tl.load(lengths + row).to(tl.int32)
    # The product needs 64 bits from 46,341 frames on.
    pairs = (count.to(tl.int64) * (count - 1)).to(tl.float32)
    weight = tl.where(count > 1, 2.0 / tl.maximum(pairs, 1.0), 0.0)
    lane = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for first in range(0, frames, BLOCK):
        frame = first + lane
        exists = frame < count
        here = scores + row * batch_stride + frame.to(tl.int64) * frame_stride
        score = tl.load(here, mask=exists, other=0.0).to(tl.float32)
        slope = tl.zeros([BLOCK], tl.float32)
        for second in range(0, count, BLOCK):
            other = second + lane
            there = scores + row * batch_stride + other.to(tl.int64) * frame_stride
            rival = tl.load(there, mask=other < count, other=0.0).to(tl.float32)
            paired = exists[:, None] & (other < count)[None, :]
            earlier = frame[:, None] < other[None, :]
            # The earlier score minus the later one, whichever of the two this lane stands for.
            gap = score[:, None] - rival[None, :]
            gap = tl.where(earlier, gap, -gap)
            # softplus and sigmoid from e^-|gap|, which cannot overflow. The quotient restores the
            # digits of e^-|gap| that 1 + e^-|gap| has lost, as log1p would.
            decay = tl.exp(-tl.abs(gap))
            raised = 1.0 + decay
            kept = raised - 1.0
            digits = decay / tl.where(kept > 0.0, kept, 1.0)
            tail = tl.where(kept > 0.0, tl.log(raised) * digits, decay)
            cost = tl.maximum(gap, 0.0) + tail
            share = tl.where(gap >= 0.0, 1.0, decay) / raised
            total += tl.sum(tl.where(paired & earlier, tl.maximum(cost, floor), 0.0), 1)
            pull = tl.where(earlier, share, -share)
            counts = paired & (frame[:, None] != other[None, :]) & (cost > floor)
            slope += tl.sum(tl.where(counts, pull, 0.0), 1)
        at = grad + row * frames + frame
        tl.store(at, slope * weight, mask=frame < frames)
    tl.store(loss + row, tl.sum(total, 0) * weight)


def compile_keywords(frames: int, has_lengths: bool) -> dict[str, Any]:
    """Everything that, beside the dtypes, selects a compiled kernel."""
    block = min(_MAX_BLOCK, triton.next_power_of_2(max(frames, 16)))
    return {
        "BLOCK": block,
        "HAS_LENGTHS": has_lengths,
        "num_warps": 1 if block == 16 else 4,
        "num_stages": 1,
        "enable_fp_fusion": True,
    }


def fss_ranking(
    loss: Tensor, grad: Tensor, scores: Tensor, lengths: Tensor | None, clamp: float
) -> None:
    """Fill `loss` (B,) and `grad` (B, T), d loss[b] / d scores[b, t]; see `fss_ranking_loss`.

    Args:
        loss, grad: float32, contiguous.
        scores: (B, T), float16, bfloat16 or float32, any strides.
        lengths: None or int64 (B,) in [0, T], contiguous.
        clamp: The clamp on the probability of a pair, in (0, 1].
    """
    batches, frames = scores.shape
    with on_device(scores):
        ranking_kernel[(batches,)](
            loss,
            grad,
            scores,
            scores if lengths is None else lengths,
            *scores.stride(),
            frames,
            -math.log(clamp),
            **compile_keywords(frames, lengths is not None),
        )
