"""The kernels of the saliency losses: what blocks of pixels collect, joining them, writing.

With I the target, M the saliency, g = |down| + |right| the changes of a map, a and b one over the
mean of g_I and of g_M plus the floor, and r = g_I a - g_M b:

    losses = mean |I (M - 1)|, mean |S_x * (I - M)| + mean |S_y * (I - M)|, mean r^2
    d mean r^2 / d g_M = 2 b (c - r) / pixels,  c = mean(r g_M) b

Beyond the border a pixel stands for its neighbour, so changes there are 0.
"""

import triton
import triton.language as tl

from asycmst_ops._triton.axial_tiles import kernel


@triton.jit
def _locate(blocks, height, width, PIXELS: tl.constexpr):
    """Image, block, and place, row and column of the pixels of this program; blocks run fastest.

    Lanes beyond the last pixel stand for it.
    """
    program = tl.program_id(0)
    block = program % blocks
    place = block * PIXELS + tl.arange(0, PIXELS)
    exists = place < height * width
    place = tl.minimum(place, height * width - 1)
    return (program // blocks).to(tl.int64), block, exists, place, place // width, place % width


@triton.jit
def _pixel(image, y, x, row_stride, height, width):
    """A pixel as float32, the nearest one where there is none."""
    y = tl.minimum(tl.maximum(y, 0), height - 1)
    x = tl.minimum(tl.maximum(x, 0), width - 1)
    return tl.load(image + y.to(tl.int64) * row_stride + x).to(tl.float32)


@triton.jit
def _gap(target, saliency, y, x, target_row, saliency_row, height, width):
    return _pixel(target, y, x, target_row, height, width) - _pixel(
        saliency, y, x, saliency_row, height, width
    )


@triton.jit
def _steps(image, y, x, row_stride, height, width):
    """The changes down and to the right."""
    here = _pixel(image, y, x, row_stride, height, width)
    down = _pixel(image, y + 1, x, row_stride, height, width) - here
    return down, _pixel(image, y, x + 1, row_stride, height, width) - here


@triton.jit
def _sign(value):
    return tl.where(value > 0.0, 1.0, tl.where(value < 0.0, -1.0, 0.0))


@kernel
def collect_kernel(
    statistics,
    signs,
    target,
    saliency,
    target_image: tl.int64,
    target_row: tl.int64,
    saliency_image: tl.int64,
    saliency_row: tl.int64,
    height: tl.int32,
    width: tl.int32,
    blocks: tl.int32,
    PIXELS: tl.constexpr,
    BACKWARD: tl.constexpr,
):
    """Sums over one block of pixels of one image; grid (images * blocks,).

    Args:
        statistics: float64 (images, 7, blocks): of g_I, g_M, g_I^2, g_I g_M, g_M^2, and without
            BACKWARD of |I (M - 1)| and of both edges; in float64 a difference of the squares has
            the digits of a small affinity.
        signs: int8 (images, height, width), written with BACKWARD: 3 (sign of S_x + 1) plus the
            sign of S_y + 1.
        target, saliency: (images, height, width) with the strides that follow; pixels of a row
            are neighbours.
    """
    image, block, exists, place, y, x = _locate(blocks, height, width, PIXELS)
    target += image * target_image
    saliency += image * saliency_image
    # Without a mask: the last pixel, for which the lanes beyond it stand, has no changes.
    down, right = _steps(target, y, x, target_row, height, width)
    change_target = (tl.abs(down) + tl.abs(right)).to(tl.float64)
    down, right = _steps(saliency, y, x, saliency_row, height, width)
    change_saliency = (tl.abs(down) + tl.abs(right)).to(tl.float64)

    across = tl.zeros([PIXELS], tl.float32)
    along = tl.zeros([PIXELS], tl.float32)
    for side in tl.static_range(-1, 2):
        weight = 2.0 - side * side
        across += weight * (
            _gap(target, saliency, y + side, x + 1, target_row, saliency_row, height, width)
            - _gap(target, saliency, y + side, x - 1, target_row, saliency_row, height, width)
        )
        along += weight * (
            _gap(target, saliency, y + 1, x + side, target_row, saliency_row, height, width)
            - _gap(target, saliency, y - 1, x + side, target_row, saliency_row, height, width)
        )

    COUNT: tl.constexpr = 5 if BACKWARD else 7
    to = statistics + image * COUNT * blocks + block
    tl.store(to, tl.sum(change_target, 0))
    tl.store(to + blocks, tl.sum(change_saliency, 0))
    tl.store(to + 2 * blocks, tl.sum(change_target * change_target, 0))
    tl.store(to + 3 * blocks, tl.sum(change_target * change_saliency, 0))
    tl.store(to + 4 * blocks, tl.sum(change_saliency * change_saliency, 0))
    if BACKWARD:
        code = 3.0 * _sign(across) + _sign(along) + 4.0
        to = signs + image * height * width + place
        tl.store(to, code.to(tl.int8), mask=exists)
    else:
        missed = _pixel(target, y, x, target_row, height, width)
        missed *= _pixel(saliency, y, x, saliency_row, height, width) - 1.0
        edges = tl.abs(across) + tl.abs(along)
        tl.store(to + 5 * blocks, tl.sum(tl.where(exists, tl.abs(missed), 0.0), 0))
        tl.store(to + 6 * blocks, tl.sum(tl.where(exists, edges, 0.0), 0))


@triton.jit
def _mean(statistics, image, which, count, blocks, pixels, BLOCKS: tl.constexpr):
    """Of one of the statistics over a whole image."""
    found = tl.zeros([BLOCKS], tl.float64)
    first = statistics + (image * count + which) * blocks
    for begin in range(0, blocks, BLOCKS):
        block = begin + tl.arange(0, BLOCKS)
        found += tl.load(first + block, mask=block < blocks, other=0.0)
    return tl.sum(found, 0) / pixels


@kernel
def settle_kernel(
    settled,
    statistics,
    blocks: tl.int32,
    pixels: tl.int32,
    floor: tl.float32,
    BLOCKS: tl.constexpr,
    BACKWARD: tl.constexpr,
):
    """Joins the blocks of an image; grid (images,).

    Args:
        settled: float32 (images, 3): the losses, or with BACKWARD a, b and c.
        statistics: What `collect_kernel` found.
        floor: A normal number.
    """
    image = tl.program_id(0).to(tl.int64)
    COUNT: tl.constexpr = 5 if BACKWARD else 7
    of_target = _mean(statistics, image, 0, COUNT, blocks, pixels, BLOCKS)
    of_saliency = _mean(statistics, image, 1, COUNT, blocks, pixels, BLOCKS)
    a = 1.0 / (of_target + floor)
    b = 1.0 / (of_saliency + floor)
    product = _mean(statistics, image, 3, COUNT, blocks, pixels, BLOCKS)
    square = _mean(statistics, image, 4, COUNT, blocks, pixels, BLOCKS)
    to = settled + 3 * image
    if BACKWARD:
        tl.store(to, a.to(tl.float32))
        tl.store(to + 1, b.to(tl.float32))
        tl.store(to + 2, ((product * a - square * b) * b).to(tl.float32))
    else:
        own = _mean(statistics, image, 2, COUNT, blocks, pixels, BLOCKS)
        affinity = own * a * a - 2.0 * product * a * b + square * b * b
        missed = _mean(statistics, image, 5, COUNT, blocks, pixels, BLOCKS)
        edges = _mean(statistics, image, 6, COUNT, blocks, pixels, BLOCKS)
        tl.store(to, missed.to(tl.float32))
        tl.store(to + 1, edges.to(tl.float32))
        tl.store(to + 2, tl.where(affinity < 0.0, 0.0, affinity).to(tl.float32))


@triton.jit
def _pulls(target, saliency, y, x, target_row, saliency_row, height, width, a, b, c, affinity):
    """The gradients by the saliency's change down and by that to the right."""
    down, right = _steps(target, y, x, target_row, height, width)
    r = (tl.abs(down) + tl.abs(right)) * a
    down, right = _steps(saliency, y, x, saliency_row, height, width)
    r -= (tl.abs(down) + tl.abs(right)) * b
    slope = affinity * (c - r)
    return slope * _sign(down), slope * _sign(right)


@kernel
def write_kernel(
    slope,
    settled,
    signs,
    grad,
    target,
    saliency,
    target_image: tl.int64,
    target_row: tl.int64,
    saliency_image: tl.int64,
    saliency_row: tl.int64,
    height: tl.int32,
    width: tl.int32,
    blocks: tl.int32,
    PIXELS: tl.constexpr,
):
    """The gradient by the saliency; grid as of `collect_kernel`.

    Args:
        slope: (images, height, width), contiguous.
        settled, signs: What the kernels before found.
        grad: float32 (images, 3), the gradients of the losses.
        target, saliency: As in `collect_kernel`.
    """
    image, _, exists, place, y, x = _locate(blocks, height, width, PIXELS)
    target += image * target_image
    saliency += image * saliency_image
    a = tl.load(settled + 3 * image)
    b = tl.load(settled + 3 * image + 1)
    c = tl.load(settled + 3 * image + 2)
    pixels = (height * width).to(tl.float32)
    reconstruction = tl.load(grad + 3 * image) / pixels
    boundary = tl.load(grad + 3 * image + 1) / pixels
    affinity = tl.load(grad + 3 * image + 2) * 2.0 * b / pixels

    value = _pixel(target, y, x, target_row, height, width)
    missed = value * (_pixel(saliency, y, x, saliency_row, height, width) - 1.0)
    found = reconstruction * _sign(missed) * value

    # What Sobel's kernels add up at a pixel beyond the border belongs to the border's own pixel:
    # along a kernel's difference the sign goes on with the opposite sign, across it as it is.
    spread = tl.zeros([PIXELS], tl.float32)
    for dy in tl.static_range(-1, 2):
        for dx in tl.static_range(-1, 2):
            if dy * dy + dx * dx > 0:
                row = tl.minimum(tl.maximum(y + dy, 0), height - 1)
                column = tl.minimum(tl.maximum(x + dx, 0), width - 1)
                at = signs + image * height * width + row.to(tl.int64) * width + column
                code = tl.load(at).to(tl.int32)
                across = (code // 3 - 1).to(tl.float32)
                along = (code % 3 - 1).to(tl.float32)
                spread -= dx * (2 - dy * dy) * tl.where(column == x + dx, across, -across)
                spread -= dy * (2 - dx * dx) * tl.where(row == y + dy, along, -along)
    found -= boundary * spread

    # From beyond the border a change is one of the border's pixel to itself.
    down, right = _pulls(
        target, saliency, y, x, target_row, saliency_row, height, width, a, b, c, affinity
    )
    found -= down + right
    down, _ = _pulls(
        target, saliency, y - 1, x, target_row, saliency_row, height, width, a, b, c, affinity
    )
    found += down
    _, right = _pulls(
        target, saliency, y, x - 1, target_row, saliency_row, height, width, a, b, c, affinity
    )
    found += right
    tl.store(slope + image * height * width + place, found, mask=exists)
