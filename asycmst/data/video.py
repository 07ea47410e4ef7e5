"""Frames and presentation times of a video file, decoded by PyAV one frame at a time."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from asycmst.data.sampling import (
    Choose,
    FloatArray,
    Frames,
    FrameSize,
    Opened,
    Source,
    UInt8Array,
    fit_frame,
    half,
)

SUFFIXES = (".avi", ".mkv", ".mov", ".mp4", ".ts", ".webm")

# A recording that was cut off ends earlier than its header states. Containers round durations,
# so less than this share of missing time, or of missing frames, is not called a cut.
_CUT_SHARE = 0.05


class _Pass(NamedTuple):
    """What one decoding pass over a file found."""

    kept: dict[int, UInt8Array]
    times: list[float | None]
    damaged: int


def open_video(path: Path, view: str | None = None) -> Opened:
    """Look at a video; its packets are counted and none is decoded.

    Reading decodes the file once from start to end, and only chosen frames are converted,
    resized and kept. Where the packets tell another number of frames, or other times, than
    decoding finds (hidden frames of some codecs), a second decoding pass goes by the truth.

    Args:
        path: an mp4, avi, mov, mkv, ts or webm file.
        view: "left" or "right" half of every frame, None for all of it.

    Returns:
        The clip; times are the exact presentation times less the first one, None where the file
        states none.

    Raises:
        ImportError: PyAV is not installed.
        ValueError: the file is broken, cut off, or has no picture; reading raises it as well.
    """
    require_av(path)
    import av

    try:
        packets = _read_packets(path)
    except av.error.FFmpegError as error:
        raise _undecodable(path, error) from error
    height, width = packets.size
    source = Source(
        frames=len(packets.times),
        times=_seconds_after_first(packets.times),
        size=packets.size,
        box=None if view is None else half(height, width, view),
    )
    return Opened(source, partial(_read, path, source, view))


def require_av(path: Path) -> None:
    """Raise an ImportError that says what to do where PyAV is missing."""
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'reading {path.name} needs PyAV, which is missing: pip install ".[train]"'
        ) from error


def _read(path: Path, source: Source, view: str | None, choose: Choose, size: FrameSize) -> Frames:
    import av

    available, times = source.frames, source.times
    try:
        while True:
            indices = choose(available, times)
            found = _decode(path, set(indices.tolist()), size, view)
            available, times = len(found.times), _seconds_after_first(found.times)
            indices = choose(available, times)
            if found.kept.keys() >= set(indices.tolist()):
                break
    except av.error.FFmpegError as error:
        raise _undecodable(path, error) from error
    notes = [f"{found.damaged} of {available} video frames are damaged"] if found.damaged else []
    return Frames(
        frames=np.stack([found.kept[int(index)] for index in indices]),
        indices=indices,
        times=None if times is None else times[indices],
        notes=tuple(notes),
    )


def _undecodable(path: Path, error: Any) -> ValueError:
    return ValueError(
        f"{path} cannot be decoded as a video ({error.strerror}): it is broken, cut off or of "
        "another format; export it again"
    )


def picture_stream(container: Any, path: Path) -> Any:
    """The first video stream of an open file, to be decoded on one thread.

    Raises:
        ValueError: there is none.
    """
    if not container.streams.video:
        raise ValueError(f"{path} has no video stream: give a file with pictures")
    stream = container.streams.video[0]
    # One decoding thread: data loaders already run one process per core.
    stream.codec_context.thread_count = 1
    return stream


class _Packets(NamedTuple):
    times: list[float | None]
    size: tuple[int, int]


def _read_packets(path: Path) -> _Packets:
    """The presentation time of every packet, and the (height, width) of a frame."""
    import av

    with av.open(str(path)) as container:
        stream = picture_stream(container, path)
        times = [
            None if packet.pts is None else float(packet.pts * packet.time_base)
            for packet in container.demux(stream)
            if packet.size
        ]
        stated = stream.frames
        size = stream.codec_context.height, stream.codec_context.width
    if not times:
        raise ValueError(f"{path} holds no frame: it is empty or cut off; export it again")
    if len(times) < stated * (1 - _CUT_SHARE):
        raise ValueError(
            f"{path} is cut off: it holds {len(times)} of the {stated} frames its header states; "
            "copy or export it again"
        )
    return _Packets(sorted(times, key=lambda time: time or 0.0), size)


def _decode(path: Path, wanted: set[int], size: FrameSize, view: str | None) -> _Pass:
    import av

    kept: dict[int, UInt8Array] = {}
    times: list[float | None] = []
    damaged = 0
    with av.open(str(path)) as container:
        stream = picture_stream(container, path)
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
