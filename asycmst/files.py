"""Output files that appear whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path` and move it there when the block succeeds.

    The temporary name ends in the same suffix, because plotting libraries choose the format by it.
    On any exception, KeyboardInterrupt included, the temporary file is removed and whatever was
    at `path` before stays as it was.

    Raises:
        FileNotFoundError: the folder of `path` does not exist.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"cannot write {target}: folder {target.parent} does not exist; create it first"
        )
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.part{target.suffix}")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def replacing_together(
    folder: str | os.PathLike[str], names: Sequence[str]
) -> Iterator[dict[str, Path]]:
    """Yield a temporary path for each name, and move all to `folder` when the block succeeds.

    What the block did not write is removed from `folder`, so that what lies there under these
    names belongs together. On any exception nothing in `folder` has changed, and folders that
    were made here are gone again.

    Raises:
        ValueError: `folder` is a file.
    """
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is a file: give a folder for {', '.join(names)}")
    missing = [place for place in (target, *target.parents) if not place.exists()]
    target.mkdir(parents=True, exist_ok=True)
    try:
        staging = Path(tempfile.mkdtemp(prefix=".asycmst-", dir=target))
        try:
            yield {name: staging / name for name in names}
            for name in names:
                if (staging / name).exists():
                    os.replace(staging / name, target / name)
                else:
                    (target / name).unlink(missing_ok=True)
        finally:
            shutil.rmtree(staging)
    except BaseException:
        for place in missing:
            place.rmdir()
        raise
