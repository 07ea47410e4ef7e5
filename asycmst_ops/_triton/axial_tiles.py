"""What the kernels share: how they are compiled, which program owns what, tiles, dots, softmax."""

import inspect
from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl

# The interpreter multiplies the raw bit patterns of bfloat16 operands, so it gets float32 ones.
UPCAST = tl.constexpr(triton.knobs.runtime.interpret)


def kernel(function: Callable[..., None]) -> Any:
    """`triton.jit` without specialising any run-time argument by its value.

    A clip of another length, or of length 1, must not compile again. What selects a compiled
    kernel are the dtypes and the constexpr arguments, alignment (UNIT) included.
    """
    parameters = inspect.signature(function).parameters.values()
    runtime = [each.name for each in parameters if each.annotation is not tl.constexpr]
    return triton.jit(function, do_not_specialize=runtime)


@triton.jit
def locate(groups, heads):
    """Batch, group and head of this program; the head runs fastest, so neighbours share lines."""
    program = tl.program_id(0)
    head = program % heads
    group = program // heads % groups
    batch = program // heads // groups
    # 64 bits before the first multiply: a stride may exceed 2^31 elements by itself.
    return batch.to(tl.int64), group.to(tl.int64), head.to(tl.int64)


@triton.jit
def locate_block(groups, heads, blocks):
    """Batch, group, head and block of rows of this program; blocks run faster than groups."""
    program = tl.program_id(0)
    head = program % heads
    rest = program // heads
    block = rest % blocks
    group = rest // blocks % groups
    batch = rest // blocks // groups
    return batch.to(tl.int64), group.to(tl.int64), head.to(tl.int64), block


@triton.jit
def tile(
    pointer,
    batch,
    group,
    head,
    batch_stride,
    group_stride,
    row_stride,
    head_stride,
    rows,
    columns,
    UNIT: tl.constexpr,
):
    """Addresses of a (rows, columns) tile of one group and head; strides count UNIT elements.

    UNIT > 1 promises that every address is a multiple of 16 bytes: the literal factor and the
    hint on the base are what the compiler needs for 128-bit accesses.
    """
    base = pointer + (batch * batch_stride + group * group_stride + head * head_stride) * UNIT
    if UNIT > 1:
        base = tl.multiple_of(base, 16)
    return base + rows.to(tl.int64)[:, None] * (row_stride * UNIT) + columns[None, :]


@triton.jit
def distance(rows, stride):
    """How far `rows` rows reach, in 64 bits whatever the two numbers are."""
    return rows * stride.to(tl.int64)


@triton.jit
def plane(pointer, batch, group, head, batch_stride, group_stride, row_stride, head_stride, rows):
    """Addresses of one number for each row; strides count elements."""
    base = pointer + batch * batch_stride + group * group_stride + head * head_stride
    return base + rows.to(tl.int64) * row_stride


@triton.jit
def inside(rows, length, columns, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Which elements of a tile exist, (rows, columns); (rows, 1) without padded columns."""
    exists = (rows < length)[:, None]
    if D % BLOCK_D != 0:
        exists = exists & (columns < D)[None, :]
    return exists


@triton.jit
def kept_keys(
    mask,
    batch,
    group,
    batch_stride,
    group_stride,
    row_stride,
    first,
    lanes,
    length,
    HAS_MASK: tl.constexpr,
):
    """Which of the at most 64 keys first + lanes take part: they exist and the mask keeps them."""
    keep = first + lanes < length
    if HAS_MASK:
        base = mask + batch * batch_stride + group * group_stride
        keep = tl.load(base + (first + lanes).to(tl.int64) * row_stride, mask=keep, other=0)
        # Packed into one scalar: unpacking it costs a shift wherever the mask is needed, while a
        # vector would be loaded again for each register layout, which spills.
        packed = tl.sum(keep.to(tl.int64) << lanes, 0)
        keep = (packed >> lanes) & 1 != 0
    return keep


@triton.jit
def load(pointers, exists, keep):
    """A tile with exact zeros outside the grid and in rows that take no part, NaN or not."""
    values = tl.load(pointers, mask=exists, other=0.0)
    # The select is worth having even where `keep` says no more than `exists`. It comes after the
    # load, so that the load need not wait for a mask; and with it the compiler writes each tile
    # to shared memory once, after issuing all loads, where it else converts tile by tile: a third
    # fewer registers in the backward pass of a 64-row axis, and one memory latency, not four.
    return tl.where(keep[:, None], values, 0.0)


@triton.jit
def load_rows(pointers, exists, keep, HAS_MASK: tl.constexpr):
    """A tile inside a loop: as `load`, but masked rows are not read at all.

    A select after the load would take the tile through registers, out of the asynchronous copies
    that let one block arrive while another is worked on.
    """
    if HAS_MASK:
        exists = exists & keep[:, None]
    return tl.load(pointers, mask=exists, other=0.0)


@triton.jit
def store_kept(pointers, values, exists, keep, HAS_MASK: tl.constexpr):
    """Store a key or value gradient: exactly 0 for masked keys, whatever the gradients hold."""
    if HAS_MASK:
        values = tl.where(keep[:, None], values, 0.0)
    tl.store(pointers, values.to(pointers.dtype.element_ty), mask=exists)


@triton.jit
def dot(a, b, PRECISION: tl.constexpr):
    """Matrix product with float32 accumulation; PRECISION matters to float32 operands only."""
    if UPCAST:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def pairs(queries, keys, keep, SKIP_SELF: tl.constexpr):
    """Which pairs of query and key take part, (queries, keys) or, without SKIP_SELF, (1, keys)."""
    taken = keep[None, :]
    if SKIP_SELF:
        taken = taken & (queries[:, None] != keys[None, :])
    return taken


@triton.jit
def logits(scores, scale, keep):
    """Base-2 logits from q k^T: scaled, and exactly -inf for keys that take no part."""
    return tl.where(keep[None, :], scores * (scale * 1.4426950408889634), float("-inf"))


@triton.jit
def finite_peak(peak, HAS_MASK: tl.constexpr):
    """A row maximum that is safe to subtract: -inf - -inf would be NaN in a row without keys."""
    if HAS_MASK:
        peak = tl.where(peak == float("-inf"), 0.0, peak)
    return peak


@triton.jit
def reciprocal(total, HAS_MASK: tl.constexpr):
    """1 / total, and 1 for a row without keys, whose weights are all exactly 0 already."""
    if HAS_MASK:
        total = tl.where(total == 0.0, 1.0, total)
    return 1.0 / total
