"""Clips that are still being written, by a thread or in pieces."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from asycmst.data.clips import open_clip
from asycmst.data.growing import GrowingSource, open_growing
from asycmst.data.sampling import UInt8Array

LIVE = [
    pytest.param("a.ts", "libx264", {}, id="MPEG-TS"),
    pytest.param("a.mkv", "libx264", {}, id="Matroska"),
    pytest.param("a.mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}, id="MP4"),
    pytest.param("a.avi", "mjpeg", {}, id="AVI"),
]


def picture(number: int) -> UInt8Array:
    return np.random.default_rng(number).integers(0, 256, (32, 48, 3), dtype=np.uint8)


def encoded(path: Path, codec: str, options: dict[str, str], count: int = 12) -> bytes:
    with av.open(str(path), "w", options=options) as container:
        video = container.add_stream(codec, rate=10, options={"g": "4"})
        video.width, video.height = 48, 32
        video.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode())
    content = path.read_bytes()
    path.unlink()
    return content


@pytest.fixture
def grow() -> Iterator[list[GrowingSource]]:
    opened: list[GrowingSource] = []
    yield opened
    for source in opened:
        source.close()


def whole(path: Path) -> tuple[list[UInt8Array], list[float] | None]:
    """All frames and times of the finished clip."""
    clip = open_clip(path)
    read = clip.read(lambda n, times: np.arange(n), clip.source.size)
    return list(read.frames), None if read.times is None else read.times.tolist()


@pytest.mark.parametrize(("name", "codec", "options"), LIVE)
def test_a_video_is_read_while_it_is_written(
    tmp_path: Path, grow: list[GrowingSource], name: str, codec: str, options: dict[str, str]
) -> None:
    """Written in pieces that end anywhere; what is read in the end is the finished file."""
    path = tmp_path / name
    content = encoded(path, codec, options)
    with path.open("wb") as file:
        source = open_growing(path)
        grow.append(source)
        assert source.poll(99).pictures == []

        def write() -> None:
            for start in range(0, len(content), 1000):
                file.write(content[start : start + 1000])
                file.flush()
                time.sleep(0.002)

        writer = threading.Thread(target=write)
        writer.start()
        pictures, times = [], []
        while writer.is_alive():
            found = source.poll(2)
            assert len(found.pictures) <= 2 and found.times is not None
            pictures += found.pictures
            times += found.times
            time.sleep(0.002)
        writer.join()
    rest = source.finish()
    assert rest.times is not None
    pictures, times = pictures + rest.pictures, times + rest.times
    frames, offline = whole(path)
    assert len(frames) == 12 and offline is not None
    assert np.array_equal(pictures, frames)
    assert [moment - times[0] for moment in times] == pytest.approx(offline)
    assert source.notes == ()
    assert source.poll(9).pictures == []


def test_frames_of_a_video_come_before_it_has_ended(
    tmp_path: Path, grow: list[GrowingSource]
) -> None:
    path = tmp_path / "a.avi"
    content = encoded(path, "mjpeg", {}, count=90)
    path.write_bytes(content[: len(content) * 2 // 3])
    source = open_growing(path)
    grow.append(source)
    arrived = 0
    deadline = time.monotonic() + 20
    while arrived < 50 and time.monotonic() < deadline:
        arrived += len(source.poll(99).pictures)
        time.sleep(0.005)
    assert 50 <= arrived < 90
    with path.open("ab") as file:
        file.write(content[len(content) * 2 // 3 :])
    assert arrived + len(source.finish().pictures) == 90


def test_a_video_that_breaks_off_gives_the_frames_before(
    tmp_path: Path, grow: list[GrowingSource]
) -> None:
    path = tmp_path / "a.mkv"
    content = encoded(path, "libx264", {})
    path.write_bytes(content[: len(content) * 2 // 3])
    source = open_growing(path)
    grow.append(source)
    found = source.finish()
    assert 4 <= len(found.pictures) < 12


@pytest.mark.parametrize("content", ["ordinary mp4", "noise", "nothing"])
def test_a_video_that_cannot_be_followed_is_one_line(
    tmp_path: Path, grow: list[GrowingSource], content: str
) -> None:
    path = tmp_path / "a.mp4"
    written = {
        "ordinary mp4": encoded(path, "libx264", {}, count=90),
        "noise": np.random.default_rng(0).bytes(5000),
        "nothing": b"",
    }[content]
    path.write_bytes(written)
    source = open_growing(path)
    grow.append(source)
    with pytest.raises(ValueError, match=r"a\.mp4 cannot be followed .* fragmented MP4") as raised:
        source.finish()
    assert "\n" not in str(raised.value)


def test_a_closed_video_leaves_no_thread(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    path.write_bytes(encoded(path, "mjpeg", {}, count=60))
    before = threading.active_count()
    source = open_growing(path)
    assert threading.active_count() == before + 1
    source.close()  # frames that nobody has fetched are decoded, and the queue is full
    assert threading.active_count() == before


def save(folder: Path, number: int, suffix: str = "png") -> Path:
    path = folder / f"frame {number}.{suffix}"
    Image.fromarray(picture(number)).save(path)
    return path


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif"])
def test_a_half_written_image_is_waited_for(tmp_path: Path, suffix: str) -> None:
    source = open_growing(tmp_path)
    assert source.poll(9) == ([], None)
    for number in (8, 9):
        save(tmp_path, number, suffix)
    content = save(tmp_path, 10, suffix).read_bytes()
    broken = tmp_path / f"frame 10.{suffix}"
    found = []
    for size in (0, 20, len(content) // 2, len(content) - 200):
        broken.write_bytes(content[:size])
        save(tmp_path, 11, suffix)
        found += source.poll(9).pictures
        assert len(found) == 2, f"{size} bytes"
    broken.write_bytes(content)
    found += source.poll(1).pictures
    assert len(found) == 3
    found += source.finish().pictures
    assert np.array_equal(found, whole(tmp_path)[0])
    assert source.notes == ()


def test_an_image_that_stays_broken_ends_the_clip_with_a_note(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        save(tmp_path, number)
    (tmp_path / "frame 2.png").write_bytes(b"half")
    source = open_growing(tmp_path)
    assert len(source.poll(9).pictures) == 1
    assert source.finish().pictures == []
    assert source.notes == (
        "the image frame 2.png is broken or half written: it and 1 later ones are left out",
    )


def test_images_out_of_order_are_one_line(tmp_path: Path) -> None:
    source = open_growing(tmp_path)
    save(tmp_path, 5)
    assert len(source.poll(9).pictures) == 1
    save(tmp_path, 4)
    with pytest.raises(ValueError, match=r"frame 4\.png appeared after an image of a higher"):
        source.poll(9)


def test_an_image_that_a_listing_missed_is_not_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder is listed while files appear: 5 may be seen and 4, which is older, not."""
    save(tmp_path, 4)
    save(tmp_path, 5)
    listing = Path.iterdir
    calls = 0

    def missing(path: Path) -> Iterator[Path]:
        nonlocal calls
        calls += 1
        return (entry for entry in listing(path) if calls > 1 or "4" not in entry.name)

    monkeypatch.setattr(Path, "iterdir", missing)
    found = open_growing(tmp_path).poll(9).pictures
    assert np.array_equal(found, [picture(4), picture(5)])


def test_sources_that_do_not_grow_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.npy cannot be followed"):
        open_growing(tmp_path / "a.npy")
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        open_growing(tmp_path / "b")
