"""What a saliency map learns from without pixel labels."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from asycmst.network_config import check_real
from asycmst_ops import saliency_losses

Lesion = Literal["bright", "dark"]

_EPSILON = 1e-6


@dataclass(frozen=True)
class SaliencyObjective:
    """The self-supervised losses of a saliency map M in [0, 1] against a target I.

    The published target is the grey image itself, so that the map learns to mark what is bright;
    most nodules are darker than the tissue around them. "dark" takes for I how much darker a
    place is than the layer of tissue at its depth: `darkness`.

    The published reconstruction, mean |I M - I|, is 0 where M is 1 everywhere: alone it asks for
    the full mask, whatever I is, and only the other terms keep the map from it. A weight on the
    area prevents it: with M = 1 the area loss is (1 / area - 1)^2, and a map of the expected area
    has the least reconstruction loss where it covers the largest values of I.

    Attributes:
        lesion: "bright", as published, or "dark".
        despeckle: Standard deviation, as a share of the image's height, of a Gaussian that takes
            the speckle from I; 0 leaves it. The network sees the image as it is.
        reconstruction_weight: Of the reconstruction, mean |I M - I|.
        boundary_weight: Of the edges, mean |Sobel(I) - Sobel(M)| in both directions.
        affinity_weight: Of the mean squared difference of normalised neighbour differences.
        affinity_floor: Added to the mean difference that these are divided by. A flat map has
            gradients as large as its inverse.
        area: Expected share of the image that is lesion, in (0, 1).
        area_weight: Of (mean M / area - 1)^2; 0, as published, leaves the size of the map free.

    Raises:
        TypeError: A field has the wrong type.
        ValueError: A value is out of range.
    """

    lesion: Lesion = "bright"
    despeckle: float = 0.0
    reconstruction_weight: float = 0.5
    boundary_weight: float = 0.01
    affinity_weight: float = 1.0
    affinity_floor: float = 1e-8
    area: float = 0.05
    area_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.lesion not in get_args(Lesion):
            words = ", ".join(map(repr, get_args(Lesion)))
            raise ValueError(f"lesion is {self.lesion!r}; choose one of {words}")
        for name in (
            "despeckle",
            "reconstruction_weight",
            "boundary_weight",
            "affinity_weight",
            "affinity_floor",
            "area",
            "area_weight",
        ):
            value = getattr(self, name)
            check_real(name, value)
            if value < 0:
                raise ValueError(f"{name} is {value}; choose a number >= 0")
        if self.affinity_floor == 0:
            raise ValueError("affinity_floor is 0; a flat map would divide by it, choose > 0")
        if not 0 < self.area < 1:
            raise ValueError(f"area is {self.area}; choose a share in (0, 1)")

    def terms(self, images: Tensor, saliency: Tensor) -> "SaliencyTerms":
        """The losses of each image before weighting.

        Args:
            images: Floating, shape (n, 3, H, W), values in [0, 1]; they get no gradient and must
                not require one.
            saliency: M, of the same dtype, shape (n, H, W), values in [0, 1].
        """
        target = smooth(images.mean(1), self.despeckle * images.shape[2])
        if self.lesion == "dark":
            target = darkness(target)
        # Autocast may have smoothed in a narrower dtype.
        losses = saliency_losses(target.to(saliency), saliency, floor=self.affinity_floor)
        reconstruction, boundary, affinity = losses.unbind(1)
        area = (saliency.mean((1, 2)) / self.area - 1).square()
        return SaliencyTerms(reconstruction, boundary, affinity, area)

    def total(self, terms: "SaliencyTerms") -> Tensor:
        """The weighted sum of `terms`, shape (n,)."""
        return (
            self.reconstruction_weight * terms.reconstruction
            + self.boundary_weight * terms.boundary
            + self.affinity_weight * terms.affinity
            + self.area_weight * terms.area
        )


NODULES = SaliencyObjective(
    lesion="dark",
    despeckle=1 / 32,
    reconstruction_weight=10.0,
    boundary_weight=0.3,
    affinity_weight=0.1,
    affinity_floor=1e-2,
    area_weight=0.1,
)
"""Finds one dark nodule of about a twentieth of the image."""


class SaliencyTerms(NamedTuple):
    """The losses of each image before weighting, each of shape (n,)."""

    reconstruction: Tensor
    boundary: Tensor
    affinity: Tensor
    area: Tensor


def darkness(grey: Tensor) -> Tensor:
    """How much darker a place is than its depth, over the most in the image; 0 if it is not.

    Tissue lies in layers across the beam, and gain and attenuation change along it: the mean of
    a row is what its depth looks like.

    Args:
        grey: Shape (n, H, W), rows at equal depth.

    Returns:
        The same shape, in [0, 1].
    """
    below = (grey.mean(2, keepdim=True) - grey).relu()
    return below / (below.amax((1, 2), keepdim=True) + _EPSILON)


def smooth(images: Tensor, sigma: float) -> Tensor:
    """Images (n, H, W) under a Gaussian of `sigma` pixels; beyond the border they go on."""
    if sigma == 0:
        return images
    reach = max(1, round(3 * sigma))
    distance = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-distance.square() / (2 * sigma * sigma))
    kernel = kernel / kernel.sum()
    padded = F.pad(images[:, None], (reach, reach, reach, reach), mode="replicate")
    along = F.conv2d(padded, kernel[None, None, None, :])
    return F.conv2d(along, kernel[None, None, :, None])[:, 0]
