"""Random flips and shifts, drawn once per clip and applied alike to both modalities and the mask.

Only whole pixels move, so speckle keeps its grain, which interpolation would smooth in training
and not in testing. Time is never touched: frame self-sorting needs the order of frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from asycmst.data.samples import Item


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training clip.

    Attributes:
        horizontal_flip: probability of a left-right flip.
        vertical_flip: probability of an upside-down flip.
        shift: largest shift along each axis as a share of the frame, in [0, 0.5). The frame is
            continued by reflection and cropped back to its size.

    Raises:
        ValueError: a number is out of range.
    """

    horizontal_flip: float = 0.5
    vertical_flip: float = 0.5
    shift: float = 0.125

    def __post_init__(self) -> None:
        for name in ("horizontal_flip", "vertical_flip"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} is not allowed; use [0, 1]")
        if not 0 <= self.shift < 0.5:
            raise ValueError(f"shift={self.shift} is not allowed; use [0, 0.5)")

    def __call__(self, batch: Item, generators: Sequence[torch.Generator] | None = None) -> Item:
        """A new batch; each clip gets its own draw.

        Args:
            batch: collated items: bus and ceus (B, 3, T, H, W), mask (B, T, H, W).
            generators: one for each clip; None draws from torch's global generator.
        """
        clips = [
            self._augment(bus, ceus, mask, None if generators is None else generators[index])
            for index, (bus, ceus, mask) in enumerate(
                zip(batch["bus"], batch["ceus"], batch["mask"], strict=True)
            )
        ]
        bus, ceus, mask = (torch.stack(parts) for parts in zip(*clips, strict=True))
        return Item(
            bus=bus,
            ceus=ceus,
            mask=mask,
            mask_valid=batch["mask_valid"],
            label=batch["label"],
            id=batch["id"],
        )

    def _augment(
        self,
        bus: torch.Tensor,
        ceus: torch.Tensor,
        mask: torch.Tensor,
        generator: torch.Generator | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        height, width = mask.shape[-2:]
        horizontal, vertical = torch.rand(2, generator=generator).tolist()
        down = _draw_shift(int(self.shift * height), generator)
        right = _draw_shift(int(self.shift * width), generator)
        axes = [-1] * (horizontal < self.horizontal_flip) + [-2] * (vertical < self.vertical_flip)

        def move(frames: torch.Tensor) -> torch.Tensor:
            flipped = frames.flip(axes).reshape(1, -1, height, width)
            margins = (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0))
            padded = F.pad(flipped, margins, mode="reflect")
            top, left = max(-down, 0), max(-right, 0)
            moved = padded[..., top : top + height, left : left + width]
            return moved.reshape(frames.shape)

        return move(bus), move(ceus), move(mask.to(bus.dtype)).to(mask.dtype)


def _draw_shift(limit: int, generator: torch.Generator | None) -> int:
    return int(torch.randint(-limit, limit + 1, (), generator=generator))
