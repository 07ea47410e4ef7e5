"""Random rotation, crop and flips of a clip by a single resampling.

Chained transforms interpolate the picture once each and blur the speckle every time. Here all of
them are one affine map from an output pixel to its place in the input, and every frame of both
modalities and of the mask is read through the same map, once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F

from asycmst.data.samples import Item


class Draw(NamedTuple):
    """What happens to one clip.

    Attributes:
        degrees: rotation of the picture about its centre, counter-clockwise as it is seen.
        height: height of the crop as a share of the frame; the crop fills the frame afterwards.
        width: its width likewise.
        down: centre of the crop below the centre of the rotated frame, in frame heights.
        right: centre of the crop to the right of it, in frame widths.
        horizontal_flip: whether left and right are exchanged at the end.
        vertical_flip: whether top and bottom are.
    """

    degrees: float = 0.0
    height: float = 1.0
    width: float = 1.0
    down: float = 0.0
    right: float = 0.0
    horizontal_flip: bool = False
    vertical_flip: bool = False


@dataclass(frozen=True)
class AffineAugmentation:
    """What may happen to a training clip; the paper names the kinds, the released code the ranges.

    Attributes:
        rotation: largest angle in degrees, either way, in [0, 180].
        area: smallest and largest area of the crop as a share of the frame, in (0, 1].
        aspect: smallest and largest width of the crop over its height, relative to the frame's,
            drawn on a logarithmic scale. A side that would leave the frame ends at it.
        horizontal_flip: probability of a left-right flip.
        vertical_flip: probability of an upside-down flip.

    Raises:
        ValueError: a number is out of range.
    """

    rotation: float = 45.0
    area: tuple[float, float] = (0.8, 1.0)
    aspect: tuple[float, float] = (0.8, 1.25)
    horizontal_flip: float = 0.5
    vertical_flip: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"rotation={self.rotation} is not allowed; use [0, 180] degrees")
        low, high = self.area
        if not 0 < low <= high <= 1:
            raise ValueError(f"area={self.area} is not allowed; use 0 < low <= high <= 1")
        low, high = self.aspect
        if not 0 < low <= high < math.inf:
            raise ValueError(f"aspect={self.aspect} is not allowed; use 0 < low <= high")
        for name in ("horizontal_flip", "vertical_flip"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} is not allowed; use [0, 1]")

    def __call__(self, batch: Item, generators: Sequence[torch.Generator] | None = None) -> Item:
        """A new batch; each clip gets its own draw.

        Args:
            batch: collated items: bus and ceus (B, 3, T, H, W), mask (B, T, H, W).
            generators: one for each clip; None draws from torch's global generator.
        """
        clips = range(len(batch["bus"]))
        return resample(
            batch, [self.draw(None if generators is None else generators[i]) for i in clips]
        )

    def draw(self, generator: torch.Generator | None = None) -> Draw:
        """What happens to one clip."""
        angle, area, aspect, down, right, horizontal, vertical = torch.rand(
            7, generator=generator, dtype=torch.float64
        ).tolist()
        area = self.area[0] + area * (self.area[1] - self.area[0])
        low, high = map(math.log, self.aspect)
        aspect = math.exp(low + aspect * (high - low))
        height, width = min(1.0, math.sqrt(area / aspect)), min(1.0, math.sqrt(area * aspect))
        return Draw(
            degrees=self.rotation * (2 * angle - 1),
            height=height,
            width=width,
            down=(1 - height) * (down - 0.5),
            right=(1 - width) * (right - 0.5),
            horizontal_flip=horizontal < self.horizontal_flip,
            vertical_flip=vertical < self.vertical_flip,
        )


def matrix(draw: Draw, height: int, width: int) -> torch.Tensor:
    """From places of the output to places of the input.

    Both are (x, y) relative to the centre of a frame, in half widths and half heights, as
    `torch.nn.functional.affine_grid` takes them.

    Returns:
        float64 (2, 3).
    """
    angle = math.radians(draw.degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    # Angles are angles in pixels, whatever the frame's shape.
    turn = torch.tensor(
        [[cos, -sin * height / width], [sin * width / height, cos]], dtype=torch.float64
    )
    sides = torch.tensor(
        [
            -draw.width if draw.horizontal_flip else draw.width,
            -draw.height if draw.vertical_flip else draw.height,
        ],
        dtype=torch.float64,
    )
    centre = torch.tensor([2 * draw.right, 2 * draw.down], dtype=torch.float64)
    return torch.cat((turn * sides, (turn @ centre)[:, None]), dim=1)


def resample(batch: Item, draws: Sequence[Draw]) -> Item:
    """Each clip of a batch through the map of its draw.

    Frames are interpolated linearly, masks take the nearest pixel; outside the frame is black
    and no nodule.
    """
    height, width = batch["mask"].shape[-2:]
    bus, ceus, mask = (batch[name].flatten(1, -3) for name in ("bus", "ceus", "mask"))
    maps = torch.stack([matrix(draw, height, width) for draw in draws]).to(bus)
    grid = F.affine_grid(maps, [len(maps), 1, height, width], align_corners=False)

    def read(frames: torch.Tensor, mode: str) -> torch.Tensor:
        return F.grid_sample(frames, grid, mode=mode, align_corners=False)

    moved = read(mask.to(bus.dtype), "nearest").to(mask.dtype)
    return Item(
        bus=read(bus, "bilinear").reshape(batch["bus"].shape),
        ceus=read(ceus, "bilinear").reshape(batch["ceus"].shape),
        mask=moved.reshape(batch["mask"].shape),
        mask_valid=batch["mask_valid"],
        label=batch["label"],
        id=batch["id"],
    )
