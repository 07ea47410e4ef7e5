"""A seeded synthetic patient: a B-mode clip and a contrast clip of the same moving tissue.

The B-mode image shows where the nodule is and little of its class. The contrast image shows
the class of each enhancing lobule, and there are two: the nodule and a decoy that B-mode does
not show and whose class is its own. Reading one stream by the other therefore pays, adding up
the verdicts of the two streams pays less; `asycmst.data.ideal_observer` puts numbers on it.

Nothing here is clinical evidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asycmst.data.phantom_bmode import Scanner, nodule_outline, render_bmode
from asycmst.data.phantom_ceus import ARRIVAL_S, KINETICS, footprint, render_ceus
from asycmst.data.phantom_geometry import (
    MOTION_LIMIT,
    moving_mask,
    place_lobules,
    tissue_motion,
)

# One random stream per part, so that a change in one part leaves the others as they are.
_LATENTS, _GEOMETRY, _BMODE, _CEUS, _OFFSET = range(5)


@dataclass(frozen=True)
class PhantomConfig:
    """What kind of patients the phantom makes.

    Attributes:
        frames: Frames per clip, at least 2.
        size: Image height and width in pixels, at least 32; all lengths scale with it.
        domain: Organ, which decides how the classes enhance. The breast and the thyroid have
            opposite timing.
        decoy: Whether a second lobule enhances.
        bus_d: Distance between the classes of the B-mode score, in standard deviations.
        tic_d: The same for the kinetic latents q of nodule and decoy.
        decoy_corr: Correlation between the class of the decoy and that of the nodule; 0 is
            independent, negative makes them differ more often.
        arrival_jitter_s: Standard deviation of the arrival of the bolus, around 8 s.
        motion: Tissue motion as a multiple of the typical one, in [0, 2]; 0 keeps it still.
        misregistration: Standard deviation, per axis and in pixels of the image, of a rigid
            offset between the contrast and the B-mode clip; at most size / 8.
        prevalence: Probability of a malignant nodule, and of a malignant decoy.
        duration_s: Time of the last frame; the first is at 0.
        scanner: How the B-mode image is formed, which differs between centres.

    Raises:
        ValueError: A value is outside what is allowed.
    """

    frames: int = 8
    size: int = 64
    domain: Literal["breast", "thyroid"] = "breast"
    decoy: bool = True
    bus_d: float = 0.8
    tic_d: float = 2.5
    decoy_corr: float = 0.0
    arrival_jitter_s: float = 3.0
    motion: float = 1.0
    misregistration: float = 0.0
    prevalence: float = 0.5
    duration_s: float = 48.0
    scanner: Scanner = field(default_factory=Scanner)

    def __post_init__(self) -> None:
        _check_whole("frames", self.frames, 2, "one frame shows no wash-in")
        _check_whole("size", self.size, 32, "smaller images cannot hold two lobules")
        if self.domain not in KINETICS:
            raise ValueError(
                f"domain is {self.domain!r}; allowed are {', '.join(map(repr, KINETICS))}"
            )
        _check_range("bus_d", self.bus_d, 0, math.inf)
        _check_range("tic_d", self.tic_d, 0, math.inf)
        _check_range("decoy_corr", self.decoy_corr, -1, 1)
        _check_range("arrival_jitter_s", self.arrival_jitter_s, 0, math.inf)
        _check_range("motion", self.motion, 0, MOTION_LIMIT)
        _check_range("misregistration", self.misregistration, 0, self.size / 8)
        _check_range("prevalence", self.prevalence, 0, 1)
        if not 0 < self.duration_s < math.inf:
            raise ValueError(f"duration_s is {self.duration_s}; give a positive number of seconds")
        for malignant in (False, True):
            if not 0 <= self.decoy_probability(malignant) <= 1:
                raise ValueError(
                    f"decoy_corr {self.decoy_corr} cannot be had with prevalence "
                    f"{self.prevalence}; move the prevalence towards 0.5 or decoy_corr towards 0"
                )

    @classmethod
    def demo(cls) -> PhantomConfig:
        """The sizes of the demonstration: 8 frames of 64 x 64, breast, with decoy."""
        return cls()

    def decoy_probability(self, malignant: bool) -> float:
        """Probability that the decoy is malignant, given the class of the nodule.

        Both classes have the marginal `prevalence` and the correlation `decoy_corr`.
        """
        return self.prevalence + self.decoy_corr * (float(malignant) - self.prevalence)


class PhantomSample(NamedTuple):
    """One synthetic patient.

    Attributes:
        bus: B-mode clip, uint8 (T, H, W).
        ceus: Contrast clip, uint8 RGB (T, H, W, 3).
        mask: The nodule in B-mode coordinates, bool (T, H, W).
        decoy_mask: The decoy in B-mode coordinates, bool (T, H, W); empty without a decoy.
        ceus_mask: The nodule as the contrast clip has it, bool (T, H, W): displaced by the
            misregistration.
        label: 1 malignant, 0 benign: the class of the nodule.
        times: Seconds of the frames, float32 (T,).
        latents: What the images were made from: ``bus_score``, ``nodule_q``, ``arrival_s``,
            ``nodule_y``, ``nodule_x``, ``nodule_radius``, ``offset_y``, ``offset_x`` (of the
            contrast clip, pixels) and, with a decoy, ``decoy_q``, ``decoy_label``, ``decoy_y``,
            ``decoy_x``, ``decoy_radius``.
    """

    bus: NDArray[np.uint8]
    ceus: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    decoy_mask: NDArray[np.bool_]
    ceus_mask: NDArray[np.bool_]
    label: int
    times: NDArray[np.float32]
    latents: dict[str, float]


def make_phantom(config: PhantomConfig, seed: int, index: int) -> PhantomSample:
    """Makes one synthetic patient, which depends on the three arguments alone.

    A field of `config` changes only what it describes: the same seed and index with another
    misregistration, motion or decoy switch show the same patient otherwise.

    Args:
        config: What kind of patient.
        seed: Seed of a whole data set, at least 0.
        index: Number of the patient in it, at least 0.

    Raises:
        ValueError: `seed` or `index` is negative.
        TypeError: `seed` or `index` is not a whole number.
    """
    _check_whole("seed", seed, 0, "seeds count from 0")
    _check_whole("index", index, 0, "patients count from 0")
    latents_rng, geometry_rng, bmode_rng, ceus_rng, offset_rng = (
        np.random.Generator(
            np.random.PCG64(np.random.SeedSequence([seed, index], spawn_key=(stream,)))
        )
        for stream in (_LATENTS, _GEOMETRY, _BMODE, _CEUS, _OFFSET)
    )

    label_draw, decoy_draw = latents_rng.random(2)
    malignant = bool(label_draw < config.prevalence)
    decoy_malignant = bool(decoy_draw < config.decoy_probability(malignant))
    score_noise, nodule_noise, decoy_noise, arrival_noise = latents_rng.standard_normal(4)
    bus_score = config.bus_d * (malignant - 0.5) + score_noise
    nodule_q = config.tic_d * (malignant - 0.5) + nodule_noise
    decoy_q = config.tic_d * (decoy_malignant - 0.5) + decoy_noise
    arrival = ARRIVAL_S + config.arrival_jitter_s * arrival_noise
    offset = config.misregistration * offset_rng.standard_normal(2)

    times = np.linspace(0, config.duration_s, config.frames, dtype=np.float32)
    places = place_lobules(geometry_rng, config.size)
    (nodule_at, decoy_at), (nodule_radius, decoy_radius) = places.centres, places.radii
    nodule_centre = (float(nodule_at[0]), float(nodule_at[1]))
    decoy_centre = (float(decoy_at[0]), float(decoy_at[1]))
    displacement = tissue_motion(geometry_rng, times, config.size, config.motion)
    nodule = nodule_outline(geometry_rng, nodule_centre, float(nodule_radius), bus_score)
    enhancing = [
        (footprint(geometry_rng, nodule_centre, float(nodule_radius)), nodule_q),
        (footprint(geometry_rng, decoy_centre, float(decoy_radius)), decoy_q),
    ]
    latents = {
        "bus_score": float(bus_score),
        "nodule_q": float(nodule_q),
        "arrival_s": float(arrival),
        "nodule_y": nodule_centre[0],
        "nodule_x": nodule_centre[1],
        "nodule_radius": float(nodule_radius),
        "offset_y": float(offset[0]),
        "offset_x": float(offset[1]),
    }
    mask = ceus_mask = moving_mask(nodule, displacement, config.size)
    if offset.any():
        shifted = displacement + offset.astype(displacement.dtype)
        ceus_mask = moving_mask(nodule, shifted, config.size)
    if config.decoy:
        decoy_mask = moving_mask(enhancing[1][0], displacement, config.size)
        latents |= {
            "decoy_q": float(decoy_q),
            "decoy_label": float(decoy_malignant),
            "decoy_y": decoy_centre[0],
            "decoy_x": decoy_centre[1],
            "decoy_radius": float(decoy_radius),
        }
    else:
        decoy_mask = np.zeros_like(mask)
    bus = render_bmode(bmode_rng, nodule, displacement, config.size, bus_score, config.scanner)
    ceus = render_ceus(
        ceus_rng,
        KINETICS[config.domain],
        enhancing if config.decoy else enhancing[:1],
        displacement,
        times,
        config.size,
        arrival,
        (float(offset[0]), float(offset[1])),
    )
    return PhantomSample(bus, ceus, mask, decoy_mask, ceus_mask, int(malignant), times, latents)


def _check_whole(name: str, value: int, low: int, reason: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} is {value!r}; give a whole number of at least {low}")
    if value < low:
        raise ValueError(f"{name} is {value}; give at least {low}, as {reason}")


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high or value == math.inf:
        allowed = f"at least {low}" if high == math.inf else f"between {low} and {high}"
        raise ValueError(f"{name} is {value}; give a finite number {allowed}")
