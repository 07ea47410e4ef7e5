"""The phantom as files: each format read back by the readers, whole or not at all."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from asycmst.data import phantom_files
from asycmst.data.manifest import read_manifest
from asycmst.data.masks import read_masks
from asycmst.data.pairs import load_pair
from asycmst.data.phantom import PhantomConfig, make_phantom
from asycmst.data.phantom_files import FileFormat, write_phantom

CONFIG = PhantomConfig(frames=13, size=48)


@pytest.mark.parametrize(
    ("kind", "timed", "loss"),
    [("mp4", True, 4), ("dicom", True, 0), ("frames", False, 0), ("xjtu", False, 4)],
)
def test_what_is_written_is_the_phantom(
    tmp_path: Path, kind: FileFormat, timed: bool, loss: float
) -> None:
    out = tmp_path / "deep" / "out"
    masks = kind != "xjtu"
    write_phantom(out, 3, kind, CONFIG, seed=5, masks=masks)
    cases = sorted(
        read_manifest(out if kind == "xjtu" else out / "manifest.csv"), key=lambda c: c.id
    )
    assert [case.split for case in cases] == ["train", "train", "validation"]
    for index, case in enumerate(cases):
        sample = make_phantom(CONFIG, 5, index)
        assert case.label == sample.label
        pair = load_pair(case.bus, case.ceus, 13, 48)
        for clip, truth in ((pair.bus, sample.bus[..., None]), (pair.ceus, sample.ceus)):
            assert np.abs(clip.frames.astype(int) - truth).mean() <= loss
            assert (clip.times is not None) == timed
            if clip.times is not None:
                assert clip.times == pytest.approx(sample.times, abs=1e-3)
        if masks:
            assert case.mask is not None and case.patient == f"PHANTOM-{index:04d}"
            for number in (found := read_masks(case.mask)).frames:
                assert (found.at(number, 48, 48) == sample.mask[number]).all()
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_the_dicom_is_an_ultrasound_clip(tmp_path: Path) -> None:
    write_phantom(tmp_path / "o", 1, "dicom", CONFIG, seed=0)
    data = pydicom.dcmread(tmp_path / "o" / "bus" / "case0000.dcm")
    assert data.SOPClassUID == pydicom.uid.UltrasoundMultiFrameImageStorage
    assert data.file_meta.MediaStorageSOPInstanceUID == data.SOPInstanceUID
    assert (data.NumberOfFrames, float(data.FrameTime)) == (13, 4000)
    assert data.PatientID == "PHANTOM-0000" and "SYNTHETIC" in str(data.PatientName)
    ceus = pydicom.dcmread(tmp_path / "o" / "ceus" / "case0000.dcm")
    assert ceus.StudyInstanceUID == data.StudyInstanceUID
    assert ceus.SOPInstanceUID != data.SOPInstanceUID


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(phantom_files, "_write_manifest", fail)
    with pytest.raises(OSError, match="No space"):
        write_phantom(tmp_path / "o", 1, "frames", CONFIG, seed=0)
    assert not list(tmp_path.iterdir())


def test_what_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(ValueError, match="exists: give a new folder"):
        write_phantom(tmp_path, 1, "mp4", CONFIG, seed=0)
    with pytest.raises(ValueError, match="write at least 1"):
        write_phantom(tmp_path / "o", 0, "mp4", CONFIG, seed=0)
    with pytest.raises(ValueError, match="layout has no masks"):
        write_phantom(tmp_path / "o", 1, "xjtu", CONFIG, seed=0, masks=True)
