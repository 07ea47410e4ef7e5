"""Messages about a case name none of its files."""

from pathlib import Path

import pytest

from asycmst.data.manifest import Case
from asycmst.data.privacy import without_names


@pytest.mark.parametrize(
    ("raised", "text"),
    [
        (ValueError("{bus} is cut off;\n copy it"), "the BUS clip is cut off; copy it"),
        (ValueError("{ceus} is empty"), "the CEUS clip is empty"),
        (ValueError("{mask} is odd"), "the mask is odd"),
        (
            OSError(13, "Permission denied", "{ceus}"),
            "[Errno 13] Permission denied: the CEUS clip",
        ),
        (ValueError("{bus}/DOE_07.png is broken"), "image 07 of the BUS clip is broken"),
        (ValueError("{bus}/DOE.png has no number"), "an image of the BUS clip has no number"),
        (ValueError("1 of 1 masks match no frame"), "1 of 1 masks match no frame"),
        (ValueError(), "ValueError"),
    ],
)
def test_files_are_called_by_their_part(tmp_path: Path, raised: Exception, text: str) -> None:
    bus, ceus, mask = (tmp_path / f"DOE  O'Jane{end}" for end in ("", ".mp4", " masks"))
    bus.mkdir()
    for name in ("DOE_07.png", "DOE.png"):
        (bus / name).touch()
    case = Case("a", bus, ceus, 0, mask=mask)
    places = {"bus": str(bus), "ceus": str(ceus), "mask": str(mask)}
    raised.args = tuple(
        part.format(**places) if isinstance(part, str) else part for part in raised.args
    )
    if isinstance(raised, OSError):
        raised.filename = str(ceus)
    assert without_names(raised, case) == text


def test_one_file_that_is_both_clips(tmp_path: Path) -> None:
    both = tmp_path / "DOE.mp4"
    case = Case("a", both, both, 0, bus_view="left", ceus_view="right")
    assert without_names(ValueError(f"{both} is empty"), case) == "the clip is empty"
