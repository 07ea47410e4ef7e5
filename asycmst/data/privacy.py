"""Messages about a case that name the case and none of its files.

File names often are patients' names. A message says "the BUS clip" instead. It relies on readers
to write whole paths into their messages, never a bare name.
"""

import re
from pathlib import Path

from asycmst.data.manifest import Case


def without_names(error: BaseException, case: Case) -> str:
    """The text of an error about a case's sources, in one line, with no file name in it."""
    sources = [(case.bus, "the BUS clip"), (case.ceus, "the CEUS clip")]
    if case.bus == case.ceus:  # side by side
        sources = [(case.bus, "the clip")]
    if case.mask is not None:
        sources.append((case.mask, "the mask"))
    places = dict(sources)
    for path, role in sources:
        for inner in _inner(path):
            numbers = re.findall(r"\d+", inner.stem)
            places[inner] = f"image {numbers[-1]} of {role}" if numbers else f"an image of {role}"
    text = str(error)
    # The longest first: a path may be the beginning of another.
    for path in sorted(places, key=lambda path: -len(str(path))):
        for spelling in (repr(str(path)), str(path)):  # the first is how OSError quotes
            text = text.replace(spelling, places[path])
    return " ".join(text.split()) or type(error).__name__


def _inner(path: Path) -> list[Path]:
    return list(path.iterdir()) if path.is_dir() else []
