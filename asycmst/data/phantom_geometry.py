"""Geometry of the phantom: outlines, where they lie, how the tissue moves, how a beam samples it.

Lengths are pixels of the rendered image unless a name says ``REFERENCE``; those constants are
pixels of a 64 x 64 image and are multiplied by ``size / 64``. Coordinates are (y, x), pixel
centres at whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

REFERENCE_SIZE = 64
PSF_SIGMA_REFERENCE = (0.7, 1.2)  # axial, lateral; the beam is wider than the pulse is long
RADIUS_REFERENCE = (6.0, 9.0)
RESPIRATION_REFERENCE = (0.3, 0.9)  # amplitude
DRIFT_REFERENCE = 1.0  # largest displacement by drift at either end of the clip
RESPIRATION_PERIOD_S = (3.0, 5.0)
MOTION_LIMIT = 2.0
REACH = 1.45  # no outline goes further from its centre than REACH radii
GAP_REFERENCE = 1.0
GRID_MARGIN_REFERENCE = 8.0  # largest motion (3.8) plus three lateral PSF sigmas (3.6)
IRREGULARITY_LIMIT = 0.2
ASPECT_LOG_LIMIT = 0.36  # exp(.36 / 2) * (1 + .2) = 1.44 < REACH


@dataclass(frozen=True)
class Outline:
    """A closed contour: an ellipse whose radius is modulated by a few Fourier terms.

    In coordinates scaled to the ellipse the contour is
    ``r(theta) = (1 + sum_k a_k cos(k theta + phi_k)) / sqrt(1 + sum_k a_k^2 / 2)``,
    which keeps the area at ``pi radius^2`` whatever the irregularity and the aspect ratio.

    Attributes:
        centre: (y, x).
        radius: Radius of the circle of equal area.
        aspect: Height over width of the ellipse.
        waves: Complex ``a_k exp(i phi_k)`` for k = 2, 3, ...
    """

    centre: tuple[float, float]
    radius: float
    aspect: float
    waves: tuple[complex, ...]

    def relative_radius(self, y: Floats, x: Floats) -> Floats:
        """Distance from the centre over the contour's distance in that direction.

        Args:
            y: Rows, any shape that broadcasts with `x`.
            x: Columns.

        Returns:
            0 at the centre, below 1 inside, 1 on the contour; the broadcast shape.
        """
        stretch = np.float32(np.sqrt(self.aspect))
        v = (y - np.float32(self.centre[0])) / (np.float32(self.radius) * stretch)
        u = (x - np.float32(self.centre[1])) * (stretch / np.float32(self.radius))
        point = u + np.complex64(1j) * v
        length = np.abs(point)
        direction = point / np.maximum(length, np.float32(1e-6))
        total = np.zeros_like(direction)
        for wave in reversed(self.waves):
            total = (total + np.complex64(wave)) * direction
        contour = 1 + (total * direction).real  # the first wave has k = 2
        norm = np.sqrt(1 + 0.5 * sum(abs(wave) ** 2 for wave in self.waves))
        relative: Floats = length * np.float32(norm) / contour
        return relative

    def coverage(self, relative: Floats, edge: float) -> Floats:
        """Soft membership in [0, 1] from a relative radius; the edge is `edge` pixels wide."""
        inside: Floats = np.clip(0.5 + (1 - relative) * np.float32(self.radius / edge), 0, 1)
        return inside


class Lobules(NamedTuple):
    """Centres (2, 2) and radii (2,) of the nodule (first) and the decoy (second)."""

    centres: NDArray[np.float64]
    radii: NDArray[np.float64]


def place_lobules(rng: np.random.Generator, size: int) -> Lobules:
    """Draws two separate lobules inside the image, exchangeable with each other.

    Both come from the same distribution and are accepted or refused together, so position and
    size carry no hint which of the two is the nodule.

    Args:
        rng: Source of randomness.
        size: Image height and width.
    """
    scale = size / REFERENCE_SIZE
    margin = MOTION_LIMIT * (RESPIRATION_REFERENCE[1] + DRIFT_REFERENCE)
    while True:
        radii = rng.uniform(*RADIUS_REFERENCE, size=2)
        reach = REACH * radii[:, None]
        low, high = reach + margin, REFERENCE_SIZE - 1 - reach - margin
        centres = rng.uniform(low, high, size=(2, 2))
        if np.hypot(*(centres[0] - centres[1])) > reach.sum() + GAP_REFERENCE:
            # Pixel k of the reference image covers [k - .5, k + .5].
            return Lobules((centres + 0.5) * scale - 0.5, radii * scale)


def draw_waves(
    rng: np.random.Generator, amplitude: float, first: int, count: int
) -> tuple[complex, ...]:
    """Fourier terms k = 2 .. first + count - 1 with ``sum |a_k| = amplitude``; zero below `first`.

    Args:
        rng: Source of randomness.
        amplitude: Sum of the amplitudes, as a fraction of the radius.
        first: Lowest wave number, at least 2.
        count: How many wave numbers.
    """
    weights = np.abs(rng.standard_normal(count)) + 0.1
    phases = rng.uniform(0, 2 * np.pi, count)
    terms = amplitude * weights / weights.sum() * np.exp(1j * phases)
    return (0j,) * (first - 2) + tuple(complex(term) for term in terms)


def tissue_motion(rng: np.random.Generator, times: Floats, size: int, motion: float) -> Floats:
    """Rigid displacement (T, 2) of the tissue: respiration, mostly along depth, plus drift.

    Args:
        rng: Source of randomness.
        times: Seconds (T,).
        size: Image height and width.
        motion: Multiple of the typical motion; 0 keeps the tissue still.
    """
    amplitude = rng.uniform(*RESPIRATION_REFERENCE)
    period = rng.uniform(*RESPIRATION_PERIOD_S)
    phase = rng.uniform(0, 2 * np.pi)
    angle = rng.normal(0, 0.4)
    drift = rng.uniform(-DRIFT_REFERENCE, DRIFT_REFERENCE, size=2) / np.sqrt(2)
    progress = np.linspace(-1, 1, len(times))
    breath = amplitude * np.sin(2 * np.pi * times / period + phase)
    path = breath[:, None] * np.array([np.cos(angle), np.sin(angle)]) + progress[:, None] * drift
    displacement: Floats = (motion * size / REFERENCE_SIZE * path).astype(np.float32)
    return displacement


def tissue_grid(size: int) -> Floats:
    """Coordinates (P,) of the scatterer grid along one axis: the image plus a margin around it."""
    margin = int(np.ceil(GRID_MARGIN_REFERENCE * size / REFERENCE_SIZE))
    return np.arange(-margin, size + margin, dtype=np.float32)


def beam(positions: Floats, grid: Floats, sigma: float) -> Floats:
    """Gaussian point-spread weights of every position over a grid, rows of unit power.

    Unit power (sum of squares 1) makes the image of unit-variance scatterers unit-variance
    wherever the position falls between grid points.

    Args:
        positions: (..., n) where the beam looks, in the coordinates of `grid`.
        grid: (P,) where the scatterers are.
        sigma: Standard deviation of the spread, pixels.

    Returns:
        (..., n, P).
    """
    distance = (positions[..., None] - grid) * np.float32(1 / sigma)
    weights = np.exp(np.float32(-0.5) * distance * distance)
    unit: Floats = weights / np.sqrt(np.sum(weights * weights, axis=-1, keepdims=True))
    return unit


class Beams(NamedTuple):
    """Axial and lateral weights, each (T, size, P), of a clip whose tissue moves."""

    rows: Floats
    columns: Floats

    @classmethod
    def following(cls, displacement: Floats, size: int, width: float = 1.0) -> Beams:
        """Weights of an image whose tissue is displaced by `displacement` (T, 2).

        `width` is that of the point spread as a multiple of the usual one.
        """
        grid, pixels = tissue_grid(size), np.arange(size, dtype=np.float32)
        axial, lateral = (width * sigma * size / REFERENCE_SIZE for sigma in PSF_SIGMA_REFERENCE)
        return cls(
            beam(pixels - displacement[:, :1], grid, axial),
            beam(pixels - displacement[:, 1:], grid, lateral),
        )

    def power(self, scatterers: Floats) -> Floats:
        """Echo power (T, size, size) of scatterers (2, T or 1, P, P), in-phase and quadrature."""
        echo = self.rows @ scatterers @ self.columns.swapaxes(-1, -2)
        power: Floats = echo[0] * echo[0] + echo[1] * echo[1]
        return power


def smooth_texture(
    rng: np.random.Generator, y: Floats, x: Floats, size: int, correlation: float
) -> Floats:
    """A unit-variance Gaussian random field, sampled at any coordinates.

    The field lives on knots that reach far outside the image, so that moving the coordinates
    moves the same field.

    Args:
        rng: Source of randomness.
        y: Rows (P,).
        x: Columns (Q,).
        size: Image height and width.
        correlation: Correlation length, pixels.

    Returns:
        (P, Q).
    """
    knots = np.arange(-0.75 * size, 1.75 * size, correlation, dtype=np.float32)
    values = rng.standard_normal((len(knots), len(knots)), dtype=np.float32)
    texture: Floats = beam(y, knots, correlation) @ values @ beam(x, knots, correlation).T
    return texture


def moving_mask(outline: Outline, displacement: Floats, size: int) -> NDArray[np.bool_]:
    """Pixels (T, size, size) inside an outline that moves with the tissue."""
    pixels = np.arange(size, dtype=np.float32)
    y = (pixels - displacement[:, :1])[:, :, None]
    x = (pixels - displacement[:, 1:])[:, None, :]
    mask: NDArray[np.bool_] = outline.relative_radius(y, x) < 1
    return mask
