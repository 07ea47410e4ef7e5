"""A case in, pictures, video and numbers out: what was planted, what is not defined, failures."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.examples
import pytest
import torch
from PIL import Image
from planted import plant_attention, plant_brightness, spots

from asycmst.analysis import explain as room
from asycmst.analysis.explain import FILES, explain, explain_cached, numbers
from asycmst.analysis.gradcam import gradcam_plus_plus
from asycmst.analysis.insight import look_inside
from asycmst.config import AsyCMSTConfig
from asycmst.data.phantom import PhantomConfig
from asycmst.data.samples import PhantomDataset
from asycmst.model import AsyCMST
from asycmst.training.checkpoint import save_checkpoint

SMALL = {"frames": 3, "image_size": 32}  # quick to draw


def write_checkpoint(folder: Path, meta: dict[str, Any] | None = None, **changes: Any) -> Path:
    torch.manual_seed(0)
    model = AsyCMST(replace(AsyCMSTConfig.demo(), **(SMALL | changes))).eval()
    save_checkpoint(folder / "model.ckpt", model, meta or {"trained_on": "clinical clips"})
    return folder / "model.ckpt"


def write_clips(folder: Path) -> tuple[Path, Path]:
    generator = np.random.default_rng(0)
    for name in ("b.npy", "c.npy"):
        np.save(folder / name, generator.integers(0, 256, (7, 40, 50, 3), dtype=np.uint8))
    return folder / "b.npy", folder / "c.npy"


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No pictures: the titles they would have had."""
    titles: list[str] = []
    for name in ("explanation_plate", "tic_figure", "attention_plate", "write_overlay"):
        monkeypatch.setattr(room, name, lambda *given: titles.append(given[-1]))
    return titles


def test_everything_planted_is_in_the_numbers() -> None:
    """Brightness draws the relevance, the lesion's places look at frame 5, CEUS at place 6."""
    model = AsyCMST(AsyCMSTConfig.demo()).eval()
    plant_brightness(model)
    frame_of_place = [0] * 16
    frame_of_place[6] = 5
    plant_attention(model, frame_of_place, [6] * 8)
    given = np.zeros((8, 64, 64), bool)
    given[:, 16:32, 32:48] = True  # place 6: row 1, column 2
    found = numbers(look_inside(model, {}, spots(seconds=14.0), given))
    assert found == json.loads(json.dumps(found, allow_nan=False)), "plain types"
    (when,), (where,) = found["attention"]["when"], found["attention"]["where"]
    assert (when["asks"], when["reads"], when["clip_read"]) == ("lower", "upper", "ceus")
    assert when["time_unit"] == "s" and found["attention"]["uniform_over_time"] == 1 / 8
    for rows in ("mean", "layer 1", "layer 2"):
        assert when[rows]["weights"] == pytest.approx([0, 0, 0, 0, 0, 1, 0, 0])
        assert when[rows]["largest_at"] == when[rows]["mean_time"] == pytest.approx(10.0)
        assert where[rows]["share_on_lesion"] == pytest.approx(1.0)
        assert np.shape(where[rows]["weights"]) == (8, 4, 4)
        assert [frame[1][2] for frame in where[rows]["weights"]] == pytest.approx([1] * 8)
    assert where["share_if_uniform"] == pytest.approx(1 / 16)
    bus, ceus = found["relevance"]
    assert (bus["clip"], ceus["clip"]) == ("bus", "ceus")
    assert bus["share_by_frame"] == pytest.approx([0, 0, 0, 1, 0, 0, 0, 0])
    assert ceus["share_by_frame"] == pytest.approx([0, 0, 0, 0, 0, 0, 1, 0])
    assert bus["share_on_lesion"] > 0.4 and ceus["share_on_lesion"] == 0
    lesion = found["lesion"]
    assert lesion["source"] == "given" and lesion["area_fraction"] == [1 / 16] * 8
    assert (lesion["centre_x_fraction"], lesion["centre_y_fraction"]) == (40 / 64, 24 / 64)


def test_relevance_lies_where_the_light_is() -> None:
    model = AsyCMST(AsyCMSTConfig.demo()).eval()
    plant_brightness(model)
    cam = gradcam_plus_plus(model, *spots().tensors())
    for maps, frame, y, x in ((cam.bus[0], 3, 24, 40), (cam.ceus[0], 6, 40, 8)):
        brightest = torch.nonzero(maps >= 0.9 * maps.max())
        assert set(brightest[:, 0].tolist()) == {frame}
        centre = brightest[:, 1:].double().mean(0)
        assert centre[0] == pytest.approx(y - 0.5, abs=1), centre
        assert abs(centre[1] - (x - 0.5)) <= (1 if x > 16 else 4), "at the rim it spreads outwards"


def test_the_curve_of_a_planted_bolus() -> None:
    """A gamma variate of 40 s in the lesion, half as bright in the tissue around it."""
    times = np.linspace(0, 40, 8)
    since = np.clip((times - 4) / 12, 0, None)  # arrives at 4 s, peaks at 16 s
    bolus = since**1.5 * np.exp(1.5 * (1 - since))
    case = spots(seconds=40.0)
    ceus = case.ceus.frames
    ceus[:] = (100 * bolus).astype(np.uint8)[:, None, None, None]
    given = np.zeros((8, 64, 64), bool)
    given[:, 20:40, 20:40] = True
    ceus[given] = np.repeat((200 * bolus).astype(np.uint8), 400)[:, None]
    found = look_inside(AsyCMST(AsyCMSTConfig.demo()).eval(), {}, case, given)
    lesion, ring = found.curves
    assert lesion.values == pytest.approx(200 / 255 * bolus, abs=1 / 255)
    assert ring.values == pytest.approx(100 / 255 * bolus, abs=1 / 255)
    for curve in (lesion, ring):
        assert curve.parameters.peak_time == pytest.approx(16, abs=1.5)


def test_files_and_numbers_agree(tmp_path: Path) -> None:
    bus, ceus = write_clips(tmp_path)
    out = tmp_path / "new" / "folder"
    found = explain(write_checkpoint(tmp_path), bus, ceus, out, layer=2)
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    text = (out / "explanation.json").read_text()
    assert json.loads(text) == json.loads(json.dumps(numbers(found)))
    assert "no diagnosis" in json.loads(text)["notice"]
    assert json.loads(text)["heading"].startswith("Probability of malignancy")
    assert json.loads(text)["curves"]["time_unit"] == "frames"
    assert json.loads(text)["curves"]["times"] == [0, 3, 6], "counted as in the file"
    for name in ("explanation.png", "tic.png", "attention.png"):
        with Image.open(out / name) as image:
            assert image.format == "PNG" and min(image.size) > 400


@pytest.mark.parametrize(
    ("changes", "notes"),
    [
        (
            {"bus_task": None, "ceus_task": None, "cross_attention": None},
            ["the model has no segmentation: the region of highest", "no cross-attention"],
        ),
        ({"cross_attention": "global", "lower": "ceus", "upper": "bus"}, ["one softmax"]),
        ({"cross_attention": "spatial", "lower": "ceus"}, []),
        (
            {"cross_attention": "temporal", "heads": 3, "upper": "bus", "frames": 1}
            | {"image_size": (32, 48), "acmst_layers": (2,)},
            ["no branch of the model sees CEUS"],
        ),
        (
            {"ceus_task": None, "bus_task": None, "emulate_layout": True, "update": "sequential"},
            ["the centre of the frame", "mixes frames and places", "no Grad-CAM++"],
        ),
    ],
    ids=["nothing on", "global swapped", "spatial CEUS", "temporal BUS, oblong", "layout"],
)
def test_every_kind_of_model(tmp_path: Path, changes: dict[str, Any], notes: list[str]) -> None:
    bus, ceus = write_clips(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "attention.png").write_bytes(b"of another model")
    (tmp_path / "out" / "mine.txt").write_text("kept")
    found = explain(write_checkpoint(tmp_path, **changes), bus, ceus, tmp_path / "out")
    said = " ".join(found.notes)
    assert all(words in said for words in notes), said
    written = {path.name for path in (tmp_path / "out").iterdir()}
    old = set() if found.attention else {"attention.png"}
    assert written == {"mine.txt", *FILES} - old, "nothing of an earlier look stays"
    json.loads((tmp_path / "out" / "explanation.json").read_text())


def test_branches_that_see_the_same_are_told_apart(tmp_path: Path) -> None:
    case = spots()
    model = AsyCMST(replace(AsyCMSTConfig.demo(), lower="ceus")).eval()
    found = look_inside(model, {}, case)
    assert found.name("lower") == "CEUS (lower branch)"
    assert found.clip("lower") is found.clip("upper") is case.ceus


@pytest.mark.usefixtures("undrawn")
def test_a_real_dicom_as_both_clips_is_a_plumbing_check(tmp_path: Path) -> None:
    real = pydicom.examples.get_path("ybr_color")
    with pytest.warns(UserWarning, match="region beyond"):
        found = explain(write_checkpoint(tmp_path), real, real, tmp_path / "out")
    text = (tmp_path / "out" / "explanation.json").read_text()
    assert json.loads(text)["heading"] == "Plumbing check, no diagnosis"
    assert json.loads(text)["curves"]["time_unit"] == "s"
    assert found.prediction.plumbing_check
    dataset = pydicom.dcmread(real)
    for secret in (str(dataset.PatientName), dataset.StudyInstanceUID, "ybr", "dcm"):
        assert secret not in text


def test_synthetic_training_heads_everything(tmp_path: Path, undrawn: list[str]) -> None:
    checkpoint = write_checkpoint(tmp_path, {"trained_on": "synthetic breast phantom"})
    explain(checkpoint, *write_clips(tmp_path), tmp_path / "out")
    assert undrawn == ["Plumbing check, no diagnosis"] * 4


@pytest.mark.usefixtures("undrawn")
def test_a_case_of_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a stand-in with the signature of `asycmst.data.cached`."""
    config = PhantomConfig(frames=3, size=32)

    class CachedDataset(PhantomDataset):
        def __init__(self, folder: Path, ids: list[str]) -> None:
            assert (folder, ids) == (tmp_path / "cache", ["p7"])
            super().__init__(config, 1, 1)

        def times(self, index: int) -> tuple[list[float] | None, list[float] | None]:
            return None, self.sample(index).times.tolist()

    monkeypatch.setattr("asycmst.analysis.case_clips.CachedDataset", CachedDataset)
    checkpoint = write_checkpoint(tmp_path, bus_task=None)
    found = explain_cached(checkpoint, tmp_path / "cache", "p7", tmp_path / "out")
    sample = PhantomDataset(config, 1, 1).sample(0)
    assert np.array_equal(found.clips.ceus.frames, sample.ceus)
    assert np.array_equal(found.clips.bus.frames[..., 2], sample.bus)
    assert found.clips.bus.times is None
    assert found.clips.ceus.times.tolist() == sample.times.tolist()
    assert found.lesion.source == "annotated"
    assert np.array_equal(found.lesion.mask, sample.mask)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["explanation.json"]
    larger = write_checkpoint(tmp_path, frames=8, image_size=64)
    with pytest.raises(ValueError, match="holds 3 frames of 32 x 32, the model takes 8 frames"):
        explain_cached(larger, tmp_path / "cache", "p7", tmp_path / "other")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("kind", ["folder", "contours"])
def test_masks_as_a_manifest_names_them(tmp_path: Path, kind: str) -> None:
    """Frame 4 of 7 is annotated: it is sampled in place of frame 3, and serves all frames."""
    bus, ceus = write_clips(tmp_path)
    if kind == "folder":
        marks = tmp_path / "masks"
        marks.mkdir()
        pixels = np.zeros((40, 50), np.uint8)
        pixels[10:20, 25:50] = 255
        Image.fromarray(pixels).save(marks / "00004.png")
    else:
        marks = tmp_path / "masks.json"
        corners = [[25, 10], [50, 10], [50, 20], [25, 20]]
        marks.write_text(json.dumps({"size": [50, 40], "frames": {"4": [corners]}}))
    checkpoint = write_checkpoint(tmp_path)
    found = explain(checkpoint, bus, ceus, tmp_path / "out", mask=marks)
    expected = np.zeros((3, 32, 32), bool)
    expected[:, 8:16, 16:] = True
    assert found.clips.bus.source_indices.tolist() == [0, 4, 6]
    assert found.lesion.source == "given"
    assert np.array_equal(found.lesion.mask, expected)
    with pytest.raises(ValueError, match="counts the frames of the source"):
        explain_cached(checkpoint, tmp_path / "cache", "p7", tmp_path / "other", mask=marks)


@pytest.mark.parametrize(
    ("changes", "layer", "words"),
    [
        ({}, 3, r"layer 3 of the model has no cross-attention: choose one of \(1, 2\)"),
        ({"acmst_layers": (2,)}, 1, "layer 1"),
        ({"cross_attention": None}, 1, "leave it out"),
    ],
    ids=["beyond", "without", "none"],
)
def test_layers_that_are_not_there(
    tmp_path: Path, changes: dict[str, Any], layer: int, words: str
) -> None:
    bus, ceus = write_clips(tmp_path)
    with pytest.raises(ValueError, match=words):
        explain(write_checkpoint(tmp_path, **changes), bus, ceus, tmp_path / "out", layer=layer)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("broken", ["mask", "empty mask", "out", "disk"])
def test_failures_leave_nothing(
    tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, ceus = write_clips(tmp_path)
    out, mask = tmp_path / "a" / "b", None
    if broken == "mask":
        mask = tmp_path / "none.png"
    elif broken == "empty mask":
        mask = tmp_path / "empty.npy"
        np.save(mask, np.zeros((5, 5), bool))
    elif broken == "out":
        out = bus
    else:
        # The last file fails, when the pictures are there already.
        monkeypatch.setattr(room, "write_overlay", lambda *_: (tmp_path / "no" / "x").read_text())
        for name in ("explanation_plate", "attention_plate"):
            monkeypatch.setattr(room, name, lambda path, *_: path.write_bytes(b"drawn"))
    with pytest.raises((ValueError, OSError)) as raised:
        explain(write_checkpoint(tmp_path), bus, ceus, out, mask=mask)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "a").exists() and bus.is_file()
