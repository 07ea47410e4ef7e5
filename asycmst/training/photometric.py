"""Random brightness and contrast of a clip, the same for all its frames.

Each modality has its own draw, since each has its own gain on the scanner; masks are left alone.
A change of all frames alike keeps the order in which they brighten, which frame self-sorting
learns from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from asycmst.data.samples import Item


@dataclass(frozen=True)
class PhotometricAugmentation:
    """What may happen to the values of a training clip.

    Attributes:
        brightness: b is drawn from [-brightness, brightness] and the values times 1 + b.
        contrast: c is drawn from [-contrast, contrast] and the distance of the values from the
            clip's mean times 1 + c. Values stay in [0, 1].

    Raises:
        ValueError: a number is outside [0, 1].
    """

    brightness: float = 0.2
    contrast: float = 0.2

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} is not allowed; use [0, 1]")

    def __call__(self, batch: Item, generators: Sequence[torch.Generator] | None = None) -> Item:
        """A new batch; each clip of each modality gets its own draw.

        Args:
            batch: collated items: bus and ceus (B, 3, T, H, W) in [0, 1].
            generators: one for each clip; None draws from torch's global generator.
        """
        clips = range(len(batch["bus"]))
        draws = torch.stack(
            [torch.rand(4, generator=None if generators is None else generators[i]) for i in clips]
        )
        changes = 2 * draws - 1
        bus = adjust(batch["bus"], changes[:, 0] * self.brightness, changes[:, 1] * self.contrast)
        ceus = adjust(
            batch["ceus"], changes[:, 2] * self.brightness, changes[:, 3] * self.contrast
        )
        return Item(
            bus=bus,
            ceus=ceus,
            mask=batch["mask"],
            mask_valid=batch["mask_valid"],
            label=batch["label"],
            id=batch["id"],
        )


def adjust(clips: torch.Tensor, brightness: torch.Tensor, contrast: torch.Tensor) -> torch.Tensor:
    """Clips with values times 1 + brightness, then spread about their mean by 1 + contrast.

    Args:
        clips: values in [0, 1], (B, ...).
        brightness: one for each clip, (B,).
        contrast: one for each clip, (B,).
    """
    shape = (-1, *[1] * (clips.ndim - 1))
    gain, spread = ((1 + x.to(clips)).reshape(shape) for x in (brightness, contrast))
    brighter = clips * gain
    mean = brighter.mean(dim=tuple(range(1, clips.ndim)), keepdim=True)
    # mean + spread * (x - mean), in one pass over the clip.
    return torch.addcmul(mean * (1 - spread), brighter, spread).clamp_(0, 1)
