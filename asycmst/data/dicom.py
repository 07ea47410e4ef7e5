"""Frames, frame times and image region of a multi-frame ultrasound DICOM file.

Only the tags named here are read. Names and identifiers of patients are never parsed, so they
cannot reach a message, a log or a result.
"""

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from asycmst.data.sampling import (
    Box,
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

SUFFIXES = (".dcm", ".dicom")

_HEADER_TAGS = [
    "SpecificCharacterSet",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
    "WindowCenter",
    "WindowWidth",
    "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData",
    "FrameIncrementPointer",
    "FrameTime",
    "FrameTimeVector",
    "CineRate",
    "RecommendedDisplayFrameRate",
    "SequenceOfUltrasoundRegions",
]
_FRAME_TIME_VECTOR = 0x00181065
_TWO_DIMENSIONAL = 1  # Region Spatial Format of B-mode and contrast images


def is_dicom(path: Path) -> bool:
    """Whether a file carries the DICOM mark; many exports have no suffix."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def open_dicom(path: Path, view: str | None = None) -> Opened:
    """Look at a multi-frame DICOM; reading it decodes the chosen frames only.

    Colours come out as RGB whatever the file stores (RGB, YBR_FULL, YBR_FULL_422, JPEG 2000's
    YBR, palettes); grey of more than 8 bits goes through the file's window, or its full range
    where it has none. Times come from the frame time vector, the frame time or the cine rate.

    A file that describes one two-dimensional image region is cropped to it, which leaves out
    scales and burned-in text; regions beyond the frame are ignored with a note.

    Args:
        path: a DICOM file.
        view: "left" or "right" of two side-by-side regions (or of the frame, where the file
            describes no two regions); None for the one region or the whole frame.

    Raises:
        ImportError: pydicom is not installed.
        ValueError: the file is broken, cut off, holds a single image, or is compressed in a way
            no installed decoder reads; reading raises it as well.
    """
    try:
        import pydicom
    except ImportError as error:
        raise ImportError(
            f'reading {path.name} needs pydicom, which is missing: pip install ".[train]"'
        ) from error
    with _silent():
        try:
            header = _header(pydicom.dcmread(path, True, specific_tags=_HEADER_TAGS))
        except Exception as error:  # pydicom meets broken headers with any kind of error
            raise ValueError(
                f"{path} cannot be read as a DICOM image: it is broken, cut off or holds no "
                "image; export it again"
            ) from error
        if header.frames < 2:
            raise ValueError(
                f"{path} is a DICOM with a single image: give a multi-frame DICOM (a clip), or a "
                "folder of images"
            )
        _check_decodable(path, header.dataset)
        box, choice_notes = _choose(header, view)
    source = Source(
        frames=header.frames,
        times=header.times,
        size=(header.rows, header.columns),
        box=box,
        notes=(*header.notes, *choice_notes),
    )
    return Opened(source, partial(_read, path, header, source))


def _read(
    path: Path, header: "_Header", source: Source, choose: Choose, size: FrameSize
) -> Frames:
    indices = choose(source.frames, source.times)
    wanted = np.unique(indices).tolist()
    with _silent():
        try:
            images = _images(path, header.dataset, wanted)
            kept = {
                index: fit_frame(image, size, source.box)
                for index, image in zip(wanted, images, strict=True)
            }
        except Exception as error:  # the decoders behind pydicom raise any kind of error
            raise ValueError(
                f"the pixels of {path} cannot be decoded: the file is broken, cut off or does not "
                f"hold its {header.frames} frames of {header.columns} x {header.rows}; export it "
                "again"
            ) from error
    return Frames(
        frames=np.stack([kept[int(index)] for index in indices]),
        indices=indices,
        times=None if source.times is None else source.times[indices],
        notes=source.notes,
    )


@contextmanager
def _silent() -> Iterator[None]:
    """pydicom's warnings and log quote odd tags and file names, identifiers included."""
    log = logging.getLogger("pydicom")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


class _Header(NamedTuple):
    """What the reader takes from a header, parsed once so that a broken one fails early."""

    dataset: Any
    frames: int
    rows: int
    columns: int
    regions: list[Box]
    notes: list[str]
    times: FloatArray | None


def _header(dataset: Any) -> _Header:
    frames = int(dataset.get("NumberOfFrames") or 1)
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    regions, notes = _regions(dataset, rows, columns)
    times = _frame_times(dataset, frames)
    return _Header(dataset, frames, rows, columns, regions, notes, times)


def _check_decodable(path: Path, header: Any) -> None:
    from pydicom.pixels import get_decoder

    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise ValueError(f"{path} states no transfer syntax: export it again")
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
        raise ValueError(
            f"{path} is compressed as {syntax.name}, which no installed decoder reads: "
            'pip install "pylibjpeg[all]", or export it uncompressed'
        )
    if header.get("PixelRepresentation", 0) != 0:
        raise ValueError(f"{path} holds signed pixel values: export it as 8-bit grey or RGB")


def _images(path: Path, header: Any, wanted: list[int]) -> Iterable[UInt8Array]:
    from pydicom.pixels import apply_color_lut, apply_windowing, iter_pixels

    photometric = str(header.get("PhotometricInterpretation", ""))
    bits = int(header.get("BitsStored", 8))
    for pixels in iter_pixels(path, indices=wanted):
        if photometric == "PALETTE COLOR":
            coloured = apply_color_lut(pixels, header)
            yield _to_bytes(coloured[..., :3], 8 * coloured.dtype.itemsize)
        elif bits > 8:
            windowed = "WindowWidth" in header and "WindowCenter" in header
            shown = apply_windowing(pixels, header) if windowed else pixels
            yield _inverted(_to_bytes(shown, bits), photometric)
        else:
            yield _inverted(_to_bytes(pixels, bits), photometric)


def _to_bytes(values: Any, bits: int) -> UInt8Array:
    if values.dtype == np.uint8 and bits == 8:
        return np.asarray(values, dtype=np.uint8)
    scaled = np.asarray(values, dtype=np.float64) * (255.0 / (2**bits - 1))
    return np.asarray(np.rint(scaled.clip(0, 255)), dtype=np.uint8)


def _inverted(values: UInt8Array, photometric: str) -> UInt8Array:
    # MONOCHROME1 stores white as 0.
    return np.asarray(255 - values, dtype=np.uint8) if photometric == "MONOCHROME1" else values


def _regions(header: Any, rows: int, columns: int) -> tuple[list[Box], list[str]]:
    """The two-dimensional image regions inside the frame, left to right."""
    boxes: list[Box] = []
    beyond = 0
    for region in header.get("SequenceOfUltrasoundRegions") or ():
        if region.get("RegionSpatialFormat") != _TWO_DIMENSIONAL:
            continue
        corners = [
            region.get(f"RegionLocation{name}") for name in ("MinX0", "MinY0", "MaxX1", "MaxY1")
        ]
        if any(corner is None for corner in corners):
            continue
        left, top, right, bottom = (int(corner) for corner in corners)
        # The lower right corner is the last pixel; some scanners write the one after it.
        box = Box(left, top, min(right + 1, columns), min(bottom + 1, rows))
        if not (0 <= left < right <= columns and 0 <= top < bottom <= rows):
            beyond += 1
        elif box not in boxes:
            boxes.append(box)
    outer = [box for box in boxes if not any(_inside(box, other) for other in boxes)]
    notes = []
    if beyond:
        what = "an ultrasound region" if beyond == 1 else f"{beyond} ultrasound regions"
        notes.append(f"{what} beyond the {columns} x {rows} frame ignored")
    return sorted(outer), notes


def _inside(box: Box, other: Box) -> bool:
    return (
        box != other
        and other.left <= box.left
        and other.top <= box.top
        and box.right <= other.right
        and box.bottom <= other.bottom
    )


def _choose(header: _Header, view: str | None) -> tuple[Box | None, list[str]]:
    regions = header.regions
    if view is not None:
        if len(regions) == 2:
            return regions[0 if view == "left" else 1], []
        whole = regions[0] if len(regions) == 1 else None
        return half(header.rows, header.columns, view, whole), []
    if len(regions) > 1:
        return None, [
            f'the DICOM holds {len(regions)} image regions and all of them are shown: view="left" '
            'or view="right" takes one'
        ]
    return (regions[0] if regions else None), []


def _frame_times(header: Any, frames: int) -> FloatArray | None:
    """Seconds after the first frame: the frame time vector, the frame time or a frame rate."""
    vector = header.get("FrameTimeVector")
    frame_time = float(header.get("FrameTime") or 0.0)
    if vector and (header.get("FrameIncrementPointer") == _FRAME_TIME_VECTOR or frame_time <= 0):
        steps = np.atleast_1d(np.asarray(vector, dtype=np.float64))
        if steps.shape == (frames,) and (steps >= 0).all():
            times = np.cumsum(steps) / 1000.0
            return np.asarray(times - times[0], dtype=np.float64)
    rate = float(header.get("CineRate") or header.get("RecommendedDisplayFrameRate") or 0.0)
    if frame_time > 0:
        return np.arange(frames, dtype=np.float64) * (frame_time / 1000.0)
    return np.arange(frames, dtype=np.float64) / rate if rate > 0 else None
