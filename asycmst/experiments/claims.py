"""Who works on what, when several processes or machines share a folder.

A claim is a file that only one process can create. Claims of a folder are numbered: the highest
number holds. Its process touches the file now and then; when it has not done so for a while, or
is known to have died, the next number is free to take. A process that finds a number above its
own has been given up, and stops.
"""

import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_PREFIX = ".claim-"
HEARTBEAT_S = 15.0
STALE_S = 180.0


class Claim:
    """The right to work on a folder, kept by touching its file until it is released.

    Args:
        file: created by this process.
        heartbeat: seconds between two touches.
    """

    def __init__(self, file: Path, heartbeat: float) -> None:
        self._file = file
        self._next = _numbered(file.parent, _number(file) + 1)
        self._heartbeat = heartbeat
        self._end = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    @property
    def is_lost(self) -> bool:
        """Whether another process took over; then nothing more may be written."""
        return self._lost or self._next.exists()

    def release(self) -> None:
        """Let go; the work may be unfinished."""
        self._end.set()
        self._thread.join()
        if not self.is_lost:
            with suppress(FileNotFoundError):
                _rewrite(self._file, {"released": True})

    def _keep(self) -> None:
        while not self._end.wait(self._heartbeat):
            try:
                os.utime(self._file)
            except OSError:
                # A folder that is gone is nobody's; a file system in trouble shows in the run.
                self._lost = not self._file.parent.exists()
            if self.is_lost:
                return


class Claims:
    """The claims of others as this process sees them: it remembers when one last moved.

    Clocks of different machines are not compared.

    Args:
        heartbeat: seconds between two touches of a claim.
        stale: seconds without a touch, watched from here, after which a claim is void.
    """

    def __init__(self, heartbeat: float = HEARTBEAT_S, stale: float = STALE_S) -> None:
        self._heartbeat = heartbeat
        self._stale = stale
        self._seen: dict[Path, tuple[int, float]] = {}

    @contextmanager
    def holding(self, folder: Path) -> Iterator[Claim | None]:
        """Claim a folder for the block; None where another process holds it.

        Args:
            folder: made when missing.
        """
        folder.mkdir(parents=True, exist_ok=True)
        claim = self._take(folder)
        try:
            yield claim
        finally:
            if claim is not None:
                claim.release()

    def _take(self, folder: Path) -> Claim | None:
        latest = max(map(_number, folder.glob(f"{_PREFIX}*[0-9]")), default=0)
        if latest and self._is_held(_numbered(folder, latest)):
            return None
        file = _numbered(folder, latest + 1)
        try:
            handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return None
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump({"machine": _machine(), "pid": os.getpid()}, stream)
        return Claim(file, self._heartbeat)

    def _is_held(self, file: Path) -> bool:
        try:
            with file.open(encoding="utf-8") as stream:  # opening asks a server for the latest
                moved = os.fstat(stream.fileno()).st_mtime_ns
                holder = _parsed(stream.read())
        except FileNotFoundError:
            return True  # just replaced; look again later
        if holder.get("released"):
            return False
        if holder.get("machine") == _machine() and not _is_alive(holder["pid"]):
            return False
        now = time.monotonic()
        seen, since = self._seen.get(file, (None, now))
        if moved != seen:
            since = now
        self._seen[file] = moved, since
        return now - since < self._stale


def _numbered(folder: Path, number: int) -> Path:
    return folder / f"{_PREFIX}{number}"


def _number(file: Path) -> int:
    return int(file.name.removeprefix(_PREFIX))


def _parsed(text: str) -> dict[str, Any]:
    """Empty for a claim whose process has not got round to signing it."""
    try:
        content = json.loads(text)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _rewrite(file: Path, content: dict[str, Any]) -> None:
    with file.open("r+", encoding="utf-8") as stream:
        stream.write(json.dumps(content))
        stream.truncate()


def _machine() -> str:
    """Names what process numbers are numbers of; a container has its own."""
    words = [platform.node()]
    with suppress(OSError):
        words.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        words.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(words)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
