"""Late fusion: a network of its own for each clip, features side by side, one classifier."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor, nn

from asycmst.config import Modality
from asycmst.model import AsyCMSTOutput
from asycmst.network_config import NetworkConfig


@dataclass(frozen=True)
class LateFusionConfig(NetworkConfig):
    """What two branches without any exchange have in common.

    Attributes:
        lower: The modality that the lower branch sees (Fig 9).
        upper: The modality that the upper branch sees; may be the same.
    """

    lower: Modality = "bus"
    upper: Modality = "ceus"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("lower", "upper"):
            value, allowed = getattr(self, name), get_args(Modality)
            if value not in allowed:
                raise ValueError(
                    f"{name} is {value!r}; choose one of {', '.join(map(repr, allowed))}"
                )


class LateFusion(nn.Module):
    """Two branches of one kind, their features concatenated (Section 4.2).

    It has neither frame self-sorting nor segmentation.

    Args:
        config: Of the clips, and which branch sees which.
        branch: Makes a network from clips (B, 3, T, H', W') to features (B, `width`).
        width: Features of a branch.
    """

    def __init__(
        self, config: LateFusionConfig, branch: Callable[[], nn.Module], width: int
    ) -> None:
        super().__init__()
        self.config = config
        self.lower = branch()
        self.upper = branch()
        self.fc = nn.Linear(2 * width, 2)

    def forward(self, bus: Tensor, ceus: Tensor) -> AsyCMSTOutput:
        """Diagnoses a batch of clips.

        Args:
            bus: Floating, shape (B, 3, T, H', W') with T <= `config.frames` and
                (H', W') = `config.frame_size`, values in [0, 1].
            ceus: As `bus`.

        Raises:
            ValueError: A shape does not fit.
        """
        clips = {"bus": bus, "ceus": ceus}
        for name, clip in clips.items():
            self._check(name, clip)
        features = torch.cat(
            (self.lower(clips[self.config.lower]), self.upper(clips[self.config.upper])), dim=1
        )
        return AsyCMSTOutput(self.fc(features), None, None, features)

    def _check(self, name: str, clip: Tensor) -> None:
        frames, (height, width) = self.config.frames, self.config.frame_size
        fits = clip.ndim == 5 and clip.shape[1] == 3 and 1 <= clip.shape[2] <= frames
        if not fits or clip.shape[3:] != (height, width):
            raise ValueError(
                f"{name} has shape {tuple(clip.shape)}; give (B, 3, T, {height}, {width}) with T "
                f"of 1 to {frames}, or set frames and image_size"
            )
