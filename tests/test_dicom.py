"""Multi-frame DICOM: colours, times, regions, privacy, broken files."""

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.examples
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless, UltrasoundMultiFrameImageStorage

from asycmst.data.clips import load_clip
from asycmst.data.dicom import open_dicom
from asycmst.data.sampling import Frames, evenly

REAL = Path(pydicom.examples.get_path("ybr_color"))


def read_dicom(path: Path, frames: int, size: int, view: str | None = None) -> Frames:
    return open_dicom(path, view).read(evenly(frames), size)


def write_dicom(path: Path, frames: np.ndarray, photometric: str = "RGB", **elements: Any) -> Path:
    """A multi-frame ultrasound file with frames (T, H, W[, 3]) as they are to be stored."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    meta.TransferSyntaxUID = elements.pop("syntax", ExplicitVRLittleEndian)
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = UltrasoundMultiFrameImageStorage, "1.2.3.4"
    dataset.PatientName, dataset.PatientID = "Doe^Jane", "SECRET-42"
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = frames.shape[:3]
    dataset.SamplesPerPixel = 3 if frames.ndim == 4 else 1
    if frames.ndim == 4:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric
    bits = 8 * frames.dtype.itemsize
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = 0
    dataset.PixelData = frames.tobytes()
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def region(left: int, top: int, right: int, bottom: int, kind: int = 1) -> Dataset:
    item = Dataset()
    item.RegionSpatialFormat = kind
    item.RegionLocationMinX0, item.RegionLocationMinY0 = left, top
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = right, bottom
    return item


def ramp(frames: int = 6, side: int = 16) -> np.ndarray:
    """Grey frames whose value is 40 times their number."""
    values = (40 * np.arange(frames, dtype=np.uint8))[:, None, None]
    return np.ascontiguousarray(np.broadcast_to(values, (frames, side, side)))


def test_the_real_clip() -> None:
    with pytest.warns(UserWarning, match="region beyond the 320 x 240 frame ignored") as given:
        clip = load_clip(REAL, 16, 224)
    assert len(given) == 1 and "\n" not in str(given[0].message)
    assert clip.frames.shape == (16, 224, 224, 3) and clip.frames.dtype == np.uint8
    assert clip.source_indices.tolist() == [29 * j // 15 for j in range(16)]
    assert clip.times == pytest.approx(clip.source_indices * 0.033333)
    assert clip.source == "examples_ybr_color.dcm"


def test_the_real_clip_comes_out_as_rgb() -> None:
    """Read as if it were RGB, the stored YBR would paint the black background green."""
    read = read_dicom(REAL, 4, 64)
    assert read.frames[:, :4, 20:40].max() <= 3, "the background is black"
    tissue = read.frames[:, 20:50, 20:44].astype(int)
    assert tissue.max() > 100
    colour = np.abs(tissue - tissue.mean(axis=-1, keepdims=True)).mean()
    assert colour < 3, "tissue in B-mode is grey"


def test_frames_are_the_ones_asked_for() -> None:
    single = read_dicom(REAL, 30, 32).frames
    sampled = read_dicom(REAL, 5, 32)
    assert (sampled.frames == single[sampled.indices]).all()
    assert len({frame.tobytes() for frame in single}) > 20, "the heart moves"


@pytest.mark.parametrize(
    ("photometric", "stored", "shown"),
    [
        ("RGB", (200, 30, 60), (200, 30, 60)),
        ("YBR_FULL", (76, 85, 255), (254, 0, 0)),
        ("MONOCHROME2", 70, (70, 70, 70)),
        ("MONOCHROME1", 70, (185, 185, 185)),
    ],
)
def test_colour_spaces(
    tmp_path: Path, photometric: str, stored: Any, shown: tuple[int, int, int]
) -> None:
    channels = () if isinstance(stored, int) else (3,)
    frames = np.empty((3, 8, 8, *channels), np.uint8)
    frames[...] = stored
    clip = load_clip(write_dicom(tmp_path / "a.dcm", frames, photometric), 3, 8)
    assert np.abs(clip.frames.astype(int) - np.array(shown)).max() <= 1


@pytest.mark.parametrize("depth", [8, 16])
def test_palette(tmp_path: Path, depth: int) -> None:
    kind, scale = (np.uint8, 1) if depth == 8 else (np.uint16, 257)
    red, green, blue = (np.zeros(256, kind) for _ in range(3))
    red[5], green[5], blue[5] = 250 * scale, 120 * scale, 10 * scale
    tables = {}
    for name, table in (("Red", red), ("Green", green), ("Blue", blue)):
        tables[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, depth]
        tables[f"{name}PaletteColorLookupTableData"] = table.tobytes()
    frames = np.full((2, 8, 8), 5, np.uint8)
    clip = load_clip(write_dicom(tmp_path / "a.dcm", frames, "PALETTE COLOR", **tables), 2, 8)
    assert (clip.frames == (250, 120, 10)).all()


@pytest.mark.parametrize(
    ("elements", "shown"),
    [
        pytest.param({}, 128, id="full range"),
        pytest.param({"WindowCenter": 32768, "WindowWidth": 16384}, 128, id="window's centre"),
        pytest.param({"WindowCenter": 1000, "WindowWidth": 500}, 255, id="above the window"),
    ],
)
def test_sixteen_bits(tmp_path: Path, elements: dict[str, Any], shown: int) -> None:
    frames = np.full((2, 8, 8), 32768, np.uint16)
    clip = load_clip(write_dicom(tmp_path / "a.dcm", frames, "MONOCHROME2", **elements), 2, 8)
    assert np.abs(clip.frames.astype(int) - shown).max() <= 1


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        pytest.param({"FrameTime": "500"}, [0, 0.5, 1, 1.5], id="FrameTime"),
        pytest.param({"FrameTimeVector": [0, 100, 300, 50]}, [0, 0.1, 0.4, 0.45], id="vector"),
        pytest.param(
            {
                "FrameTime": "500",
                "FrameTimeVector": [0, 1, 1, 1],
                "FrameIncrementPointer": 0x181063,
            },
            [0, 0.5, 1, 1.5],
            id="pointer to FrameTime",
        ),
        pytest.param(
            {
                "FrameTime": "500",
                "FrameTimeVector": [7, 1, 1, 1],
                "FrameIncrementPointer": 0x181065,
            },
            [0, 0.001, 0.002, 0.003],
            id="pointer to the vector",
        ),
        pytest.param({"CineRate": "4"}, [0, 0.25, 0.5, 0.75], id="CineRate"),
        pytest.param(
            {"FrameTimeVector": [0, 100], "CineRate": "4"},
            [0, 0.25, 0.5, 0.75],
            id="vector of another length",
        ),
        pytest.param({"FrameTime": "0"}, None, id="none"),
    ],
)
def test_frame_times(
    tmp_path: Path, elements: dict[str, Any], expected: list[float] | None
) -> None:
    path = write_dicom(tmp_path / "a.dcm", ramp(4), "MONOCHROME2", **elements)
    clip = load_clip(path, 4, 8)
    assert clip.times is None if expected is None else clip.times == pytest.approx(expected)


def quarters() -> np.ndarray:
    """Two frames of 20 x 40: grey 10, but 100 in the left and 200 in the right region."""
    frames = np.full((2, 20, 40), 10, np.uint8)
    frames[:, 4:16, 2:18] = 100
    frames[:, 4:16, 22:38] = 200
    return frames


LEFT, RIGHT = region(2, 4, 17, 15), region(22, 4, 37, 15)


@pytest.mark.parametrize(
    ("regions", "view", "shown"),
    [
        pytest.param([LEFT], None, {100}, id="one region is cut out"),
        pytest.param([RIGHT, LEFT], "left", {100}, id="left of two"),
        pytest.param([RIGHT, LEFT], "right", {200}, id="right of two"),
        pytest.param([LEFT, region(4, 6, 9, 9)], None, {100}, id="region within a region"),
        pytest.param([LEFT, LEFT], None, {100}, id="the same twice"),
        pytest.param([LEFT, region(22, 4, 37, 15, kind=2)], None, {100}, id="M-mode is no image"),
        pytest.param([region(6, 4, 37, 15)], "right", {200}, id="right half of one"),
        pytest.param([], "left", {10, 100}, id="left half of the frame"),
        pytest.param([], None, {10, 100, 200}, id="all of it"),
    ],
)
def test_regions(tmp_path: Path, regions: list[Dataset], view: Any, shown: set[int]) -> None:
    path = write_dicom(
        tmp_path / "a.dcm",
        quarters(),
        "MONOCHROME2",
        SequenceOfUltrasoundRegions=Sequence(regions),
    )
    read = read_dicom(path, 2, 120, view)
    values, counts = np.unique(read.frames, return_counts=True)
    assert set(values[counts > read.frames.size // 20].tolist()) == shown
    assert read.notes == ()


def test_a_region_is_cut_to_the_pixel(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 20, 40), dtype=np.uint8)
    square = Sequence([region(2, 4, 13, 15)])
    path = write_dicom(
        tmp_path / "a.dcm", frames, "MONOCHROME2", SequenceOfUltrasoundRegions=square
    )
    assert (read_dicom(path, 2, 12).frames == frames[:, 4:16, 2:14, None]).all()


def test_two_regions_and_no_choice_show_all_with_a_note(tmp_path: Path) -> None:
    path = write_dicom(
        tmp_path / "a.dcm",
        quarters(),
        "MONOCHROME2",
        SequenceOfUltrasoundRegions=Sequence([LEFT, RIGHT]),
    )
    with pytest.warns(UserWarning, match='2 image regions .* view="left"'):
        clip = load_clip(path, 2, 40)
    assert {10, 100, 200} <= set(np.unique(clip.frames).tolist())


def test_no_identifier_leaves_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not by a result, a warning, a log line or an error, broken tags included."""
    good = write_dicom(tmp_path / "a.dcm", ramp(), "MONOCHROME2", StudyInstanceUID="1.2.3.45.678")
    good.write_bytes(good.read_bytes().replace(b"1.2.3.45.678", b"SECRET-UID-1"))
    broken = tmp_path / "b.dcm"
    broken.write_bytes(good.read_bytes()[:-100])
    said = []
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        said.append(repr(load_clip(good, 4, 16)))
        with pytest.raises(ValueError, match="cannot be decoded") as error:
            load_clip(broken, 4, 16)
        said.append(str(error.value))
    said.extend(str(warning.message) for warning in given)
    said.extend((caplog.text, *capsys.readouterr()))
    for secret in ("Doe", "Jane", "SECRET"):
        assert not any(secret in text for text in said), secret


def test_identifiers_are_not_even_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []
    original = pydicom.dcmread

    def keep(*arguments: Any, **options: Any) -> Any:
        parsed.append(original(*arguments, **options))
        return parsed[-1]

    monkeypatch.setattr("pydicom.dcmread", keep)
    read_dicom(REAL, 4, 16)
    names = {element.keyword for dataset in parsed for element in dataset}
    assert "NumberOfFrames" in names
    assert not {name for name in names if "Patient" in name or "UID" in name or "Date" in name}


def test_a_single_image_is_no_clip(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", ramp(1), "MONOCHROME2")
    with pytest.raises(ValueError, match="single image: give a multi-frame DICOM"):
        load_clip(path, 4, 16)


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.8, 0.95, 0.999])
def test_a_file_cut_off_is_one_line(tmp_path: Path, kept: float) -> None:
    content = REAL.read_bytes()
    path = tmp_path / "cut.dcm"
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match="cut off") as error:
        load_clip(path, 16, 16)
    assert "\n" not in str(error.value)


def test_bytes_without_meaning_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "noise.dcm"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(ValueError, match="cannot be read as a DICOM image"):
        load_clip(path, 4, 16)


def test_signed_pixels(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", ramp(), "MONOCHROME2", PixelRepresentation=1)
    with pytest.raises(ValueError, match="signed"):
        load_clip(path, 4, 16)


def test_a_compression_without_decoder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = encapsulate([b"no JPEG-LS at all"] * 6)
    path = write_dicom(
        tmp_path / "a.dcm", ramp(), "MONOCHROME2", syntax=JPEGLSLossless, PixelData=stored
    )
    decoder = type("NoPlugin", (), {"is_available": False})()
    monkeypatch.setattr("pydicom.pixels.get_decoder", lambda syntax: decoder)
    with pytest.raises(ValueError, match=r"compressed as JPEG-LS .* no installed decoder"):
        load_clip(path, 4, 16)


def test_without_pydicom_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImportError, match=r'needs pydicom.*pip install "\.\[train\]"'):
        load_clip(REAL, 4, 16)


def test_a_dicom_needs_no_suffix(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "IM_0001", ramp(), "MONOCHROME2")
    assert load_clip(path, 6, 16).frames[:, 0, 0, 0].tolist() == [0, 40, 80, 120, 160, 200]
