"""B-mode side of the phantom: speckle from scatterers that stay with the tissue.

The class reaches the image through one score alone: it sets the irregularity and the aspect
ratio of the nodule's contour and the shadow behind it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asycmst.data.phantom_geometry import (
    ASPECT_LOG_LIMIT,
    IRREGULARITY_LIMIT,
    REFERENCE_SIZE,
    Beams,
    Floats,
    Outline,
    draw_waves,
    smooth_texture,
    tissue_grid,
)

TISSUE_BELOW_WHITE_DB = 20.0
NODULE_DB = (-14.0, -6.0)
ATTENUATION_DB = (2.0, 6.0)  # left over from top to bottom after time-gain compensation
TEXTURE_DB = 1.5
NOISE_DB = -36.0
GAIN_SD_DB = 2.0
FLICKER_SD_DB = 0.4
FASCIA_DB = 9.0
SUBCUTANEOUS_DB = -3.0
SHADOW_DB_AT_ZERO, SHADOW_DB_PER_SCORE = -1.5, -2.5
IRREGULARITY_AT_ZERO, IRREGULARITY_LOG_PER_SCORE = 0.10, 0.4
ASPECT_LOG_AT_ZERO, ASPECT_LOG_PER_SCORE = -0.18, 0.16
EDGE_REFERENCE = 1.5
SHALLOW_FASCIA_REFERENCE = (5.0, 9.0)
DEEP_FASCIA_REFERENCE = (54.0, 60.0)


@dataclass(frozen=True)
class Scanner:
    """How a centre's scanner shows B-mode; the defaults are the phantom's own.

    Attributes:
        gain_db: Added to the level of the whole image.
        dynamic_range_db: Levels between black and white.
        psf: Width of the point spread as a multiple of the usual one, in [0.5, 2]: resolution.
        looks: Independent speckle patterns whose power is averaged, as compounding does.

    Raises:
        ValueError: A value is outside what is allowed.
        TypeError: `looks` is not a whole number.
    """

    gain_db: float = 0.0
    dynamic_range_db: float = 45.0
    psf: float = 1.0
    looks: int = 1

    def __post_init__(self) -> None:
        if not math.isfinite(self.gain_db):
            raise ValueError(f"gain_db is {self.gain_db}; give a finite number of dB")
        if not 0 < self.dynamic_range_db < math.inf:
            raise ValueError(f"dynamic_range_db is {self.dynamic_range_db}; give dB above 0")
        if not 0.5 <= self.psf <= 2:
            raise ValueError(f"psf is {self.psf}; give a multiple between 0.5 and 2")
        if isinstance(self.looks, bool) or not isinstance(self.looks, int):
            raise TypeError(f"looks is {self.looks!r}; give a whole number of at least 1")
        if self.looks < 1:
            raise ValueError(f"looks is {self.looks}; give at least 1")


def nodule_outline(
    rng: np.random.Generator, centre: tuple[float, float], radius: float, score: float
) -> Outline:
    """Contour of a nodule: a higher score is more irregular and taller than wide.

    Args:
        rng: Source of randomness (which waves, not how strong).
        centre: (y, x) in pixels.
        radius: Radius of the circle of equal area, pixels.
        score: The latent B-mode score.
    """
    irregularity = IRREGULARITY_AT_ZERO * np.exp(IRREGULARITY_LOG_PER_SCORE * score)
    aspect = ASPECT_LOG_AT_ZERO + ASPECT_LOG_PER_SCORE * score
    return Outline(
        centre,
        radius,
        float(np.exp(np.clip(aspect, -ASPECT_LOG_LIMIT, ASPECT_LOG_LIMIT))),
        draw_waves(rng, float(min(irregularity, IRREGULARITY_LIMIT)), first=3, count=5),
    )


def _fascia(rng: np.random.Generator, y: Floats, x: Floats, scale: float) -> Floats:
    """Echogenicity in dB (P, P) of two fasciae and the darker fat above the shallow one."""
    total = np.zeros((len(y), len(x)), dtype=np.float32)
    for span in (SHALLOW_FASCIA_REFERENCE, DEEP_FASCIA_REFERENCE):
        depth, slope, phase = rng.uniform(*span), rng.normal(0, 0.03), rng.uniform(0, 2 * np.pi)
        wave = np.sin(x / (REFERENCE_SIZE * scale) * 2 * np.pi + phase)
        line = depth * scale + slope * (x - x.mean()) + scale * wave
        distance = (y[:, None] - line.astype(np.float32)) / np.float32(0.9 * scale)
        total += np.float32(FASCIA_DB) * np.exp(np.float32(-0.5) * distance * distance)
        if span is SHALLOW_FASCIA_REFERENCE:
            total += np.float32(SUBCUTANEOUS_DB) * (distance < 0)
    return total


def _shadow(nodule: Outline, y: Floats, x: Floats, score: float, scale: float) -> Floats:
    """Posterior shadow (negative dB) or enhancement (positive) behind the nodule (P, P)."""
    half_width = nodule.radius / np.sqrt(nodule.aspect)
    bottom = nodule.centre[0] + nodule.radius * np.sqrt(nodule.aspect)
    lateral = np.clip((half_width - np.abs(x - nodule.centre[1])) / (2 * scale) + 0.5, 0, 1)
    depth = np.clip((y - bottom) / (2 * scale) + 0.5, 0, 1)
    strength = SHADOW_DB_AT_ZERO + SHADOW_DB_PER_SCORE * score
    shadow: Floats = (strength * np.outer(depth, lateral)).astype(np.float32)
    return shadow


def render_bmode(
    rng: np.random.Generator,
    nodule: Outline,
    displacement: Floats,
    size: int,
    score: float,
    scanner: Scanner,
) -> NDArray[np.uint8]:
    """Renders the B-mode clip.

    Complex Gaussian scatterers times ``10^(echogenicity / 20)``, seen through the point spread,
    envelope, log compression to the scanner's dynamic range.

    Args:
        rng: Source of randomness.
        nodule: The nodule's contour. No other lobule changes the B-mode image.
        displacement: (T, 2) motion of the tissue, pixels.
        size: Image height and width.
        score: The latent B-mode score, here for the posterior shadow.
        scanner: How the image is formed. Another one shows the same tissue.

    Returns:
        uint8 (T, size, size).
    """
    scale = size / REFERENCE_SIZE
    grid = tissue_grid(size)
    inside = nodule.coverage(
        nodule.relative_radius(grid[:, None], grid), edge=EDGE_REFERENCE * scale
    )
    texture = np.float32(TEXTURE_DB) * smooth_texture(rng, grid, grid, size, 4 * scale)
    surround = _fascia(rng, grid, grid, scale) + _shadow(nodule, grid, grid, score, scale)
    depth_of_nodule = np.float32(rng.uniform(*NODULE_DB))
    echogenicity = texture + (1 - inside) * surround + inside * depth_of_nodule

    amplitude = np.power(np.float32(10), echogenicity / np.float32(20))
    beams = Beams.following(displacement, size, scanner.psf)

    def speckle() -> Floats:
        scatterers = rng.standard_normal((2, 1, len(grid), len(grid)), dtype=np.float32)
        scatterers *= np.sqrt(np.float32(0.5)) * amplitude
        return beams.power(scatterers)

    power = speckle()
    attenuation = np.linspace(0.5, -0.5, size, dtype=np.float32) * rng.uniform(*ATTENUATION_DB)
    noise = np.float32(10 ** (NOISE_DB / 10)) * rng.standard_exponential(
        power.shape, dtype=np.float32
    )
    gain = rng.normal(0, GAIN_SD_DB) + rng.normal(0, FLICKER_SD_DB, len(displacement))
    # Drawn last, so that more looks leave the first one and all else as they are.
    for _ in range(scanner.looks - 1):
        power += speckle()
    power /= np.float32(scanner.looks)
    power *= np.power(10, attenuation / 10).astype(np.float32)[:, None]
    power += noise
    gain += scanner.gain_db
    level = 10 * np.log10(power) + gain.astype(np.float32)[:, None, None]
    grey = 1 + (level - np.float32(TISSUE_BELOW_WHITE_DB)) / np.float32(scanner.dynamic_range_db)
    clip: NDArray[np.uint8] = (np.clip(grey, 0, 1) * np.float32(255) + np.float32(0.5)).astype(
        np.uint8
    )
    return clip
