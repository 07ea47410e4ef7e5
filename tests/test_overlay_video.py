"""The overlay video: playable, one picture per frame, and everything where it belongs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from planted import plant_brightness, spots

from asycmst.analysis import overlay_video
from asycmst.analysis.insight import Insight, look_inside
from asycmst.analysis.overlay_video import encode, write_overlay
from asycmst.config import AsyCMSTConfig
from asycmst.data.clips import load_clip
from asycmst.model import AsyCMST

LESION = (slice(16, 32), slice(16, 48))


@pytest.fixture(scope="module")
def insight() -> Insight:
    model = AsyCMST(replace(AsyCMSTConfig.demo(), layers=1)).eval()
    plant_brightness(model)
    given = np.zeros((8, 64, 64), bool)
    given[:, LESION[0], LESION[1]] = True
    return look_inside(model, {}, spots(seconds=14.0), given)


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_it_shows_each_frame_with_its_map_outline_and_cursor(
    tmp_path: Path, insight: Insight, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    original = overlay_video.new_figure

    def keep(width: float, height: float) -> Any:
        made.append(original(width, height))
        return made[-1]

    monkeypatch.setattr(overlay_video, "new_figure", keep)
    write_overlay(tmp_path / "o.mp4", insight, None, "a title")
    pictures = decoded(tmp_path / "o.mp4")
    assert len(pictures) == 8
    height = int(made[0].bbox.height)
    bus, ceus = made[0].axes[:2]
    curves = next(axes for axes in made[0].axes if axes.get_title() == "Time-intensity curves")

    def colour(frame: int, axes: Any, x: float, y: float) -> np.ndarray:
        column, row = axes.transData.transform((x, y))
        found = pictures[frame][height - round(row) - 1, round(column)]
        return np.asarray(found, dtype=int)

    for frame in range(8):
        # A white cell under the strongest relevance is yellow; without it, and elsewhere, dark.
        for axes, at, x, y in ((bus, 3, 40, 24), (ceus, 6, 8, 40)):
            red, green, blue = colour(frame, axes, x, y)
            if frame == at:
                assert red > 220 and green > 200 and blue < 160, (frame, red, green, blue)
            else:
                assert max(red, green, blue) < 60, (frame, red, green, blue)
        assert colour(frame, bus, 15.5, 24).min() > 180, "the lesion's left border"
        cursor = colour(frame, curves, 2.0 * frame, curves.get_ylim()[1] * 0.97)
        assert cursor[1] > cursor[0] + 60, f"the cursor of frame {frame}: {cursor}"
        beside = 2.0 * frame + (1 if frame < 7 else -1)
        assert colour(frame, curves, beside, curves.get_ylim()[1] * 0.97).min() > 240


def test_it_plays_everywhere(tmp_path: Path, insight: Insight) -> None:
    write_overlay(tmp_path / "o.mp4", insight, 1, "a title")
    with av.open(str(tmp_path / "o.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name in ("h264", "mpeg4")
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.width % 2 == stream.height % 2 == 0
        assert stream.average_rate == 2 and stream.frames == 8
        assert not {"title", "comment"} & set(container.metadata)
    header = (tmp_path / "o.mp4").read_bytes()
    assert header.index(b"moov") < header.index(b"mdat"), "starts before it is all there"
    read = load_clip(tmp_path / "o.mp4", 8, 64)
    assert read.times is not None and read.times.tolist() == [0.5 * n for n in range(8)]


@pytest.mark.parametrize("best", ["libx264", "mpeg4"])
def test_encoders_and_odd_sides(
    tmp_path: Path, best: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if best == "mpeg4":
        monkeypatch.setattr(overlay_video, "_ENCODERS", ("no such encoder", "mpeg4"))
    pictures = np.zeros((3, 101, 203, 3), np.uint8)
    pictures[1, :, :100] = (230, 40, 60)
    encode(tmp_path / "v.mp4", iter(pictures), 5)
    found = decoded(tmp_path / "v.mp4")
    assert [picture.shape for picture in found] == [(100, 202, 3)] * 3
    for picture, wanted in zip(found, pictures, strict=True):
        difference = np.abs(picture[:, :90].astype(int) - wanted[:100, :90])
        assert difference.max() < 16, "colours survive"


def test_a_failure_leaves_the_old_video(
    tmp_path: Path, insight: Insight, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "o.mp4").write_bytes(b"the old one")

    def broken(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(overlay_video, "draw_lesion", broken)
    with pytest.raises(OSError, match="no space"):
        write_overlay(tmp_path / "o.mp4", insight, None, "x")
    assert [path.name for path in tmp_path.iterdir()] == ["o.mp4"]
    assert (tmp_path / "o.mp4").read_bytes() == b"the old one"
