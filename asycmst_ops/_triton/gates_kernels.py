"""The kernels of the gates: what the blocks of patches collect, joining them, writing.

    gate = a + u,  a = sigmoid(variance),  u = s between the centres of patches,  s = sigmoid(mean)
    dx = grad gate + 2 a (1 - a) sum(q) (x - mean) / (pixels - 1) + s (1 - s) u'(q) / pixels

with q = grad x and the last pixels those of a patch. The parts of u'(q) sum to q, so the patches
know sum(q).
"""

import triton
import triton.language as tl

from asycmst_ops._triton.axial_tiles import kernel


@triton.jit
def _locate(blocks, channel_blocks, PATCHES: tl.constexpr, CHANNELS: tl.constexpr):
    """Batch, block, patches and channels of this program; blocks run fastest."""
    program = tl.program_id(0)
    block = program % blocks
    rest = program // blocks
    patch = block * PATCHES + tl.arange(0, PATCHES)
    channel = rest % channel_blocks * CHANNELS + tl.arange(0, CHANNELS)
    return (rest // channel_blocks).to(tl.int64), block, patch, channel


@triton.jit
def _hat(off, patch, side, patches):
    """The weight of a patch in the gate of a row or column `off` from where the patch begins."""
    position = (off + 0.5) / side - 0.5
    # Beyond the centres at the border the gate is level.
    position = tl.maximum(position, -patch.to(tl.float32))
    position = tl.minimum(position, (patches - 1 - patch).to(tl.float32))
    return tl.maximum(1.0 - tl.abs(position), 0.0)


@triton.jit
def _first_pixels(x, batch, channel, batch_stride, channel_stride, channels):
    """The first pixel of each map, 0 if it is not finite: counted from there, a large mean costs
    the variance no digits.
    """
    at = x + batch * batch_stride + channel.to(tl.int64) * channel_stride
    pixel = tl.load(at, mask=channel < channels, other=0.0).to(tl.float32)
    return tl.where(pixel - pixel == 0.0, pixel, 0.0)


@triton.jit
def _row(
    maps, batch, row, column, channel, batch_stride, channel_stride, row_stride, pixel_stride, mask
):
    """Pixels (PATCHES, SIDE, CHANNELS) of one row of each patch as float32, 0 outside `mask`."""
    rows = maps + batch * batch_stride + row.to(tl.int64)[:, None, None] * row_stride
    pixels = rows + column.to(tl.int64)[:, :, None] * pixel_stride
    at = pixels + channel.to(tl.int64)[None, None, :] * channel_stride
    return tl.load(at, mask=mask, other=0.0).to(tl.float32)


@kernel
def collect_kernel(
    gates,
    pulls,
    statistics,
    grad,
    x,
    grad_batch: tl.int64,
    grad_channel: tl.int64,
    grad_row: tl.int64,
    grad_pixel: tl.int64,
    x_batch: tl.int64,
    x_channel: tl.int64,
    x_row: tl.int64,
    x_pixel: tl.int64,
    channels: tl.int32,
    height: tl.int32,
    width: tl.int32,
    side: tl.int32,
    spatial_from: tl.int32,
    blocks: tl.int32,
    channel_blocks: tl.int32,
    patch_stride: tl.int64,
    gate_channel_stride: tl.int64,
    PATCHES: tl.constexpr,
    SIDE: tl.constexpr,
    CHANNELS: tl.constexpr,
    LAST: tl.constexpr,
    BACKWARD: tl.constexpr,
):
    """Gates and statistics of one block of patches; grid (batch * channel_blocks * blocks,).

    Args:
        gates, pulls: float32 (batch, patches, channels) in either order, see the two strides.
        statistics: float32 (4, batch, blocks, channels), contiguous; means from the first pixel.
        grad, x: (batch, channels, height, width) with the strides that follow; `grad` and `pulls`
            are any pointers without BACKWARD.
        side: Side of a patch in pixels, at most SIDE.
        spatial_from: First channel under the spatial gate; the others have gate 0.
    """
    batch, block, patch, channel = _locate(blocks, channel_blocks, PATCHES, CHANNELS)
    if LAST:
        x_channel, grad_channel = 1, 1
    else:
        x_pixel, grad_pixel = 1, 1
    down = (height + side - 1) // side
    across = (width + side - 1) // side
    i, j = patch // across, patch % across
    held = (patch < down * across)[:, None] & (channel < channels)[None, :]
    lane = tl.arange(0, SIDE)
    column = j[:, None] * side + lane[None, :]
    inside = (patch < down * across)[:, None] & (lane < side)[None, :] & (column < width)
    there = inside[:, :, None] & (channel < channels)[None, None, :]

    pivot = _first_pixels(x, batch, channel, x_batch, x_channel, channels)[None, :]
    total = tl.zeros([PATCHES, CHANNELS], tl.float32)
    for k in range(0, side):
        row = i * side + k
        mask = there & (row < height)[:, None, None]
        pixel = _row(x, batch, row, column, channel, x_batch, x_channel, x_row, x_pixel, mask)
        total += tl.sum(tl.where(mask, pixel - pivot[:, None, :], 0.0), 1)
    rows = tl.minimum(height - i * side, side)
    pixels = rows * tl.minimum(width - j * side, side)
    pixels = tl.where(patch < down * across, pixels, 0).to(tl.float32)
    mean = total / tl.maximum(pixels, 1.0)[:, None]
    count = tl.sum(pixels, 0)
    centre = tl.sum(total, 0) / tl.maximum(count, 1.0)
    off = mean - centre[None, :]
    square = tl.where(held, off * off * pixels[:, None], 0.0)
    plain = tl.zeros([PATCHES, CHANNELS], tl.float32)
    for k in range(0, side):
        row = i * side + k
        mask = there & (row < height)[:, None, None]
        pixel = _row(x, batch, row, column, channel, x_batch, x_channel, x_row, x_pixel, mask)
        deep = tl.where(mask, pixel - pivot[:, None, :] - mean[:, None, :], 0.0)
        square += tl.sum(deep * deep, 1)
        plain += tl.sum(pixel, 1)

    spatial = (channel >= spatial_from)[None, :]
    # Not from the pivot: next to a large first pixel the other patches would lose their digits.
    level = plain / tl.maximum(pixels, 1.0)[:, None]
    gate = tl.where(spatial, 1.0 / (1.0 + tl.exp(-level)), 0.0)
    at = patch.to(tl.int64)[:, None] * patch_stride
    at += channel.to(tl.int64)[None, :] * gate_channel_stride
    at += batch * channels * down * across
    tl.store(gates + at, gate, mask=held)

    size = (tl.num_programs(0) // channel_blocks).to(tl.int64) * channels
    place = statistics + (batch * blocks + block) * channels + channel
    exists = channel < channels
    tl.store(place, tl.zeros([CHANNELS], tl.float32) + count, mask=exists)
    tl.store(place + size, centre, mask=exists)
    tl.store(place + 2 * size, tl.sum(square, 0), mask=exists)

    if BACKWARD:
        pulled = tl.zeros([PATCHES, CHANNELS], tl.float32)
        before = side - side // 2
        for next_to in tl.static_range(-1, 2):
            column = (j[:, None] + next_to) * side + lane[None, :]
            share = _hat(next_to * side + lane[None, :], j[:, None], side, across)
            there = (share > 0) & (column >= 0) & (column < width) & (lane < side)[None, :]
            there &= (patch < down * across)[:, None]
            there = there[:, :, None] & (channel < channels)[None, None, :]
            for k in range(0, 2 * side):
                row = i * side - before + k
                mask = there & ((row >= 0) & (row < height))[:, None, None]
                q = _row(x, batch, row, column, channel, x_batch, x_channel, x_row, x_pixel, mask)
                q *= _row(
                    grad,
                    batch,
                    row,
                    column,
                    channel,
                    grad_batch,
                    grad_channel,
                    grad_row,
                    grad_pixel,
                    mask,
                )
                of_row = tl.sum(q * share[:, :, None], 1)
                pulled += of_row * _hat(k - before, i, side, down)[:, None]
        slope = gate * (1.0 - gate) / tl.maximum(pixels, 1.0)[:, None]
        tl.store(pulls + at, tl.where(spatial, pulled * slope, 0.0), mask=held)
        tl.store(place + 3 * size, tl.sum(tl.where(held, pulled, 0.0), 0), mask=exists)


@kernel
def settle_kernel(
    settled,
    statistics,
    batches: tl.int32,
    channels: tl.int32,
    blocks: tl.int32,
    channel_until: tl.int32,
    channel_blocks: tl.int32,
    BLOCKS: tl.constexpr,
    CHANNELS: tl.constexpr,
    BACKWARD: tl.constexpr,
):
    """The channel gate from the blocks of a channel; grid (batches * channel_blocks,).

    Args:
        settled: float32 (3, batches, channels): gate, slope of the variance, mean from the
            first pixel.
        statistics: float32 (4, batches, blocks, channels).
        channel_until: Channels under the channel gate; the others have gate and slope 0.
    """
    program = tl.program_id(0)
    batch = (program // channel_blocks).to(tl.int64)
    channel = program % channel_blocks * CHANNELS + tl.arange(0, CHANNELS)
    exists = channel < channels
    size = batches.to(tl.int64) * blocks * channels
    lane = tl.arange(0, BLOCKS)
    pixels = tl.zeros([CHANNELS], tl.float32)
    total = tl.zeros([CHANNELS], tl.float32)
    for begin in range(0, blocks, BLOCKS):
        block = begin + lane
        mask = (block < blocks)[:, None] & exists[None, :]
        at = statistics + (batch * blocks + block)[:, None] * channels + channel[None, :]
        count = tl.load(at, mask=mask, other=0.0)
        mean = tl.load(at + size, mask=mask, other=0.0)
        pixels += tl.sum(count, 0)
        total += tl.sum(mean * count, 0)
    centre = total / tl.maximum(pixels, 1.0)
    square = tl.zeros([CHANNELS], tl.float32)
    pulled = tl.zeros([CHANNELS], tl.float32)
    for begin in range(0, blocks, BLOCKS):
        block = begin + lane
        mask = (block < blocks)[:, None] & exists[None, :]
        at = statistics + (batch * blocks + block)[:, None] * channels + channel[None, :]
        count = tl.load(at, mask=mask, other=0.0)
        mean = tl.load(at + size, mask=mask, other=0.0)
        off = tl.where(mask, mean - centre[None, :], 0.0)
        # In this order a count of 0 stays 0 below infinity.
        square += tl.sum(tl.load(at + 2 * size, mask=mask, other=0.0) + off * (off * count), 0)
        if BACKWARD:
            pulled += tl.sum(tl.load(at + 3 * size, mask=mask, other=0.0), 0)
    degrees = tl.maximum(pixels - 1.0, 1.0)
    closing = tl.exp(-square / degrees)
    gate = 1.0 / (1.0 + closing)
    acts = channel < channel_until
    to = settled + batch * channels + channel
    step = batches.to(tl.int64) * channels
    tl.store(to, tl.where(acts, gate, 0.0), mask=exists)
    if BACKWARD:
        slope = 2.0 * gate * gate * closing / degrees * pulled
        tl.store(to + step, tl.where(acts, slope, 0.0), mask=exists)
        tl.store(to + 2 * step, tl.where(acts, centre, 0.0), mask=exists)


@triton.jit
def _gate_row(gates, batch_at, i, column_at, across, patch_stride, channel_at, held):
    """Gates (PATCHES, CHANNELS) of the patches in rows `i` and columns `column_at`."""
    at = (i * across + column_at).to(tl.int64)[:, None] * patch_stride + channel_at[None, :]
    return tl.load(gates + batch_at + at, mask=held, other=0.0)


@kernel
def write_kernel(
    out,
    gates,
    pulls,
    settled,
    grad,
    x,
    out_batch: tl.int64,
    out_channel: tl.int64,
    out_row: tl.int64,
    out_pixel: tl.int64,
    grad_batch: tl.int64,
    grad_channel: tl.int64,
    grad_row: tl.int64,
    grad_pixel: tl.int64,
    x_batch: tl.int64,
    x_channel: tl.int64,
    x_row: tl.int64,
    x_pixel: tl.int64,
    batches: tl.int32,
    channels: tl.int32,
    height: tl.int32,
    width: tl.int32,
    side: tl.int32,
    blocks: tl.int32,
    channel_blocks: tl.int32,
    patch_stride: tl.int64,
    gate_channel_stride: tl.int64,
    PATCHES: tl.constexpr,
    SIDE: tl.constexpr,
    CHANNELS: tl.constexpr,
    LAST: tl.constexpr,
    BACKWARD: tl.constexpr,
):
    """Gated maps, or with BACKWARD the gradient by them; grid as of `collect_kernel`.

    Args:
        out: As `x`, with its own strides.
        gates, pulls, grad, x, side: As in `collect_kernel`.
        settled: What `settle_kernel` found.
    """
    batch, _, patch, channel = _locate(blocks, channel_blocks, PATCHES, CHANNELS)
    if LAST:
        x_channel, grad_channel, out_channel = 1, 1, 1
    else:
        x_pixel, grad_pixel, out_pixel = 1, 1, 1
    down = (height + side - 1) // side
    across = (width + side - 1) // side
    i, j = patch // across, patch % across
    exists = channel < channels
    held = (patch < down * across)[:, None] & exists[None, :]
    lane = tl.arange(0, SIDE)
    column = j[:, None] * side + lane[None, :]
    inside = (patch < down * across)[:, None] & (lane < side)[None, :] & (column < width)
    there = inside[:, :, None] & exists[None, None, :]

    here = settled + batch * channels + channel
    step = batches.to(tl.int64) * channels
    open_channel = tl.load(here, mask=exists, other=0.0)
    slope = tl.zeros([CHANNELS], tl.float32)
    centre = tl.zeros([CHANNELS], tl.float32)
    pivot = tl.zeros([CHANNELS], tl.float32)
    pull = tl.zeros([PATCHES, CHANNELS], tl.float32)
    channel_at = channel.to(tl.int64) * gate_channel_stride
    batch_at = batch * channels * down * across
    if BACKWARD:
        slope = tl.load(here + step, mask=exists, other=0.0)
        centre = tl.load(here + 2 * step, mask=exists, other=0.0)
        pivot = _first_pixels(x, batch, channel, x_batch, x_channel, channels)
        pull = _gate_row(pulls, batch_at, i, j, across, patch_stride, channel_at, held)

    # Beyond the border a patch stands for its neighbour.
    above, below = tl.maximum(i - 1, 0), tl.minimum(i + 1, down - 1)
    left, right = tl.maximum(j - 1, 0), tl.minimum(j + 1, across - 1)
    up_l = _gate_row(gates, batch_at, above, left, across, patch_stride, channel_at, held)
    up_m = _gate_row(gates, batch_at, above, j, across, patch_stride, channel_at, held)
    up_r = _gate_row(gates, batch_at, above, right, across, patch_stride, channel_at, held)
    at_l = _gate_row(gates, batch_at, i, left, across, patch_stride, channel_at, held)
    at_m = _gate_row(gates, batch_at, i, j, across, patch_stride, channel_at, held)
    at_r = _gate_row(gates, batch_at, i, right, across, patch_stride, channel_at, held)
    down_l = _gate_row(gates, batch_at, below, left, across, patch_stride, channel_at, held)
    down_m = _gate_row(gates, batch_at, below, j, across, patch_stride, channel_at, held)
    down_r = _gate_row(gates, batch_at, below, right, across, patch_stride, channel_at, held)

    # How far right of the centre of its patch a pixel lies, in patches.
    beside = ((lane + 0.5) / side - 0.5)[None, :, None]
    to_left, to_right = tl.maximum(-beside, 0.0), tl.maximum(beside, 0.0)
    for k in range(0, side):
        row = i * side + k
        mask = there & (row < height)[:, None, None]
        below_centre = (k + 0.5) / side - 0.5
        upwards, downwards = tl.maximum(-below_centre, 0.0), tl.maximum(below_centre, 0.0)
        stays = 1.0 - upwards - downwards
        gate_l = up_l * upwards + at_l * stays + down_l * downwards
        gate_m = up_m * upwards + at_m * stays + down_m * downwards
        gate_r = up_r * upwards + at_r * stays + down_r * downwards
        gate = gate_l[:, None, :] * to_left + gate_r[:, None, :] * to_right
        gate += gate_m[:, None, :] * (1.0 - to_left - to_right) + open_channel[None, None, :]
        value = _row(x, batch, row, column, channel, x_batch, x_channel, x_row, x_pixel, mask)
        if BACKWARD:
            off = value - pivot[None, None, :] - centre[None, None, :]
            result = slope[None, None, :] * off + pull[:, None, :]
            result += gate * _row(
                grad,
                batch,
                row,
                column,
                channel,
                grad_batch,
                grad_channel,
                grad_row,
                grad_pixel,
                mask,
            )
        else:
            result = value * gate
        rows = out + batch * out_batch + row.to(tl.int64)[:, None, None] * out_row
        pixels = rows + column.to(tl.int64)[:, :, None] * out_pixel
        at = pixels + channel.to(tl.int64)[None, None, :] * out_channel
        tl.store(at, result, mask=mask)
