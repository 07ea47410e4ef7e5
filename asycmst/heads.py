"""What is read from the streams: frame order, nodule mask, diagnosis (Sections 3.2 and 3.4)."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FrameSortingHead(nn.Module):
    """Scores every CEUS frame; later frames learn to score higher (Eq 1-2).

    Args:
        dim: Feature width D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 1))

    def forward(self, features: Tensor) -> Tensor:
        """F_C (B, T, H, W, D), before positions are added, to scores s (B, T)."""
        places = features.flatten(2, 3)
        pooled = 0.5 * places.mean(2) + 0.5 * places.amax(2)
        scores: Tensor = self.mlp(pooled).squeeze(-1)
        return scores


class MaskDecoder(nn.Module):
    """Upsamples F_B to a nodule mask by transposed convolutions, without encoder skips.

    Each entry of `channels` doubles the resolution. Normalisation is per frame, so a frame's mask
    and gradient depend on that frame alone, in training too.

    Args:
        dim: Feature width D.
        channels: Width after each doubling.
    """

    def __init__(self, dim: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.doublings = nn.Sequential(
            *(_doubling(before, after) for before, after in pairwise((dim, *channels)))
        )
        self.logit = nn.Conv2d(channels[-1], 1, kernel_size=1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """Mask logits in the input's resolution.

        Args:
            features: F_B, shape (B, T, H, W, D).
            size: Rows and columns of the input frames.

        Returns:
            Shape (B, T, rows, columns).
        """
        images = features.flatten(0, 1).permute(0, 3, 1, 2)
        logits: Tensor = self.logit(self.doublings(images))
        if logits.shape[2:] != size:
            logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        return logits.reshape(*features.shape[:2], *size)


class Classifier(nn.Module):
    """Sums the streams, averages over time and place, maps to two classes (Eq 15).

    Args:
        dim: Token width D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc = nn.Linear(dim, 2)

    def forward(self, bus: Tensor, ceus: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Final streams to the diagnosis.

        Args:
            bus: X_B^(L), shape (B, T, N, D).
            ceus: X_C^(L), shape (B, T, N, D).
            valid: None or bool (B, T, 1); frames where it is False are left out of the mean.

        Returns:
            Logits (B, 2), class 1 malignant, and the pooled features (B, D) they are made from.
        """
        frames = (bus + ceus).mean(2)
        if valid is None:
            features = frames.mean(1)
        else:
            features = frames.masked_fill(~valid, 0).sum(1) / valid.sum(1)
        return self.fc(features), features


def _doubling(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(before, after, kernel_size=4, stride=2, padding=1, bias=False),
        nn.GroupNorm(1, after),
        nn.ReLU(),
    )
