"""Frames and presentation times of a video file, decoded by PyAV one frame at a time."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from asycmst.data.sampling import (
    FloatArray,
    Frames,
    FrameSize,
    UInt8Array,
    fit_frame,
    half,
    sample_indices,
)

SUFFIXES = (".avi", ".mkv", ".mov", ".mp4", ".webm")

# A recording that was cut off ends earlier than its header states. Containers round durations,
# so less than this share of missing time, or of missing frames, is not called a cut.
_CUT_SHARE = 0.05


class _Pass(NamedTuple):
    """What one decoding pass over a file found."""

    kept: dict[int, UInt8Array]
    times: list[float | None]
    damaged: int


def read_video(path: Path, frames: int, size: FrameSize, view: str | None = None) -> Frames:
    """Read `frames` frames of a video, evenly spread over its length.

    The packets are counted first, then the file is decoded once from start to end, and only
    sampled frames are converted, resized and kept. Where packets and frames differ in number
    (hidden frames of some codecs) a second decoding pass uses the true number.

    Args:
        path: an mp4, avi, mov, mkv or webm file.
        frames: T, the frames wanted.
        size: side of the returned frames in pixels, or their (height, width).
        view: "left" or "right" half of every frame, None for all of it.

    Returns:
        The sampled frames; times are the exact presentation times less the first one, None
        where the file states none.

    Raises:
        ImportError: PyAV is not installed.
        ValueError: the file is broken, cut off, or has no picture.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError(
            f'reading {path.name} needs PyAV, which is missing: pip install ".[train]"'
        ) from error
    try:
        expected = _count_packets(path)
        while True:
            found = _decode(path, expected, frames, size, view)
            if len(found.times) == expected:
                break
            expected = len(found.times)
    except av.error.FFmpegError as error:
        raise ValueError(
            f"{path} cannot be decoded as a video ({error.strerror}): it is broken, cut off or "
            "of another format; export it again"
        ) from error
    indices = sample_indices(expected, frames)
    times = _seconds_after_first(found.times)
    notes = [f"{found.damaged} of {expected} video frames are damaged"] if found.damaged else []
    return Frames(
        frames=np.stack([found.kept[int(index)] for index in indices]),
        indices=indices,
        times=None if times is None else times[indices],
        notes=tuple(notes),
    )


def _picture_stream(container: Any, path: Path) -> Any:
    if not container.streams.video:
        raise ValueError(f"{path} has no video stream: give a file with pictures")
    stream = container.streams.video[0]
    # One decoding thread: data loaders already run one process per core.
    stream.codec_context.thread_count = 1
    return stream


def _count_packets(path: Path) -> int:
    import av

    with av.open(str(path)) as container:
        stream = _picture_stream(container, path)
        packets = sum(1 for packet in container.demux(stream) if packet.size)
        stated = stream.frames
    if packets == 0:
        raise ValueError(f"{path} holds no frame: it is empty or cut off; export it again")
    if packets < stated * (1 - _CUT_SHARE):
        raise ValueError(
            f"{path} is cut off: it holds {packets} of the {stated} frames its header states; "
            "copy or export it again"
        )
    return packets


def _decode(path: Path, expected: int, frames: int, size: FrameSize, view: str | None) -> _Pass:
    import av

    wanted = set(sample_indices(expected, frames).tolist())
    kept: dict[int, UInt8Array] = {}
    times: list[float | None] = []
    damaged = 0
    with av.open(str(path)) as container:
        stream = _picture_stream(container, path)
        for index, frame in enumerate(container.decode(stream)):
            times.append(frame.time)
            damaged += frame.is_corrupt
            if index in wanted:
                box = None if view is None else half(frame.height, frame.width, view)
                kept[index] = fit_frame(frame.to_ndarray(format="rgb24"), size, box)
        if not times:
            raise ValueError(f"{path} holds no frame that can be decoded: export it again")
        _check_reaches_end(path, container, stream, times[-1])
    return _Pass(kept, times, damaged)


def _check_reaches_end(path: Path, container: Any, stream: Any, last: float | None) -> None:
    """Matroska states its length in time: compare it with the last frame.

    Only for a file of nothing but pictures: a sound track may rightly be longer.
    """
    if container.duration is None or stream.average_rate is None or last is None:
        return
    if len(container.streams) > 1:
        return
    stated = container.duration / 1e6
    end = last + float(1 / stream.average_rate)
    if end < stated * (1 - _CUT_SHARE):
        raise ValueError(
            f"{path} is cut off: its pictures end at {end:.2f} s of the {stated:.2f} s its header "
            "states; copy or export it again"
        )


def _seconds_after_first(times: list[float | None]) -> FloatArray | None:
    known = [time for time in times if time is not None]
    if len(known) < len(times):
        return None
    return np.asarray(known, dtype=np.float64) - known[0]
