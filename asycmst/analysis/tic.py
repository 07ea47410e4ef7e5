"""Time-intensity curves of a contrast clip: how the brightness of a region rises and falls.

Brightness is that of the display, which scanners compress logarithmically: it grows with the
amount of contrast agent, but not in proportion. Times are right, ratios of intensity are not.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Array = NDArray[Any]

FLAT = 2 / 255  # a rise of less than two grey levels is no enhancement
_LOW, _HIGH = 0.1, 0.9  # shares of the rise between which the slope of the wash-in is taken
_UNEVEN = 2.0  # ratio of the two intervals at the peak up to which a parabola is drawn
_GAP, _WIDTH = 0.15, 0.6  # of the ring, as shares of the radius of a disc as large as the lesion


@dataclass(frozen=True)
class CurveParameters:
    """Figures of one curve; None where the clip does not show them.

    Attributes:
        baseline: the lowest brightness up to the peak, in [0, 1].
        peak_intensity: the highest brightness, in [0, 1].
        peak_time: when the peak is, on the clip's own clock.
        arrival_time: when the curve last leaves baseline + 10 % of the rise before the peak.
        time_to_peak: from the arrival to the peak.
        wash_in_slope: brightness per unit of time between 10 % and 90 % of the rise.
        half_washout: from the peak until half of the rise is lost again.
        peak_at: "inside", or the "start" or "end" of the clip, where the true peak may lie
            beyond it; "none" for a curve without enhancement.
    """

    baseline: float | None = None
    peak_intensity: float | None = None
    peak_time: float | None = None
    arrival_time: float | None = None
    time_to_peak: float | None = None
    wash_in_slope: float | None = None
    half_washout: float | None = None
    peak_at: str = "none"


def mean_intensity(clip: Array, region: Array) -> Floats:
    """Mean brightness of a region in every frame.

    Args:
        clip: uint8, shape (T, H, W) or (T, H, W, 3); colour counts as the mean of its channels.
        region: bool, shape (T, H, W).

    Returns:
        Shape (T,), in [0, 1]; NaN where the region is empty.
    """
    grey = clip.astype(np.float64) / 255
    grey = grey.mean(axis=-1) if grey.ndim == 4 else grey
    size = region.sum(axis=(1, 2))
    sums = (grey * region).sum(axis=(1, 2))
    means: Floats = np.divide(sums, size, out=np.full(len(sums), math.nan), where=size > 0)
    return means


def surrounding_ring(region: Array) -> NDArray[np.bool_]:
    """The tissue around a region: a ring that starts a little outside it.

    With r the radius of a disc of the region's area, the ring lies between 0.15 r (at least one
    pixel) and 0.75 r (at least three pixels) from the region's border, within the frame.

    Args:
        region: bool, shape (T, H, W).

    Returns:
        Shape (T, H, W); empty in frames where the region is empty.
    """
    from scipy.ndimage import distance_transform_edt

    ring = np.zeros(region.shape, dtype=np.bool_)
    for frame, inside in enumerate(region):
        if inside.any():
            radius = math.sqrt(inside.sum() / math.pi)
            gap = max(1.0, _GAP * radius)
            distance = distance_transform_edt(~inside)
            ring[frame] = (distance > gap) & (distance <= gap + max(2.0, _WIDTH * radius))
    return ring


def curve_parameters(times: ArrayLike, values: ArrayLike) -> CurveParameters:
    """Peak, arrival, wash-in and wash-out of a curve.

    The peak is as high as the highest sample, and when the parabola through that sample and its
    neighbours has its vertex, where these are about equally far in time; between samples the
    curve is taken as straight.

    Args:
        times: shape (T,), not decreasing, any unit.
        values: shape (T,), brightness in [0, 1]; NaN samples, and a second sample of the same
            time, are left out.

    Raises:
        ValueError: the shapes differ.
    """
    moments, heights = np.asarray(times, np.float64), np.asarray(values, np.float64)
    if moments.ndim != 1 or moments.shape != heights.shape:
        raise ValueError(
            f"times have shape {moments.shape}, values {heights.shape}: give one time per value"
        )
    known = ~np.isnan(heights)
    moments, first = np.unique(moments[known], return_index=True)
    heights = heights[known][first]
    if len(heights) < 2 or np.ptp(heights) < FLAT:
        return CurveParameters()
    top = int(heights.argmax())
    peak_time, peak = _vertex_time(moments, heights, top), float(heights[top])
    baseline = float(heights[: top + 1].min())
    place = {0: "start", len(heights) - 1: "end"}.get(top, "inside")
    rise = peak - baseline
    if rise < FLAT:  # the clip starts at or near the peak: no way up to measure it by
        return CurveParameters(baseline, peak, peak_time, peak_at=place)

    before = _crossing(moments[top::-1], heights[top::-1], baseline + _LOW * rise)
    half = _crossing(moments[top:], heights[top:], baseline + rise / 2)
    assert before is not None, "the curve comes from its baseline"
    start = int(np.searchsorted(moments, before, side="right"))
    upwards = np.append(before, moments[start : top + 1])
    risen = np.append(baseline + _LOW * rise, heights[start : top + 1])
    high = _crossing(upwards, -risen, -(baseline + _HIGH * rise))
    assert high is not None, "the curve reaches its peak"
    return CurveParameters(
        baseline=baseline,
        peak_intensity=peak,
        peak_time=peak_time,
        arrival_time=before,
        time_to_peak=peak_time - before,
        wash_in_slope=(_HIGH - _LOW) * rise / (high - before),
        half_washout=None if half is None else half - peak_time,
        peak_at=place,
    )


def _vertex_time(times: Floats, values: Floats, top: int) -> float:
    """When the parabola through the highest sample and its two neighbours is highest."""
    middle, peak = float(times[top]), float(values[top])
    if not 0 < top < len(values) - 1:
        return middle
    before, after = times[top - 1] - middle, times[top + 1] - middle
    if not 1 / _UNEVEN <= after / -before <= _UNEVEN:  # a parabola would overshoot
        return middle
    down_before, down_after = values[top - 1] - peak, values[top + 1] - peak
    curvature = (down_after / after - down_before / before) / (after - before)
    slope = down_before / before - curvature * before
    if curvature >= 0:  # three equal samples
        return middle
    return middle + float(-slope / (2 * curvature))


def _crossing(times: Floats, values: Floats, level: float) -> float | None:
    """When the polyline through the samples, in their order, first comes down to `level`."""
    below = np.flatnonzero(values <= level)
    if not len(below):
        return None
    after = int(below[0])
    if after == 0:
        return float(times[0])
    before = after - 1
    share = (values[before] - level) / (values[before] - values[after])
    return float(times[before] + share * (times[after] - times[before]))
