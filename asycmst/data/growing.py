"""Clips that are still being written: a folder that gains images, a video that grows longer."""

import math
import os
import queue
import threading
import warnings
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from asycmst.data import video
from asycmst.data.frame_folder import UnreadableImage, numbered_images, read_image
from asycmst.data.sampling import UInt8Array

_WAIT_S = 0.05  # for more bytes of a video
_DECODED_AHEAD = 32  # frames that wait to be fetched


class Arrivals(NamedTuple):
    """Whole frames that have come since the last look, in order.

    Attributes:
        pictures: each (H, W, 3), uint8, RGB.
        times: seconds, one for each picture; None where the source states none.
    """

    pictures: list[UInt8Array]
    times: list[float] | None


class GrowingSource(Protocol):
    """A clip that is still being written."""

    @property
    def notes(self) -> tuple[str, ...]:
        """One line each, what a user should know about how the source was read."""

    def poll(self, most: int) -> Arrivals:
        """At most `most` new frames; never waits for one.

        Raises:
            ValueError: what was written cannot be a clip.
        """

    def finish(self) -> Arrivals:
        """All frames that are left once nothing more is written; `poll` is over."""

    def close(self) -> None:
        """Let go of the source, whatever is left."""


def open_growing(path: str | os.PathLike[str]) -> GrowingSource:
    """Follow a clip that is still being written.

    A folder gains numbered images; one that is half written is tried again. A video is decoded
    as far as it is written, if its kind can be read before it is finished: MPEG-TS, Matroska,
    WebM, AVI and fragmented MP4 can, an ordinary MP4 has its index at the end.

    Args:
        path: the folder, which may be empty, or the file.

    Raises:
        FileNotFoundError: nothing exists at `path`.
        ImportError: the library for this kind of file is not installed.
        ValueError: this kind of file does not grow by frames.
    """
    source = Path(path)
    if not source.exists():
        raise FileNotFoundError(f"no file or folder at {source}: check the path and its spelling")
    if source.is_dir():
        return GrowingFolder(source)
    if source.suffix.lower() in video.SUFFIXES:
        return GrowingVideo(source)
    raise ValueError(
        f"{source} cannot be followed while it is written: give a folder that gains images, or a "
        f"video ({' '.join(video.SUFFIXES)})"
    )


class GrowingFolder:
    """A folder that gains images in the order of the numbers in their names; it has no times."""

    def __init__(self, path: Path) -> None:
        self._notes: tuple[str, ...] = ()
        self._path = path
        self._taken: set[tuple[int, ...]] = set()
        self._last: tuple[int, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Which images were left out."""
        return self._notes

    def poll(self, most: int) -> Arrivals:
        """At most `most` new images; none beyond one that cannot be read yet."""
        waiting = self._waiting()
        pictures: list[UInt8Array] = []
        for number in sorted(waiting)[:most]:
            try:
                with warnings.catch_warnings():  # what pillow says of a half-written image
                    warnings.simplefilter("ignore")
                    pictures.append(read_image(waiting[number]))
            except UnreadableImage:
                break
            self._taken.add(number)
            self._last = number
        return Arrivals(pictures, None)

    def _waiting(self) -> dict[tuple[int, ...], Path]:
        # A listing may miss a file that appears while it runs and hold a later one: the second
        # listing holds everything that was there before the newest file of the first.
        newest = max(numbered_images(self._path), default=())
        found = numbered_images(self._path)
        waiting = {
            number: path
            for number, path in found.items()
            if number <= newest and number not in self._taken
        }
        late = min(waiting, default=self._last)
        if late < self._last:
            raise ValueError(
                f"{waiting[late]} appeared after an image of a higher number had been read: "
                "write the frames of a clip in the order of their numbers"
            )
        return waiting

    def finish(self) -> Arrivals:
        """What can be read; an image that is still broken ends the clip, with a note."""
        last = self.poll(len(self._waiting()))
        waiting = self._waiting()
        if waiting:
            count = "it is" if len(waiting) == 1 else f"it and {len(waiting) - 1} later ones are"
            self._notes = (
                f"the image {waiting[min(waiting)].name} is broken or half written: {count} left "
                "out",
            )
        return last

    def close(self) -> None:
        """Nothing is held."""


class GrowingVideo:
    """A video that is decoded on a thread of its own, as far as it is written."""

    def __init__(self, path: Path) -> None:
        video.require_av(path)
        self._path = path
        self._file = _GrowingFile(path)
        self._frames = self._damaged = 0
        self._cut = False
        self._closed = threading.Event()
        # A frame with its time and whether it is damaged, and at the end None or the error.
        self._decoded: queue.Queue[tuple[UInt8Array, float | None, bool] | Exception | None]
        self._decoded = queue.Queue(_DECODED_AHEAD)
        self._thread = threading.Thread(target=self._decode, daemon=True)
        self._thread.start()

    def _decode(self) -> None:
        import av

        try:
            container: Any
            with av.open(self._file) as container:
                stream = video.picture_stream(container, self._path)
                for frame in container.decode(stream):
                    picture = frame.to_ndarray(format="rgb24")
                    if not self._hand_over((picture, frame.time, bool(frame.is_corrupt))):
                        return
        except Exception as error:  # raised again where the frames are fetched
            self._hand_over(error)
        else:
            self._hand_over(None)

    def _hand_over(self, item: tuple[UInt8Array, float | None, bool] | Exception | None) -> bool:
        while not self._closed.is_set():
            try:
                self._decoded.put(item, timeout=_WAIT_S)
            except queue.Full:
                continue
            return True
        return False

    @property
    def notes(self) -> tuple[str, ...]:
        """Whether pictures are damaged, or the end cannot be decoded."""
        found = []
        if self._damaged:
            found.append(f"{self._damaged} of {self._frames} video frames are damaged")
        if self._cut:
            found.append("the video cannot be decoded further: it is broken or cut off there")
        return tuple(found)

    def poll(self, most: int) -> Arrivals:
        """At most `most` frames that are decoded."""
        return self._fetch(most, wait=False)

    def finish(self) -> Arrivals:
        """What the decoder has held back."""
        self._file.ended.set()
        return self._fetch(math.inf, wait=True)

    def _fetch(self, most: float, *, wait: bool) -> Arrivals:
        pictures: list[UInt8Array] = []
        times: list[float] = []
        while len(pictures) < most and not self._closed.is_set():
            try:
                item = self._decoded.get(block=wait)
            except queue.Empty:
                break
            if isinstance(item, Exception):
                self._cut = self._stopped_by(item, after_frames=self._frames > 0)
            if item is None or isinstance(item, Exception):
                self._closed.set()
                break
            picture, time, is_damaged = item
            pictures.append(picture)
            times.extend(() if time is None else (time,))
            self._frames += 1
            self._damaged += is_damaged
        return Arrivals(pictures, times if len(times) == len(pictures) else None)

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._file.ended.set()
        self._thread.join()
        self._file.close()

    def _stopped_by(self, error: Exception, *, after_frames: bool) -> bool:
        """True where the frames before the error are a clip, else it is raised."""
        import av

        if not isinstance(error, av.error.FFmpegError):
            raise error
        if not after_frames:
            raise ValueError(
                f"{self._path} cannot be followed as a video ({error.strerror}): it is broken, or "
                "of a kind that can be read only when it is finished; record MPEG-TS, Matroska, "
                "AVI or fragmented MP4"
            )
        return True


class _GrowingFile:
    """A file for a decoder that reads it from start to end: at its end, read waits for more."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)  # its suffix helps to guess the format
        self.ended = threading.Event()
        self._file = path.open("rb")

    def read(self, size: int) -> bytes:
        while True:
            was_ended = self.ended.is_set()
            found = self._file.read(size)
            if found or was_ended:
                return found
            self.ended.wait(_WAIT_S)

    def close(self) -> None:
        self._file.close()
