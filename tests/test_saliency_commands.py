"""The second model by the commands of the first: trained, evaluated, predicted, explained."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from asycmst import cli
from asycmst.analysis.explain_image import image_relevance
from asycmst.analysis.predict_dataset import predict_dataset
from asycmst.data.phantom import PhantomConfig
from asycmst.data.samples import PhantomDataset
from asycmst.data.single_image import load_image
from asycmst.saliency.config import SaliencyConfig
from asycmst.saliency.model import SaliencyDualAttention
from asycmst.training.checkpoint import load_checkpoint, save_checkpoint

SMALL = SaliencyConfig(image_size=32, width=4, hidden=8, saliency_widths=(4, 4, 4, 8, 8, 8))


def command(*words: str | Path) -> int:
    return cli.main([str(word) for word in words])


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "best.ckpt"
    save_checkpoint(
        path, SaliencyDualAttention(SMALL), {"trained_on": "images", "has_masks": False}
    )
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "nodule.png"
    grey = np.random.default_rng(0).integers(0, 255, (40, 60), dtype=np.uint8)
    Image.fromarray(grey).save(path)
    return path


def test_it_trains_by_name_on_frames_of_clips(tmp_path: Path) -> None:
    words = (
        "data.phantom.frames=4",
        "data.phantom.size=32",
        "data.phantom.train=8",
        "data.phantom.validation=4",
        "data.phantom.scanner.gain_db=3",
        "model.image_size=32",
        "model.frames=1",
        "model.width=2",
        "recipe.batch_size=4",
        "recipe.accumulate=2",
        "recipe.epochs=2",
        "run.accelerator=cpu",
        "run.threads=1",
    )
    out = tmp_path / "run"
    assert command("fit", "--model", "saliency", "--config", "demo", "--out", out, *words) == 0
    model, meta = load_checkpoint(out / "best.ckpt")
    assert isinstance(model, SaliencyDualAttention) and model.config.width == 2
    assert meta["best_epoch"] in (1, 2)


def test_clips_are_evaluated_frame_by_frame() -> None:
    clips = PhantomDataset(PhantomConfig(frames=3, size=32), 2, 3)
    model = SaliencyDualAttention(SMALL).eval()
    found = predict_dataset(model, clips)
    assert found.localisation is not None
    assert all(0 <= value <= 1 for case in found.localisation for value in case)
    assert found.dice == [case.dice for case in found.localisation]
    assert all(map(math.isnan, found.frame_order))
    logits = model(clips[1]["bus"][None]).mask_logits
    assert logits is not None
    on_nodule = [
        bool(mask.flatten()[frame.argmax()])
        for frame, mask in zip(logits[0], clips[1]["mask"], strict=True)
    ]
    assert found.localisation[1].pointing == pytest.approx(sum(on_nodule) / 3)


def test_an_image_alone_is_predicted_and_explained(
    checkpoint: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("predict", "--checkpoint", checkpoint, "--bus", picture) == 0
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert said["ceus_frames"] == [] and not said["plumbing_check"] and not said["warnings"]
    assert said["mask_area_fraction"] is not None  # a saliency map needs no masks in training
    mask = np.zeros((40, 60), dtype=np.uint8)
    mask[10:20, 10:30] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    out = tmp_path / "out"
    words = ("--bus", picture, "--mask", tmp_path / "mask.png", "--out", out)
    assert command("explain", "--checkpoint", checkpoint, *words) == 0
    numbers = json.loads((out / "explanation.json").read_text())
    assert numbers["probability_malignant"] == pytest.approx(said["probability_malignant"])
    assert set(numbers["against_mask"]) == {"dice", "pointing", "centre_dice", "centre_pointing"}
    with Image.open(out / "saliency.png") as drawn:
        assert drawn.size[0] > 1000


def test_the_middle_of_a_clip_is_an_image(tmp_path: Path) -> None:
    clip = np.zeros((5, 32, 32), dtype=np.uint8)
    clip[2] = 200
    np.save(tmp_path / "clip.npy", clip)
    image = load_image(tmp_path / "clip.npy", 32)
    assert image.source_indices.tolist() == [2] and (image.frames == 200).all()


def test_a_half_of_an_image_can_be_looked_at(tmp_path: Path) -> None:
    grey = np.zeros((8, 10), dtype=np.uint8)
    grey[:, 5:] = 90
    Image.fromarray(grey).save(tmp_path / "both.png")
    assert (load_image(tmp_path / "both.png", (8, 5), view="right").frames == 90).all()
    assert (load_image(tmp_path / "both.png", (8, 5), view="left").frames == 0).all()


def test_relevance_is_of_the_last_fused_map() -> None:
    model = SaliencyDualAttention(SMALL).eval()
    image = torch.rand(2, 3, 32, 32)
    found = image_relevance(model, image)
    assert found.shape == (2, 32, 32)
    assert float(found.max()) <= 1 and float(found.min()) >= 0
    alone = image_relevance(model, image[:1])
    torch.testing.assert_close(found[:1], alone, rtol=1e-4, atol=1e-5)


def test_a_model_of_pairs_still_needs_both_clips(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from asycmst.config import AsyCMSTConfig
    from asycmst.model import AsyCMST

    path = tmp_path / "pairs.ckpt"
    save_checkpoint(path, AsyCMST(AsyCMSTConfig.demo()), {})
    assert command("predict", "--checkpoint", path, "--bus", picture) == 2
    assert "give --ceus" in capsys.readouterr().err
    words = ("--bus", picture, "--out", tmp_path / "out")
    assert command("explain", "--checkpoint", path, *words) == 2
    assert "give --bus and --ceus" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
