"""Messages about a case that name the case and none of its files.

File names often are patients' names. A message says "the BUS clip" instead.
"""

import re
from pathlib import Path

from asycmst.data.manifest import Case


def without_names(error: BaseException, case: Case) -> str:
    """The text of an error about a case's sources, in one line, with no file name in it."""
    text = " ".join(str(error).split()) or type(error).__name__
    # One file may be both clips, side by side.
    same = case.bus == case.ceus
    sources = [(case.bus, "the clip" if same else "the BUS clip"), (case.ceus, "the CEUS clip")]
    if case.mask is not None:
        sources.append((case.mask, "the mask"))
    for path, role in sources:
        for inner in sorted(_inner(path), key=lambda inner: -len(inner.name)):
            numbers = re.findall(r"\d+", inner.stem)
            place = f"image {numbers[-1]} of {role}" if numbers else f"an image of {role}"
            text = _replace(text, inner, place)
        text = _replace(text, path, role)
    return text


def _replace(text: str, path: Path, role: str) -> str:
    text = text.replace(str(path), role)
    # As a word of its own: a file may be called "1" or "a".
    return re.sub(rf"(?<!\w){re.escape(path.name)}(?!\w)", lambda _: role, text)


def _inner(path: Path) -> list[Path]:
    return list(path.iterdir()) if path.is_dir() else []
