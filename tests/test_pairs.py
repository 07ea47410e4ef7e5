"""Two clips at the same moments: common time, annotated frames, the released code's rule."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from asycmst.data import pairs
from asycmst.data.pairs import common_duration, duration_note, load_pair, nearest
from asycmst.data.sampling import Choose, Frames, Opened, Source


def clip(times: np.ndarray | None, n: int | None = None) -> Opened:
    """A clip without pixels that hands out the frames it is asked for."""
    n = len(times) if times is not None else n
    assert n is not None

    def read(choose: Choose, size: object) -> Frames:
        indices = choose(n, times)
        assert indices.dtype == np.int64 and (np.diff(indices) >= 0).all()
        assert indices[0] >= 0 and indices[-1] < n
        frames = np.zeros((len(indices), 1, 1, 3), np.uint8)
        return Frames(frames, indices, None if times is None else times[indices])

    return Opened(Source(n, times, (1, 1)), read)


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    def sample(
        bus: Opened, ceus: Opened, frames: int, annotated: Sequence[int] = (), **options: object
    ) -> tuple[list, list]:
        options["annotated"] = lambda source: annotated if source is bus.source else []
        monkeypatch.setattr(pairs, "open_clip", lambda path, view: {"b": bus, "c": ceus}[path])
        pair = load_pair("b", "c", frames, 1, **options)  # type: ignore[arg-type]
        return pair.bus.source_indices.tolist(), pair.ceus.source_indices.tolist()

    return sample


def test_both_clips_cover_the_common_time(sampled) -> None:  # type: ignore[no-untyped-def]
    bus, ceus = clip(np.arange(41) / 4), clip(np.arange(31) * 1.0)  # 10 s and 30 s
    assert sampled(bus, ceus, 5) == ([0, 10, 20, 30, 40], [0, 2, 5, 7, 10])


def test_irregular_times_are_met_by_the_nearest_frame(sampled) -> None:  # type: ignore[no-untyped-def]
    times = np.array([0, 0.1, 0.2, 5, 9.9, 10])
    assert sampled(clip(times), clip(np.arange(11) * 1.0), 3) == ([0, 3, 5], [0, 5, 10])


@pytest.mark.parametrize("other", [None, np.arange(31) * 1.0])
def test_without_times_slots_are_counted_in_frames(sampled, other) -> None:  # type: ignore[no-untyped-def]
    """IN2: floor(j (n - 1) / (T - 1)) in each clip, also where only one states times."""
    ceus = clip(other, 31)
    expected = [[j * (n - 1) // 15 for j in range(16)] for n in (20, 31)]
    assert list(sampled(clip(None, 20), ceus, 16)) == expected


@pytest.mark.parametrize("timed", [True, False])
def test_annotated_frames_are_preferred_within_half_a_slot(sampled, timed: bool) -> None:  # type: ignore[no-untyped-def]
    times = np.arange(41) / 4 if timed else None
    bus, ceus = clip(times, 41), clip(times, 41)
    # Slots at 0, 10, 20, 30, 40: 6 and 13 compete for the second, 25 is between two.
    found = sampled(bus, ceus, 5, annotated=[13, 6, 25, 38])
    assert found[0] == [0, 13, 25, 30, 38]
    assert found[1] == found[0], "CEUS follows to the same moment"
    assert sampled(bus, ceus, 5, annotated=[99])[0] == [0, 10, 20, 30, 40]


def test_ceus_of_another_rate_follows_an_annotated_frame(sampled) -> None:  # type: ignore[no-untyped-def]
    bus, ceus = clip(np.arange(41) / 4), clip(np.arange(101) / 10)
    assert sampled(bus, ceus, 5, annotated=[13])[1] == [0, 32, 50, 75, 100]
    bus, ceus = clip(None, 41), clip(None, 101)
    assert sampled(bus, ceus, 5, annotated=[13])[1] == [0, 32, 50, 75, 100]


@pytest.mark.parametrize(("rate", "step"), [(25, 12), (30, 15), (4, 2), (3, 1), (1, 1)])
def test_the_released_rule(sampled, rate: int, step: int) -> None:  # type: ignore[no-untyped-def]
    """IN5: every max(1, floor(fps / 2))-th frame is kept, then IN2 counts among those."""
    n = 8 * rate + 1
    kept = list(range(0, n, step))
    expected = [kept[j * (len(kept) - 1) // 4] for j in range(5)]
    found = sampled(clip(np.arange(n) / rate), clip(None, 9), 5, sampling="released")
    assert found == (expected, [0, 2, 4, 6, 8])


@pytest.mark.parametrize("frames", [1, 2, 7])
@pytest.mark.parametrize("timed", [True, False])
def test_one_frame_serves_all_slots(sampled, frames: int, timed: bool) -> None:  # type: ignore[no-untyped-def]
    single = clip(np.zeros(1) if timed else None, 1)
    found = sampled(single, single, frames, annotated=[0])
    assert found == ([0] * frames, [0] * frames)


def test_slots_never_go_back_in_time(sampled) -> None:  # type: ignore[no-untyped-def]
    """The readers above check the order; here for many clips and annotations."""
    generator = np.random.default_rng(0)
    for _ in range(200):
        n, m, frames = generator.integers(1, 40, 3)
        bus_times = np.cumsum(generator.exponential(1, n)) if generator.random() < 0.5 else None
        bus = clip(None if bus_times is None else bus_times - bus_times[0], int(n))
        ceus = clip(np.arange(m) * 1.0, int(m))
        annotated = generator.integers(0, n, generator.integers(0, 5)).tolist()
        sampled(bus, ceus, int(frames), annotated=annotated)


def test_nearest_takes_the_earlier_of_two() -> None:
    positions = np.array([0.0, 1.0, 3.0])
    assert nearest(positions, np.array([0.5, 0.51, 2.0, 9.0])).tolist() == [0, 1, 1, 2]


def test_durations(tmp_path: Path) -> None:
    long, short = Source(9, np.arange(9) * 5.0, (1, 1)), Source(9, np.arange(9) * 1.0, (1, 1))
    unknown = Source(9, None, (1, 1))
    assert common_duration(long, short) == 8 and common_duration(long, unknown) is None
    assert duration_note(long, long) is None and duration_note(long, unknown) is None
    assert "BUS lasts 40.0 s and CEUS 8.0 s" in (duration_note(long, short) or "")
