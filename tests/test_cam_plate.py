"""The plate of key frames and relevance (Fig 10), and that of perturbed contours (Fig 11b)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted import plant_brightness

from asycmst.analysis import cam_plate as room
from asycmst.analysis import noise_plate as noise_room
from asycmst.analysis.cam_plate import cam_plate, look_at_case
from asycmst.analysis.gradcam import gradcam_plus_plus
from asycmst.analysis.noise_plate import noise_plate
from asycmst.config import AsyCMSTConfig
from asycmst.data.samples import Item
from asycmst.model import AsyCMST


def model(**changes: Any) -> AsyCMST:
    torch.manual_seed(0)
    made = AsyCMST(replace(AsyCMSTConfig.demo(), frames=4, **changes)).eval()
    plant_brightness(made)
    return made


def case(label: int = 1, annotated: tuple[bool, ...] = (True, True, False, True)) -> Item:
    """The nodule is largest in frame 1 of BUS and brightest in frame 3 of CEUS.

    Another spot is brightest in frame 0, and an unannotated mask is larger still.
    """
    mask = torch.zeros(4, 64, 64, dtype=torch.bool)
    for frame, side in enumerate((8, 14, 30, 10)):
        mask[frame, 20 : 20 + side, 30 : 30 + side] = True
    ceus = torch.zeros(3, 4, 64, 64)
    for frame, brightness in enumerate((0.2, 0.4, 0.5, 0.7)):
        ceus[:, frame, 20:28, 30:38] = brightness
    ceus[:, 0, :10, :60] = 1.0
    return Item(
        bus=torch.rand(3, 4, 64, 64),
        ceus=ceus,
        mask=mask,
        mask_valid=torch.tensor(annotated),
        label=torch.tensor(label),
        id=f"id{label}",
    )


def test_key_frames_show_most_of_the_nodule() -> None:
    item, one = case(), model()
    found = look_at_case(item, {"a": one})
    bus, ceus = found.frames["bus"], found.frames["ceus"]
    assert (found.name, found.label, bus.number, ceus.number) == ("id1", 1, 1, 3)
    assert bus.nodule is not None and np.array_equal(bus.nodule, item["mask"][1].numpy())
    assert np.array_equal(ceus.pixels[..., 0], (item["ceus"][0, 3] * 255).round().byte().numpy())
    cam = gradcam_plus_plus(one, item["bus"][None], item["ceus"][None])
    assert np.array_equal(bus.maps["a"], cam.bus[0, 1].numpy())
    assert np.array_equal(ceus.maps["a"], cam.ceus[0, 3].numpy()) and ceus.maps["a"].max() > 0


def test_a_case_without_annotation_has_key_frames_too() -> None:
    found = look_at_case(case(annotated=(False,) * 4), {}, "A")
    assert found.name == "A"
    assert (found.frames["bus"].number, found.frames["ceus"].number) == (2, 0)
    assert found.frames["bus"].nodule is None


def test_maps_belong_to_the_clip_that_the_branch_saw() -> None:
    """Fig 9: in a swapped model the lower branch's map is of CEUS; of one clip both count."""
    item = case()
    clips = item["bus"][None], item["ceus"][None]
    models = {"swapped": model(lower="ceus", upper="bus"), "twice": model(lower="ceus")}
    found = look_at_case(item, models)
    cam = gradcam_plus_plus(models["swapped"], *clips)
    assert np.array_equal(found.frames["ceus"].maps["swapped"], cam.bus[0, 3].numpy())
    assert np.array_equal(found.frames["bus"].maps["swapped"], cam.ceus[0, 1].numpy())
    cam = gradcam_plus_plus(models["twice"], *clips)
    both = torch.maximum(cam.bus, cam.ceus)[0, 3].numpy()
    assert np.array_equal(found.frames["ceus"].maps["twice"], both)
    assert "twice" not in found.frames["bus"].maps


def test_a_column_for_each_case_and_a_row_for_each_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    original = room.new_figure
    monkeypatch.setattr(room, "new_figure", lambda *s: made.append(original(*s)) or made[-1])
    models = {"ours": model(), "CEUS only": model(lower="ceus")}
    plate = [look_at_case(case(label), models) for label in (1, 0)]
    cam_plate(tmp_path / "plate", plate)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plate.png", "plate.svg"]
    axes = made[0].axes
    assert [x.get_title() for x in axes[:2]] == ["id0\nbenign", "id1\nmalignant"]
    rows = [axes[2 * row].get_ylabel() for row in range(6)]
    assert rows == ["BUS", "ours", "CEUS only", "CEUS", "ours", "CEUS only"]
    frame, overlay = axes[2].images
    assert np.array_equal(frame.get_array(), plate[1].frames["bus"].pixels)
    assert np.array_equal(overlay.get_array(), plate[1].frames["bus"].maps["ours"])
    assert len(axes[0].images) == 1 and axes[0].collections, "the frame with its outline"
    assert not axes[4].images and axes[4].texts[0].get_text() == "not seen"
    with pytest.raises(ValueError, match="no case is given"):
        cam_plate(tmp_path / "x", [])


def test_contours_as_drawn_and_as_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    original = noise_room.new_figure
    monkeypatch.setattr(noise_room, "new_figure", lambda *s: made.append(original(*s)) or made[-1])
    item = case()
    frame, mask = (item["bus"][0, 1] * 255).byte().numpy(), item["mask"][1].numpy()
    noise_plate(tmp_path / "noise", frame, mask)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["noise.png", "noise.svg"]
    extents = []
    for axes in made[0].axes:
        drawn, changed = axes.lines[:2]
        # The square's pixels 30 to 43: drawn from one half before them to one half after.
        assert (drawn.get_xdata().min(), drawn.get_xdata().max()) == (29.5, 43.5)
        assert drawn.get_linestyle() != changed.get_linestyle()
        extents.append(np.ptp(changed.get_xdata()) / 14)
    assert extents[1:] == pytest.approx([0.85, 1.15])
    with pytest.raises(ValueError, match="marks 0 pixels of a frame of"):
        noise_plate(tmp_path / "x", frame, np.zeros_like(mask))
