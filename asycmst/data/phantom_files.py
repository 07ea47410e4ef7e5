"""The phantom as files, so that the way from clips to results can be walked without any data."""

import csv
import os
import shutil
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asycmst.data.phantom import PhantomConfig, PhantomSample, make_phantom

FileFormat = Literal["mp4", "dicom", "frames", "xjtu"]

_CLASS_FOLDERS = ("0.ben", "1.mal")
_SPLITS = (("train", "train_1.csv"), ("validation", "valid_1.csv"), ("test", "test_1.csv"))
_UID_ROOT = "1.2.826.0.1.3680043.8.498."  # pydicom's, free to use
_JPEG_QUALITY = 95
_FEMALE = {"breast": 0.99, "thyroid": 0.79}
_SYNTHETIC = (
    "No patient: the clips of this folder were computed, their ages and sexes drawn at random.\n"
)


class _Row(NamedTuple):
    id: str
    bus: str
    ceus: str
    label: int
    patient: str
    split: str
    mask: str
    age: int | None = None
    sex: str | None = None


def write_phantom(
    folder: str | os.PathLike[str],
    cases: int,
    kind: FileFormat,
    config: PhantomConfig,
    *,
    seed: int,
    masks: bool = False,
    demographics: bool = False,
    report: Callable[[int], None] = lambda done: None,
) -> None:
    """Write phantom patients as paired clips with a manifest; all of it or nothing.

    Of ten cases five are for training, two for validation and three for testing (`split`). Every
    case is a patient of its own.

    Args:
        folder: made here; must not exist, or be empty.
        cases: how many, at least 1.
        kind: "mp4" (H.264) and "dicom" (uncompressed multi-frame ultrasound) keep the times of the
            frames; "frames" are folders of PNG; "xjtu" is the layout of the paper's released
            data: folders of JPEG, and a CSV per split in place of the manifest.
        config: the physics, and frames, size and duration of the clips.
        seed: of all cases.
        masks: also write the nodule of ten or so BUS frames as PNG; not in the layout "xjtu",
            which has no place for masks.
        demographics: also write an age and a sex of every patient, drawn apart from everything
            else, and a file that says so; not in the layout "xjtu".
        report: called with the number of cases written.

    Raises:
        ValueError: an argument is out of range, or the folder holds something.
        ImportError: PyAV, pydicom or pillow is missing.
        OSError: the folder cannot be written.
    """
    if cases < 1:
        raise ValueError(f"{cases} cases: write at least 1")
    if masks and kind == "xjtu":
        raise ValueError("the released data's layout has no masks: leave them out or use frames")
    if demographics and kind == "xjtu":
        raise ValueError("the released data's layout has no age and no sex: use frames")
    out = Path(folder)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists: give a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        rows = []
        for index in range(cases):
            sample = make_phantom(config, seed, index)
            age, sex = age_and_sex(config, seed, index)
            row = _write_case(staging, f"case{index:04d}", index, sample, kind, masks)
            rows.append(row._replace(age=age, sex=sex))
            report(index + 1)
        if kind == "xjtu":
            _write_released(staging, rows)
        else:
            _write_manifest(staging, rows, masks, demographics)
        if out.exists():
            out.rmdir()
        staging.chmod(0o755)
        staging.rename(out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write_case(
    folder: Path, name: str, index: int, sample: PhantomSample, kind: FileFormat, masks: bool
) -> _Row:
    bus = np.broadcast_to(sample.bus[..., None], sample.ceus.shape)
    patient = f"PHANTOM-{index:04d}"
    files = {}
    for modality, clip in (("bus", bus), ("ceus", sample.ceus)):
        if kind == "xjtu":
            place = Path("images", _CLASS_FOLDERS[sample.label], modality, f"{name}_{modality}vid")
            _write_images(folder / place, clip, "jpg")
            files[modality] = f"{place.name}.mp4"
            continue
        suffix = {"mp4": ".mp4", "dicom": ".dcm", "frames": ""}[kind]
        place = Path(modality, f"{name}{suffix}")
        (folder / modality).mkdir(exist_ok=True)
        if kind == "mp4":
            _write_video(folder / place, clip, sample.times)
        elif kind == "dicom":
            _write_dicom(folder / place, clip, sample.times, patient, f"{index}.{len(files)}")
        else:
            _write_images(folder / place, clip, "png")
        files[modality] = place.as_posix()
    mask = ""
    if masks:
        mask = f"masks/{name}"
        _write_masks(folder / mask, sample.mask)
    part = 0 if index % 10 in (0, 1, 4, 5, 8) else 1 if index % 10 in (2, 6) else 2
    split = _SPLITS[part][0]
    return _Row(name, files["bus"], files["ceus"], sample.label, patient, split, mask)


def _write_video(path: Path, clip: NDArray[np.uint8], times: NDArray[np.float32]) -> None:
    import av

    clock = Fraction(1, 1000)
    with av.open(str(path), "w") as container:
        rate = Fraction(len(times) - 1, round(float(times[-1]) * 1000)) * 1000
        stream = container.add_stream("libx264", rate=rate.limit_denominator(10_000))
        stream.height, stream.width = clip.shape[1:3]
        # Full colour resolution and hardly any loss: the amber of CEUS is what is measured.
        stream.pix_fmt = "yuv444p"
        stream.options = {"crf": "10", "preset": "fast"}
        stream.codec_context.time_base = clock
        for picture, time in zip(clip, times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = round(float(time) * 1000), clock
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _write_dicom(
    path: Path, clip: NDArray[np.uint8], times: NDArray[np.float32], patient: str, number: str
) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(_UID_ROOT, [patient, number, "instance"])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data: Any = Dataset()
    data.file_meta = meta
    data.SOPClassUID = meta.MediaStorageSOPClassUID
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID = generate_uid(_UID_ROOT, [patient, "study"])
    data.SeriesInstanceUID = generate_uid(_UID_ROOT, [patient, number, "series"])
    data.Modality = "US"
    data.PatientName, data.PatientID = f"{patient}^SYNTHETIC", patient
    data.PatientBirthDate = data.PatientSex = data.StudyDate = data.StudyTime = ""
    data.AccessionNumber = data.ReferringPhysicianName = data.StudyID = ""
    data.SeriesNumber = data.InstanceNumber = 1
    data.ImageType = ["DERIVED", "SECONDARY"]
    data.NumberOfFrames, data.Rows, data.Columns = clip.shape[:3]
    data.FrameTime = f"{1000 * float(times[-1]) / (len(times) - 1):.6f}"
    data.FrameIncrementPointer = 0x00181063  # Frame Time
    data.SamplesPerPixel, data.PlanarConfiguration = 3, 0
    data.PhotometricInterpretation = "RGB"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    pixels = np.ascontiguousarray(clip).tobytes()
    data.PixelData = pixels + b"\0" * (len(pixels) % 2)
    data["PixelData"].VR = "OB"
    data.save_as(path, enforce_file_format=True)


def _write_images(folder: Path, clip: NDArray[np.uint8], suffix: str) -> None:
    from PIL import Image

    folder.mkdir(parents=True)
    for number, picture in enumerate(clip):
        image = Image.fromarray(np.ascontiguousarray(picture))
        image.save(folder / f"{number:05d}.{suffix}", quality=_JPEG_QUALITY, subsampling=0)


def _write_masks(folder: Path, mask: NDArray[np.bool_]) -> None:
    from PIL import Image

    folder.mkdir(parents=True)
    for number in range(0, len(mask), max(1, len(mask) // 10)):
        Image.fromarray(mask[number].astype(np.uint8) * 255).save(folder / f"{number:05d}.png")


def age_and_sex(config: PhantomConfig, seed: int, index: int) -> tuple[int, str]:
    """Independent of the class and of the images, and much like the ranges of Table 1."""
    draws = np.random.default_rng(np.random.SeedSequence([seed, index], spawn_key=(100,)))
    age = int(np.clip(draws.normal(47, 13), 10, 88))
    return age, "F" if draws.random() < _FEMALE[config.domain] else "M"


def _write_manifest(folder: Path, rows: list[_Row], masks: bool, demographics: bool) -> None:
    left_out = ("mask",) * (not masks) + ("age", "sex") * (not demographics)
    columns = tuple(name for name in _Row._fields if name not in left_out)
    cells = [[getattr(row, name) for name in columns] for row in rows]
    _write_csv(folder / "manifest.csv", columns, cells)
    if demographics:
        (folder / "SYNTHETIC.txt").write_text(_SYNTHETIC, encoding="utf-8")


def _write_released(folder: Path, rows: list[_Row]) -> None:
    for split, name in _SPLITS:
        part = [(row.id, row.bus, row.ceus, row.label) for row in rows if row.split == split]
        _write_csv(folder / name, ("id", "bus_vid", "ceus_vid", "label"), part)


def _write_csv(path: Path, columns: tuple[str, ...], rows: list[Any]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
