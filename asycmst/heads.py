"""What is read from the streams: frame order, nodule mask, diagnosis (Sections 3.2 and 3.4)."""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asycmst.config import AsyCMSTConfig


class FrameSortingHead(nn.Module):
    """Scores every CEUS frame; later frames learn to score higher (Eq 1-2).

    Args:
        dim: Feature width D.
        hidden: Hidden width; None is D.
    """

    def __init__(self, dim: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = dim if hidden is None else hidden
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, 1))

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
    """Fuses the streams, averages over time and place, maps to two classes (Eq 15).

    Args:
        config: Token width, and the ways to fuse and to decide.
    """

    def __init__(self, config: AsyCMSTConfig) -> None:
        super().__init__()
        self.fuse = _FUSIONS[config.fuse]
        self.fc = _DIAGNOSES[config.diagnosis](config.dim)

    def forward(self, bus: Tensor, ceus: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Final streams to the diagnosis.

        Args:
            bus: X_B^(L), shape (B, T, N, D).
            ceus: X_C^(L), shape (B, T, N, D).
            valid: None or bool (B, T, 1); frames where it is False are left out of the mean.

        Returns:
            Logits (B, 2), class 1 malignant, and the pooled features (B, D) they are made from.
        """
        frames = self.fuse(bus, ceus).mean(2)
        if valid is None:
            features = frames.mean(1)
        else:
            features = frames.masked_fill(~valid, 0).sum(1) / valid.sum(1)
        return self.fc(features), features


class TwoLogits(nn.Linear):
    """A logit for each class; their softmax gives the probabilities (Eq 15-16)."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, 2)


class LogOdds(nn.Linear):
    """One logit z, its sigmoid being the malignant probability.

    Beside a constant 0 it forms the two logits (0, z), whose softmax is that probability and
    whose cross entropy is the binary one.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) to logits (B, 2)."""
        return F.pad(super().forward(features), (1, 0))


def _mean(bus: Tensor, ceus: Tensor) -> Tensor:
    return (bus + ceus) / 2


_FUSIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"sum": torch.add, "mean": _mean}
_DIAGNOSES: dict[str, type[TwoLogits | LogOdds]] = {"softmax": TwoLogits, "sigmoid": LogOdds}


def _doubling(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(before, after, kernel_size=4, stride=2, padding=1, bias=False),
        nn.GroupNorm(1, after),
        nn.ReLU(inplace=True),
    )
