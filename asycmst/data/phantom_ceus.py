"""Contrast-enhanced side of the phantom: time-intensity curves seen through bubble speckle.

The class of a lobule reaches the image through one latent ``q`` per lobule, which sets its time
to peak, wash-out, peak, rim and heterogeneity. Nodule and decoy are rendered alike, from the
same distributions, so a contrast clip alone does not tell which of the two is the nodule.

The numbers behind the presets:

- Breast: malignant lesions peak earlier and lose 85 % against 66 % of the signal by 50 s, peak
  intensity does not differ (Acta Radiologica 2012;53:382, doi 10.1258/ar.2012.110562).
- Thyroid: carcinomas enhance slowly, heterogeneously and, in 71 % of the cases, less than the
  gland; benign nodules enhance fast and as much or more (J Third Mil Med Univ 2019). These
  reports give no times, so the breast times are used with the classes exchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asycmst.data.phantom_geometry import (
    REFERENCE_SIZE,
    Beams,
    Floats,
    Outline,
    draw_waves,
    smooth_texture,
    tissue_grid,
)

ARRIVAL_S = 8.0
CLASS_MEAN_Q = 1.25  # the presets state values at q = -1.25 (benign) and q = +1.25 (malignant)
DYNAMIC_RANGE_DB = 32.0
WHITE_DB = 8.0  # of the display, above the mean peak of a lobule in the breast
LOBULE_GAIN_SD_DB = 1.5
NOISE_DB = -28.0
LEAKAGE_DB = -24.0
GAIN_SD_DB = 2.0
FLICKER_SD_DB = 0.4
EDGE_REFERENCE = 2.0
FOOTPRINT_IRREGULARITY = 0.06
PIXEL_DELAY_SD_S = 0.5
PIXEL_TIME_LOG_SD = 0.05
TISSUE_TEXTURE_DB = 1.5


class Pair(NamedTuple):
    """A value at the mean of the benign and of the malignant class."""

    benign: float
    malignant: float

    def linear(self, q: float) -> float:
        """The value at `q`, on a straight line through the two."""
        middle, half = (self.malignant + self.benign) / 2, (self.malignant - self.benign) / 2
        return middle + half / CLASS_MEAN_Q * q

    def geometric(self, q: float) -> float:
        """The value at `q`, on a straight line through the two logarithms."""
        return float(np.exp(Pair(np.log(self.benign), np.log(self.malignant)).linear(q)))


@dataclass(frozen=True)
class Kinetics:
    """How lobules of the two classes enhance in one organ.

    Attributes:
        time_to_peak_s: Seconds from arrival to peak.
        left_at_50_s: Fraction of the peak left 50 s after the clip starts, arrival at 8 s.
        peak_db: Peak of the curve.
        rim_db: Rim over core.
        texture_db: Standard deviation of the peak over the lobule.
        tissue_peak_db: Peak of the surrounding tissue, whatever the class.
        tissue_time_to_peak_s: Its time to peak.
    """

    time_to_peak_s: Pair
    left_at_50_s: Pair
    peak_db: Pair
    rim_db: Pair
    texture_db: Pair
    tissue_peak_db: float
    tissue_time_to_peak_s: float

    def shape(self) -> Pair:
        """Exponents of the gamma variates that pass through `left_at_50_s`."""
        benign, malignant = (
            float(np.log(left) / (np.log(u) + 1 - u))
            for left, u in zip(
                self.left_at_50_s,
                ((50 - ARRIVAL_S) / peak for peak in self.time_to_peak_s),
                strict=True,
            )
        )
        return Pair(benign, malignant)


_THYROID_PEAK_DB = -7.0

KINETICS: Final = {
    "breast": Kinetics(
        time_to_peak_s=Pair(14.5, 8.4),
        left_at_50_s=Pair(0.34, 0.15),
        peak_db=Pair(0.0, 0.0),
        rim_db=Pair(0.0, 4.0),
        texture_db=Pair(1.0, 2.5),
        tissue_peak_db=-13.0,
        tissue_time_to_peak_s=16.0,
    ),
    "thyroid": Kinetics(
        time_to_peak_s=Pair(8.4, 14.5),
        left_at_50_s=Pair(0.15, 0.34),
        # Peak over gland = -2.5 (q - 0.697) dB: below zero for 71 % of q ~ N(1.25, 1).
        peak_db=Pair(_THYROID_PEAK_DB + 4.9, _THYROID_PEAK_DB - 1.4),
        rim_db=Pair(0.0, 0.0),
        texture_db=Pair(1.0, 2.5),
        tissue_peak_db=_THYROID_PEAK_DB,
        tissue_time_to_peak_s=11.0,
    ),
}


def gamma_variate(since_arrival: Floats, time_to_peak: Floats, shape: Floats) -> Floats:
    """``(u exp(1 - u))^shape`` with ``u = since_arrival / time_to_peak``; the peak is 1.

    Before the arrival it is 0.

    Args:
        since_arrival: Seconds since the bolus arrived, any shape that broadcasts.
        time_to_peak: Seconds, positive.
        shape: Exponent, positive; a larger one is a narrower curve.
    """
    u = np.maximum(since_arrival / time_to_peak, np.float32(1e-6))
    curve: Floats = np.exp(shape * (np.log(u) + 1 - u))
    return curve


def footprint(rng: np.random.Generator, centre: tuple[float, float], radius: float) -> Outline:
    """Outline of the enhancing area of a lobule.

    It is drawn independently of the B-mode contour, whose shape carries the B-mode score; else
    the contrast clip would show that score as well and tell the nodule from the decoy.
    """
    return Outline(centre, radius, 1.0, draw_waves(rng, FOOTPRINT_IRREGULARITY, first=2, count=4))


def amber(grey: Floats) -> NDArray[np.uint8]:
    """Colours grey levels in [0, 1] as contrast displays do; uint8 with a last axis of 3."""
    level = np.linspace(0, 1, 256)
    table = np.stack([np.minimum(1, 1.2 * level), 0.82 * level**1.25, 0.35 * level**2.2], axis=-1)
    colours = (255 * table + 0.5).astype(np.uint8)
    index = (np.clip(grey, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    clip: NDArray[np.uint8] = colours[index]
    return clip


def render_ceus(
    rng: np.random.Generator,
    kinetics: Kinetics,
    lobules: list[tuple[Outline, float]],
    displacement: Floats,
    times: Floats,
    size: int,
    arrival: float,
    offset: tuple[float, float],
) -> NDArray[np.uint8]:
    """Renders the contrast clip.

    Every pixel has a gamma-variate curve; the bubbles are complex Gaussian and drawn anew for
    each frame. Residual tissue signal, the same everywhere, leaks through the contrast mode.

    Args:
        rng: Source of randomness.
        kinetics: The organ's preset.
        lobules: Enhancing outlines in B-mode coordinates, each with its q. Two draws are made
            whatever their number, so that leaving one out leaves the rest as it is.
        displacement: (T, 2) motion of the tissue, pixels.
        times: (T,) seconds.
        size: Image height and width.
        arrival: Seconds at which the bolus arrives.
        offset: (y, x) by which this clip is displaced against the B-mode clip, pixels.

    Returns:
        uint8 (T, size, size, 3).
    """
    scale = size / REFERENCE_SIZE
    grid = tissue_grid(size)
    y, x = grid - np.float32(offset[0]), grid - np.float32(offset[1])
    texture, delay, tempo = (
        smooth_texture(rng, y, x, size, correlation * scale) for correlation in (2.0, 4.0, 4.0)
    )
    gains = rng.normal(0, LOBULE_GAIN_SD_DB, 2)

    peak_db = np.float32(kinetics.tissue_peak_db) + np.float32(TISSUE_TEXTURE_DB) * texture
    log_time = np.full_like(peak_db, np.log(kinetics.tissue_time_to_peak_s))
    shape = np.ones_like(peak_db)
    exponents = kinetics.shape()
    for (outline, q), gain in zip(lobules, gains, strict=False):
        relative = outline.relative_radius(y[:, None], x)
        inside = outline.coverage(relative, edge=EDGE_REFERENCE * scale)
        bump = np.exp(-0.5 * ((relative - np.float32(0.88)) / np.float32(0.14)) ** 2)
        rim = np.float32(max(0.0, kinetics.rim_db.linear(q))) * (bump - np.float32(0.4))
        peak = np.float32(kinetics.peak_db.linear(q) + gain) + rim
        peak = peak + np.float32(kinetics.texture_db.geometric(q)) * texture
        for field, value in (
            (peak_db, peak),
            (log_time, np.float32(np.log(kinetics.time_to_peak_s.geometric(q)))),
            (shape, np.float32(exponents.geometric(q))),
        ):
            field += inside * (value - field)

    since = times[:, None, None] - np.float32(arrival) - np.float32(PIXEL_DELAY_SD_S) * delay
    time_to_peak = np.exp(log_time + np.float32(PIXEL_TIME_LOG_SD) * tempo)
    curve = gamma_variate(since, time_to_peak, shape) * np.power(
        np.float32(10), peak_db / np.float32(10)
    )
    beams = Beams.following(displacement, size)
    half = np.sqrt(np.float32(0.5))
    bubbles = rng.standard_normal((2, *curve.shape), dtype=np.float32)
    bubbles *= half * np.sqrt(curve)
    fixed = rng.standard_normal((2, 1, len(grid), len(grid)), dtype=np.float32)
    bubbles += half * np.float32(10 ** (LEAKAGE_DB / 20)) * fixed
    power = beams.power(bubbles)
    power += np.float32(10 ** (NOISE_DB / 10)) * rng.standard_exponential(
        power.shape, dtype=np.float32
    )
    display_gain = rng.normal(0, GAIN_SD_DB) + rng.normal(0, FLICKER_SD_DB, len(times))
    level = 10 * np.log10(power) + display_gain.astype(np.float32)[:, None, None]
    return amber(1 + (level - np.float32(WHITE_DB)) / np.float32(DYNAMIC_RANGE_DB))
