"""A study of single B-mode images: its CSV, its items, trained and evaluated by the commands."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asycmst import AsyCMST, AsyCMSTConfig, cli
from asycmst.data.image_study import ImageDataset, read_image_study
from asycmst.data.phantom import PhantomConfig, make_phantom
from asycmst.training.checkpoint import load_checkpoint, save_checkpoint

PARTS = ("train", "train", "train", "train", "valid", "valid", "test", "test")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Eight phantoms as images with masks, both classes in each part."""
    lines = ["id,image,label,split,mask"]
    config = PhantomConfig(frames=2, size=32)
    for index, part in enumerate(PARTS):
        sample = make_phantom(config, 1, index)
        Image.fromarray(sample.bus[0]).save(tmp_path / f"{index}.png")
        Image.fromarray(sample.mask[0].astype(np.uint8) * 255).save(tmp_path / f"{index}-mask.png")
        label = ("benign", "malignant")[index % 2]
        lines.append(f"case-{index},{index}.png,{label},{part},{index}-mask.png")
    table = tmp_path / "images.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


def command(*words: str | Path) -> int:
    return cli.main([str(word) for word in words])


def fit(study: Path, out: Path, network: str = "saliency") -> int:
    return command(
        *("fit", "--model", network, "--config", "demo", "--out", out),
        *(f"data.images={study}", "model.image_size=32", "recipe.epochs=1"),
        *("recipe.batch_size=4", "run.threads=1", "run.accelerator=cpu"),
    )


def test_items_are_clips_of_one_frame_with_their_masks(study: Path) -> None:
    images = ImageDataset(read_image_study(study), (32, 32))
    item, sample = images[3], make_phantom(PhantomConfig(frames=2, size=32), 1, 3)
    assert item["bus"].shape == (3, 1, 32, 32) and item["bus"] is item["ceus"]
    assert np.allclose(item["bus"][0, 0].numpy() * 255, sample.bus[0])
    assert np.array_equal(item["mask"][0].numpy(), sample.mask[0]) and item["mask_valid"].all()
    assert images.labels().tolist() == [0, 1] * 4
    share = np.mean([make_phantom(images_config(), 1, i).mask[0].mean() for i in range(8)])
    assert images.nodule_share() == pytest.approx(share)


def images_config() -> PhantomConfig:
    return PhantomConfig(frames=2, size=32)


def test_images_without_masks_are_not_annotated(study: Path) -> None:
    study.write_text("id,image,label\na,0.png,1\n")
    images = ImageDataset(read_image_study(study), (32, 32))
    assert not images[0]["mask_valid"].any() and np.isnan(images.nodule_share())


def test_a_study_of_images_is_trained_and_evaluated(study: Path, tmp_path: Path) -> None:
    assert fit(study, tmp_path / "run") == 0
    _, meta = load_checkpoint(tmp_path / "run" / "best.ckpt")
    assert meta["train_ids"] == [f"case-{i}" for i in range(4)]
    words = ("--checkpoint", tmp_path / "run" / "best.ckpt", "--data", study)
    assert command("evaluate", *words, "--out", tmp_path / "report") == 0
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    scores = metrics["models"]["run"]["operating_points"]["0.5"]["scores"]
    assert 0 <= scores["pointing"]["value"] <= 1 and scores["centre_dice"]["value"] is not None


def test_a_network_of_clips_is_not_trained_on_images(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(study, tmp_path / "run", "asycmst") == 2
    assert "give --model saliency" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_network_of_clips_is_not_evaluated_on_images(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(AsyCMSTConfig.demo(), frames=2, image_size=32)
    save_checkpoint(tmp_path / "clips.ckpt", AsyCMST(config), {})
    words = (
        "--checkpoint",
        tmp_path / "clips.ckpt",
        "--data",
        study,
        "--out",
        tmp_path / "report",
    )
    assert command("evaluate", *words) == 2
    assert "reads the contrast clip too" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,image\na,0.png\n", "no column label: it needs id, image, label"),
        ("id,image,label\na,,1\n", "line 2: the image is empty"),
        ("id,image,label\na,0.png,2\n", "label is '2'"),
        ("id,image,label\na,0.png,1\na,1.png,0\n", "stands on two lines"),
        ("id,image,label\n", "holds no case"),
    ],
)
def test_a_wrong_csv_is_one_line(study: Path, text: str, words: str) -> None:
    study.write_text(text)
    with pytest.raises(ValueError, match=words):
        read_image_study(study)
