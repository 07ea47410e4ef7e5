"""A folder of results that fills at the end of a run or stays as it was."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MARKER = "metrics.json"
_STAGING = ".asycmst-running-"


@contextmanager
def staged_results(out: Path, command: str) -> Iterator[Path]:
    """Yield an empty folder; when the block succeeds its files move to `out`.

    On any exception, KeyboardInterrupt included, nothing in `out` has changed, and a folder that
    was made here is gone again. The block must write a metrics.json with `command` under the key
    "command", by which a later call knows that it may replace the results.

    Args:
        out: the folder for the results; made when missing.
        command: what wrote the results.

    Raises:
        ValueError: `out` is a file, or holds something that `command` did not write.
    """
    _check_replaceable(out, command)
    made = _make(out)
    try:
        staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=out))
        try:
            yield staging
            for file in sorted(staging.iterdir()):
                os.replace(file, out / file.name)
        finally:
            shutil.rmtree(staging)
    except BaseException:
        for folder in made:
            folder.rmdir()
        raise


def _check_replaceable(out: Path, command: str) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise ValueError(f"{out} is a file; give --out a folder")
    if all(entry.name.startswith(_STAGING) for entry in out.iterdir()):
        return
    marker = out / _MARKER
    if not marker.is_file() or not _is_of(marker, command):
        raise ValueError(
            f"{out} holds files that are not results of `{command}`; give --out a new folder"
        )


def _is_of(marker: Path, command: str) -> bool:
    try:
        content = json.loads(marker.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(content, dict) and content.get("command") == command


def _make(out: Path) -> list[Path]:
    """Make `out` and its missing parents; returns what was made, innermost first."""
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    out.mkdir(parents=True, exist_ok=True)
    return missing
