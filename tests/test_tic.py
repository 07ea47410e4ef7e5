"""Time-intensity curves: means by hand, the ring, and figures of curves whose truth is known."""

import math

import numpy as np
import pytest

from asycmst.analysis.tic import (
    CurveParameters,
    curve_parameters,
    mean_intensity,
    surrounding_ring,
)


def gamma_variate(times: np.ndarray, arrival: float, to_peak: float, shape: float) -> np.ndarray:
    """1 at arrival + to_peak, 0 before the arrival."""
    since = np.clip((times - arrival) / to_peak, 0, None)
    return since**shape * np.exp(shape * (1 - since))


def disc(side: int, radius: float, centre: float) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    return np.hypot(y - centre, x - centre) <= radius


def test_mean_intensity_by_hand() -> None:
    clip = np.zeros((3, 2, 2, 3), np.uint8)
    clip[0, 0, 0] = (255, 0, 0)  # a third of full brightness
    clip[1, 0] = 102
    region = np.zeros((3, 2, 2), bool)
    region[0, 0, 0] = region[1, 0, 0] = region[1, 1, 0] = True
    found = mean_intensity(clip, region)
    assert found[:2] == pytest.approx([1 / 3, 0.2]) and math.isnan(found[2])
    assert mean_intensity(clip[..., 0], region)[:2] == pytest.approx([1, 0.2])


def test_the_ring_lies_around_and_off_the_region() -> None:
    region = np.stack([disc(81, 20, 40), disc(81, 3, 40), np.zeros((81, 81), bool)])
    ring = surrounding_ring(region)
    y, x = np.mgrid[:81, :81]
    distance = np.hypot(y - 40, x - 40)
    assert (ring & region).sum() == 0 and not ring[2].any()
    assert 22 < distance[ring[0]].min() < 24.5 and 33 < distance[ring[0]].max() < 36
    assert distance[ring[1]].min() > 4 and 5 < distance[ring[1]].max() < 7


@pytest.mark.parametrize("arrival", [2.0, 8.0])
@pytest.mark.parametrize("to_peak", [6.0, 14.0])
def test_a_gamma_variate_is_recovered(arrival: float, to_peak: float) -> None:
    shape = 2.0
    times = np.arange(0, 100, 0.5)
    found = curve_parameters(times, 0.1 + 0.6 * gamma_variate(times, arrival, to_peak, shape))
    fine = np.linspace(0, 100, 100_001)
    truth = gamma_variate(fine, arrival, to_peak, shape)
    rising = fine <= arrival + to_peak
    low, high = (fine[rising & (truth >= share)][0] for share in (0.1, 0.9))
    half = fine[~rising & (truth <= 0.5)][0] - (arrival + to_peak)
    assert found.peak_at == "inside"
    assert found.baseline == pytest.approx(0.1)
    assert found.peak_intensity == pytest.approx(0.7, abs=1e-3)
    assert found.peak_time == pytest.approx(arrival + to_peak, abs=0.05)
    assert found.arrival_time == pytest.approx(low, abs=0.05)
    assert found.time_to_peak == pytest.approx(arrival + to_peak - low, abs=0.1)
    assert found.wash_in_slope == pytest.approx(0.48 / (high - low), rel=0.02)
    assert found.half_washout == pytest.approx(half, abs=0.05)


def test_few_frames_find_the_peak_within_a_quarter_of_an_interval() -> None:
    """16 frames of a clip of 48 s, as a model takes them."""
    times = np.linspace(0, 48, 16)
    for peak in np.linspace(14, 24, 7):
        found = curve_parameters(times, gamma_variate(times, 6, peak - 6, 1.5))
        assert found.peak_time == pytest.approx(peak, abs=3.2 / 4)


def test_figures_by_hand() -> None:
    """Straight lines: 0.2 until 10, up to 0.8 at 20, 0.5 at 25, down to 0.2 at 40."""
    times = [0, 10, 15, 20, 25, 40]
    found = curve_parameters(times, [0.2, 0.2, 0.5, 0.8, 0.5, 0.2])
    assert found == CurveParameters(
        baseline=pytest.approx(0.2),
        peak_intensity=0.8,
        peak_time=pytest.approx(20),
        arrival_time=pytest.approx(11),
        time_to_peak=pytest.approx(9),
        wash_in_slope=pytest.approx(0.06),
        half_washout=pytest.approx(5),
        peak_at="inside",
    )


@pytest.mark.parametrize("times", [[0, 10, 10.5, 20], [0, 1, 3.5, 4]], ids=["late", "early"])
def test_uneven_times_move_no_peak(times: list[float]) -> None:
    """A parabola through samples of very different distance overshoots: the sample counts."""
    found = curve_parameters(times, [0.1, 0.9, 0.3, 0.2])
    assert found.peak_time == times[1]


@pytest.mark.parametrize(
    ("values", "place", "none"),
    [
        ([0.1, 0.2, 0.4, 0.7], "end", {"half_washout"}),
        ([0.7, 0.4, 0.2, 0.1], "start", {"arrival_time", "time_to_peak", "wash_in_slope"}),
        ([0.1, 0.6, 0.55, 0.5], "inside", {"half_washout"}),
        ([0.3, 0.3, 0.304, 0.3], "none", {"baseline", "peak_time", "wash_in_slope"}),
        ([math.nan] * 4, "none", {"peak_time"}),
        ([math.nan, 0.2, math.nan, math.nan], "none", {"peak_time"}),
    ],
    ids=["rises to the end", "falls", "no wash-out", "flat", "nothing", "one sample"],
)
def test_what_a_clip_does_not_show_is_none(
    values: list[float], place: str, none: set[str]
) -> None:
    found = vars(curve_parameters(range(4), values))
    assert found["peak_at"] == place
    assert all(found[name] is None for name in none), found


def test_gaps_and_repeated_frames_are_left_out() -> None:
    times = [0, 0, 1, 2, 2, 3, 4]
    values = [0.1, 0.1, 0.3, 0.9, 0.9, math.nan, 0.1]
    assert curve_parameters(times, values) == curve_parameters([0, 1, 2, 4], [0.1, 0.3, 0.9, 0.1])


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="one time per value"):
        curve_parameters([0, 1], [0.1, 0.2, 0.3])
