"""Video files that the test encodes itself: content, times, cut-off files."""

import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from asycmst.data import video
from asycmst.data.clips import load_clip

STEP = 6  # grey step from frame to frame


def encode(
    path: Path,
    codec: str,
    pixel_format: str,
    frames: int = 40,
    pts: list[int] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """A 25 Hz clip of 96 x 64; frame i is grey STEP * i on the right, noise on the left."""
    generator = np.random.default_rng(0)
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, pixel_format
        stream.codec_context.time_base = Fraction(1, 25)
        for index in range(frames):
            picture = np.full((64, 96, 3), STEP * index, np.uint8)
            picture[:, :48] = generator.integers(0, 256, (64, 48, 1))
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = index if pts is None else pts[index]
            frame.time_base = Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


CODECS = [
    pytest.param("a.mp4", "libx264", "yuv420p", id="h264 mp4"),
    pytest.param("a.avi", "mjpeg", "yuvj420p", id="mjpeg avi"),
    pytest.param("a.avi", "rawvideo", "bgr24", id="raw avi"),
    pytest.param("a.mov", "mpeg4", "yuv420p", id="mpeg4 mov"),
    pytest.param("a.mkv", "ffv1", "bgr0", id="ffv1 mkv"),
    pytest.param("a.webm", "libvpx-vp9", "yuv420p", id="vp9 webm"),
]


@pytest.mark.parametrize(("name", "codec", "pixel_format"), CODECS)
def test_frames_and_times(tmp_path: Path, name: str, codec: str, pixel_format: str) -> None:
    clip = load_clip(encode(tmp_path / name, codec, pixel_format), 8, 32)
    indices = [39 * j // 7 for j in range(8)]
    assert clip.source_indices.tolist() == indices
    assert clip.times == pytest.approx([index / 25 for index in indices], abs=1e-3)
    assert clip.frames.shape == (8, 32, 32, 3)
    grey = clip.frames[:, 8:24, 22:30].mean(axis=(1, 2, 3))
    assert grey == pytest.approx([STEP * index for index in indices], abs=5)


def test_lossless_pixels_are_exact(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", "ffv1", "bgr0", frames=3)
    generator = np.random.default_rng(0)
    clip = load_clip(path, 3, 64, view="right")
    for index, frame in enumerate(clip.frames):
        generator.integers(0, 256, (64, 48, 1))
        assert (frame == STEP * index).all()


def test_times_of_a_variable_rate_count_from_the_first_frame(tmp_path: Path) -> None:
    pts = [50, 51, 53, 60, 61, 90]
    clip = load_clip(encode(tmp_path / "a.mkv", "ffv1", "bgr0", frames=6, pts=pts), 6, 16)
    assert clip.times == pytest.approx([(value - 50) / 25 for value in pts], abs=1e-3)


def test_only_sampled_frames_are_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode(tmp_path / "a.avi", "mjpeg", "yuvj420p")
    shapes: list[tuple[int, ...]] = []
    original = video.fit_frame

    def counting(frame: Any, *rest: Any) -> Any:
        shapes.append(frame.shape)
        return original(frame, *rest)

    monkeypatch.setattr(video, "fit_frame", counting)
    load_clip(path, 5, 16)
    assert shapes == [(64, 96, 3)] * 5


@pytest.mark.parametrize("guess", [55, 25])
def test_a_wrong_packet_count_costs_a_second_pass_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guess: int
) -> None:
    """Some codecs put several frames, or none to be shown, into one packet."""
    path = encode(tmp_path / "a.mkv", "ffv1", "bgr0")
    expected = load_clip(path, 7, 16)
    packets = video._Packets([index / 25 for index in range(guess)], (64, 96))
    monkeypatch.setattr(video, "_read_packets", lambda _: packets)
    clip = load_clip(path, 7, 16)
    assert clip.source_indices.tolist() == expected.source_indices.tolist()
    assert (clip.frames == expected.frames).all()


@pytest.mark.parametrize(("side", "noise"), [("left", True), ("right", False)])
def test_side_by_side_halves(tmp_path: Path, side: Any, noise: bool) -> None:
    path = encode(tmp_path / "a.mkv", "ffv1", "bgr0", frames=4)
    clip = load_clip(path, 4, 32, view=side)
    assert (clip.frames.std(axis=(1, 2, 3)) > 5).all() == noise


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "options"),
    [
        pytest.param("a.mp4", "libx264", "yuv420p", {}, id="mp4"),
        pytest.param("a.mp4", "libx264", "yuv420p", {"movflags": "faststart"}, id="streamed mp4"),
        pytest.param("a.avi", "mjpeg", "yuvj420p", {}, id="avi"),
        pytest.param("a.mkv", "libx264", "yuv420p", {}, id="mkv"),
        pytest.param("a.webm", "libvpx-vp9", "yuv420p", {}, id="webm"),
    ],
)
def test_a_file_cut_off_is_one_line(
    tmp_path: Path, name: str, codec: str, pixel_format: str, options: dict[str, str], kept: float
) -> None:
    whole = encode(tmp_path / name, codec, pixel_format, options=options)
    assert load_clip(whole, 4, 16).source_indices[-1] == 39
    content = whole.read_bytes()
    cut = tmp_path / f"cut_{name}"
    cut.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match="cut off") as error:
        load_clip(cut, 4, 16)
    assert "\n" not in str(error.value)


def test_text_with_the_name_of_a_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("not a video at all\n" * 50)
    with pytest.raises(ValueError, match="cannot be decoded as a video"):
        load_clip(path, 4, 16)


def test_sound_without_pictures(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        samples = np.zeros((1, 8000), np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(ValueError, match="no video stream"):
        load_clip(path, 4, 16)


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "a.avi", "mjpeg", "yuvj420p", frames=2)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r'needs PyAV.*pip install "\.\[train\]"'):
        load_clip(path, 2, 16)
