"""Files in, probability out: content, plumbing checks, privacy, failures that leave nothing."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.examples
import pytest
import torch
from PIL import Image

from asycmst.analysis.predict import predict
from asycmst.config import AsyCMSTConfig
from asycmst.data.clips import clip_to_tensor, load_clip, open_clip
from asycmst.data.sampling import Frames, Opened
from asycmst.model import AsyCMST
from asycmst.training.checkpoint import save_checkpoint

REAL = Path(pydicom.examples.get_path("ybr_color"))


def write_checkpoint(folder: Path, meta: dict[str, Any] | None = None, **changes: Any) -> Path:
    torch.manual_seed(0)
    model = AsyCMST(replace(AsyCMSTConfig.demo(), **changes)).eval()
    save_checkpoint(folder / "model.ckpt", model, meta or {"trained_on": "clinical clips"})
    return folder / "model.ckpt"


def write_clip(folder: Path, name: str, frames: int = 11, seed: int = 0) -> Path:
    generator = np.random.default_rng(seed)
    np.save(folder / name, generator.integers(0, 256, (frames, 40, 50, 3), dtype=np.uint8))
    return folder / name


def test_the_numbers_are_the_model_s(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path)
    bus = write_clip(tmp_path, "b.npy")
    ceus = write_clip(tmp_path, "c.npy", seed=1)
    found = predict(checkpoint, bus, ceus)
    torch.manual_seed(0)
    model = AsyCMST(AsyCMSTConfig.demo()).eval()
    tensors = [clip_to_tensor(load_clip(path, 8, 64))[None] for path in (bus, ceus)]
    with torch.no_grad():
        output = model(*tensors)
    assert found.probability_malignant == pytest.approx(output.logits.softmax(1)[0, 1].item())
    assert found.frame_scores == pytest.approx(output.frame_scores[0].tolist())
    marked = output.mask_logits[0].sigmoid() > 0.5
    assert found.mask_area_fraction == pytest.approx(marked.double().mean(dim=(1, 2)).tolist())
    assert found.bus_frames == found.ceus_frames == [10 * j // 7 for j in range(8)]
    assert (found.bus_times_s, found.plumbing_check, found.warnings) == (None, False, [])
    assert found.trained_on == "clinical clips"


def test_what_is_written_is_what_is_returned(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path)
    out = tmp_path / "new" / "folder"
    bus, ceus = write_clip(tmp_path, "b.npy"), write_clip(tmp_path, "c.npy", seed=1)
    found = predict(checkpoint, bus, ceus, out)
    text = (out / "prediction.json").read_text()
    assert json.loads(text) == json.loads(found.to_json())
    assert json.loads(text)["probability_malignant"] == found.probability_malignant
    with Image.open(out / "attention.png") as image:
        assert image.format == "PNG"
    assert sorted(path.name for path in out.iterdir()) == ["attention.png", "prediction.json"]


def test_the_figure_shows_each_branch_what_it_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fig 9: with swapped modalities the lower branch's maps lie over the CEUS clip."""
    drawn: list[Any] = []

    def keep(path: Path, lower: Any, upper: Any, *_: Any, names: Any, **__: Any) -> None:
        drawn.append((lower, upper, names))
        Path(path).write_bytes(b"")

    monkeypatch.setattr("asycmst.analysis.predict.attention_figure", keep)
    bus, ceus = write_clip(tmp_path, "b.npy"), write_clip(tmp_path, "c.npy", seed=1)
    frames = {name: load_clip(path, 8, 64).frames for name, path in (("BUS", bus), ("CEUS", ceus))}
    for lower, upper in (("bus", "ceus"), ("ceus", "bus"), ("ceus", "ceus")):
        checkpoint = write_checkpoint(tmp_path, lower=lower, upper=upper)
        predict(checkpoint, bus, ceus, tmp_path / "out")
        *clips, names = drawn.pop()
        assert names == (lower.upper(), upper.upper())
        assert all(np.array_equal(x, frames[n]) for x, n in zip(clips, names, strict=True))


def test_a_model_of_oblong_frames_reads_clips_as_it_needs_them(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, image_size=(32, 48))
    bus, ceus = write_clip(tmp_path, "b.npy"), write_clip(tmp_path, "c.npy", seed=1)
    found = predict(checkpoint, bus, ceus, tmp_path / "out")
    assert 0 < found.probability_malignant < 1
    assert (tmp_path / "out" / "attention.png").is_file()


def test_a_real_dicom_as_both_clips_is_a_plumbing_check(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path)
    with pytest.warns(UserWarning, match="region beyond") as given:
        found = predict(checkpoint, REAL, REAL, tmp_path / "out")
    assert len(given) == 1, "one file, one line"
    assert found.plumbing_check
    assert found.warnings == [
        "BUS and CEUS are the same clip: a plumbing check, no diagnosis",
        "BUS and CEUS: an ultrasound region beyond the 320 x 240 frame ignored",
    ]
    assert found.bus_times_s == pytest.approx([0.033333 * frame for frame in found.bus_frames])
    dataset = pydicom.dcmread(REAL)
    text = (tmp_path / "out" / "prediction.json").read_text()
    for secret in (str(dataset.PatientName), dataset.StudyInstanceUID, dataset.StudyDate, "dcm"):
        assert secret not in text
    assert f'"{dataset.PatientID}"' not in text


@pytest.mark.parametrize(
    ("meta", "heading"),
    [
        ({"trained_on": "synthetic breast phantom"}, "Plumbing check, no diagnosis"),
        ({"trained_on": "clinical clips"}, "Probability of malignancy"),
    ],
    ids=["phantom", "clinical"],
)
def test_heading_of_the_figure(
    tmp_path: Path, meta: dict[str, Any], heading: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles = []

    def keep(path: Path, *_: object, title: str, **__: object) -> None:
        titles.append(title)
        Path(path).write_bytes(b"")

    monkeypatch.setattr("asycmst.analysis.predict.attention_figure", keep)
    bus, ceus = write_clip(tmp_path, "b.npy"), write_clip(tmp_path, "c.npy", seed=1)
    found = predict(write_checkpoint(tmp_path, meta), bus, ceus, tmp_path / "out")
    assert len(titles) == 1 and titles[0].startswith(heading)
    assert found.plumbing_check == heading.startswith("Plumbing")
    assert any("synthetic" in line for line in found.warnings) == found.plumbing_check


@pytest.mark.parametrize("has_masks", [False, True])
def test_a_decoder_that_never_saw_a_mask_is_not_asked(tmp_path: Path, has_masks: bool) -> None:
    checkpoint = write_checkpoint(tmp_path, {"trained_on": "clips", "has_masks": has_masks})
    bus, ceus = write_clip(tmp_path, "b.npy"), write_clip(tmp_path, "c.npy", seed=1)
    found = predict(checkpoint, bus, ceus)
    assert (found.mask_area_fraction is not None) == has_masks
    assert any("trained without masks" in line for line in found.warnings) == (not has_masks)


def test_a_copy_of_the_other_clip_is_a_plumbing_check(tmp_path: Path) -> None:
    bus = write_clip(tmp_path, "b.npy")
    (tmp_path / "copy.npy").write_bytes(bus.read_bytes())
    found = predict(write_checkpoint(tmp_path), bus, tmp_path / "copy.npy")
    assert found.plumbing_check and "the same clip" in found.warnings[0]


def test_two_views_of_one_file_are_a_pair(tmp_path: Path) -> None:
    both = write_clip(tmp_path, "both.npy")
    found = predict(write_checkpoint(tmp_path), both, both, bus_view="left", ceus_view="right")
    assert not found.plumbing_check and found.warnings == []
    halves = np.load(both)
    np.save(tmp_path / "left.npy", halves[:, :, :25])
    np.save(tmp_path / "right.npy", halves[:, :, 25:])
    apart = predict(tmp_path / "model.ckpt", tmp_path / "left.npy", tmp_path / "right.npy")
    assert found == apart


def test_a_short_clip_and_unequal_lengths_are_told(tmp_path: Path) -> None:
    ceus = write_clip(tmp_path, "c.npy", frames=3)
    with pytest.warns(UserWarning, match="region beyond"):
        found = predict(write_checkpoint(tmp_path), REAL, ceus)
    assert "CEUS: 3 frames are fewer than the model's 8, some are repeated" in found.warnings


def test_clips_of_different_length_in_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model sees what both clips cover, and the user is told."""

    def timed(path: Path, view: object) -> Opened:
        opened = open_clip(path)
        rate = 1.0 if Path(path).name == "b.npy" else 0.25
        source = opened.source._replace(times=np.arange(opened.source.frames) / rate)

        def read(choose: Any, size: Any) -> Frames:
            frames = opened.read(lambda n, _: choose(n, source.times), size)
            return frames._replace(times=source.times[frames.indices])

        return Opened(source, read)

    monkeypatch.setattr("asycmst.data.pairs.open_clip", timed)
    bus, ceus = write_clip(tmp_path, "b.npy"), write_clip(tmp_path, "c.npy", seed=1)
    found = predict(write_checkpoint(tmp_path), bus, ceus)
    assert found.bus_frames == [0, 1, 3, 4, 6, 7, 9, 10]
    assert found.ceus_times_s == [0, 0, 4, 4, 4, 8, 8, 8]
    assert found.warnings == [
        "CEUS: 3 frames are fewer than the model's 8, some are repeated",
        "BUS lasts 10.0 s and CEUS 40.0 s: the model takes clips of the same time",
    ]


def test_tasks_that_are_off_are_none(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, ceus_task=None, bus_task=None, cross_attention=None)
    bus, ceus = write_clip(tmp_path, "b.npy"), write_clip(tmp_path, "c.npy", seed=1)
    found = predict(checkpoint, bus, ceus, tmp_path / "out")
    assert found.frame_scores is None and found.mask_area_fraction is None
    assert (tmp_path / "out" / "attention.png").is_file()


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        ("checkpoint missing", FileNotFoundError),
        ("checkpoint broken", ValueError),
        ("bus missing", FileNotFoundError),
        ("ceus broken", ValueError),
        ("out is a file", ValueError),
        ("diverged", ValueError),
    ],
)
def test_bad_inputs_are_one_line_and_leave_nothing(
    tmp_path: Path, broken: str, error: type[Exception]
) -> None:
    checkpoint = write_checkpoint(tmp_path)
    bus, ceus = write_clip(tmp_path, "b.npy"), write_clip(tmp_path, "c.npy", seed=1)
    out = tmp_path / "out"
    if broken == "checkpoint missing":
        checkpoint.unlink()
    elif broken == "checkpoint broken":
        checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    elif broken == "bus missing":
        bus.unlink()
    elif broken == "ceus broken":
        ceus.write_bytes(ceus.read_bytes()[:500])
    elif broken == "out is a file":
        out.write_text("kept")
    else:
        model = AsyCMST(AsyCMSTConfig.demo())
        torch.nn.init.constant_(next(model.classifier.parameters()), float("nan"))
        save_checkpoint(checkpoint, model, {})
    with pytest.raises(error) as raised:
        predict(checkpoint, bus, ceus, out)
    assert "\n" not in str(raised.value)
    assert out.read_text() == "kept" if broken == "out is a file" else not out.exists()


def test_a_failing_figure_leaves_neither_file_nor_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", broken)
    checkpoint = write_checkpoint(tmp_path)
    bus, ceus = write_clip(tmp_path, "b.npy"), write_clip(tmp_path, "c.npy", seed=1)
    with pytest.raises(OSError, match="no space"):
        predict(checkpoint, bus, ceus, tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "prediction.json").write_text("older")
    with pytest.raises(OSError, match="no space"):
        predict(checkpoint, bus, ceus, kept)
    assert [path.name for path in kept.iterdir()] == ["prediction.json"]
    assert (kept / "prediction.json").read_text() == "older"
