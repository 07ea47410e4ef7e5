"""Settings from presets, YAML and key=value words: typed, complete, and wrong ones named."""

from dataclasses import replace
from pathlib import Path

import pytest

from asycmst.config import AsyCMSTConfig
from asycmst.training.affine import AffineAugmentation
from asycmst.training.augmentation import Augmentation
from asycmst.training.photometric import PhotometricAugmentation
from asycmst.training.recipe import Recipe
from asycmst.training.settings import FitSettings, PhantomSplits
from asycmst.training.settings_file import known_keys, read_settings, to_yaml


def test_presets() -> None:
    paper, demo = read_settings("paper"), read_settings("demo")
    assert paper == FitSettings.paper() == FitSettings()
    assert paper.model == AsyCMSTConfig.paper() and paper.recipe == Recipe.paper()
    assert demo.model == AsyCMSTConfig.demo() and demo.recipe == Recipe.demo()
    assert demo.data.phantom == PhantomSplits()


@pytest.mark.parametrize("preset", ["paper", "demo"])
def test_what_is_printed_reads_back(preset: str, tmp_path: Path) -> None:
    words = ["model.image_size=[64,96]", "run.out=here", "recipe.class_weights=[1,2]"]
    settings = read_settings(preset, words if preset == "paper" else [])
    file = tmp_path / "printed.yaml"
    file.write_text(to_yaml(settings))
    assert read_settings(file) == settings


def test_words_are_typed() -> None:
    settings = read_settings(
        "paper",
        [
            "recipe.learning_rate=3e-4",
            "recipe.epochs=5",
            "recipe.epochs=6",
            "recipe.patience=null",
            "recipe.augmentation.area=[0.5,1]",
            "recipe.photometric=null",
            "model.image_size=[64, 96]",
            "model.acmst_layers=[1,2]",
            "model.share_encoder=true",
            "model.cross_attention=global",
            "data.cache=some/where",
            "run.precision=16-mixed",
        ],
    )
    assert settings.recipe == replace(
        Recipe(),
        learning_rate=3e-4,
        epochs=6,
        patience=None,
        augmentation=AffineAugmentation(area=(0.5, 1.0)),
        photometric=None,
    )
    assert settings.model == AsyCMSTConfig(
        image_size=(64, 96), acmst_layers=(1, 2), share_encoder=True, cross_attention="global"
    )
    assert settings.data.cache == Path("some/where")
    assert settings.run.precision == "16-mixed"


def test_a_file_changes_what_it_names_and_words_come_after(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "recipe: {learning_rate: 1e-2, augmentation: {shift: 0.1}, photometric: {contrast: 0}}\n"
        "data: {phantom: {size: 224, frames: 16, train: 9}}\n"
    )
    settings = read_settings(file, ["recipe.learning_rate=0.5", "data.phantom.validation=3"])
    assert settings.model == AsyCMSTConfig.paper()
    assert settings.recipe == Recipe(
        learning_rate=0.5,
        augmentation=Augmentation(shift=0.1),
        photometric=PhotometricAugmentation(contrast=0.0),
    )
    assert settings.data.phantom == PhantomSplits(size=224, frames=16, train=9, validation=3)


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("recipe.lerning_rate=1", "no setting recipe.lerning_rate; did you mean recipe.learning_"),
        ("learning_rate=1", "no setting learning_rate; did you mean recipe.learning_rate?"),
        ("recipe.augmentation.shft=1", "did you mean recipe.augmentation.shift"),
        ("xyzzy=1", "no setting xyzzy; see asycmst fit --config demo --print-config"),
        ("recipe", "'recipe' is no setting; write section.key=value"),
        ("recipe=5", "recipe=5 is no section; give recipe.NAME=value, or null"),
        ("recipe.epochs=many", "recipe.epochs='many' is not allowed; use a whole number"),
        ("recipe.epochs=2.5", "recipe.epochs='2.5' is not allowed; use a whole number"),
        ("recipe.patience=x", "use a whole number or null"),
        ("model.share_encoder=perhaps", "use true or false"),
        ("model.stsa=jiont", "use one of 'joint', 'factorised', 'dot_product'"),
        ("recipe.augmentation.area=[1]", r"use [a number, a number]"),
        ("recipe.epochs=0", "recipe: epochs=0 is not allowed; use 1 or more"),
        ("model.dim=383", "model: dim 383 is not a multiple of heads 6"),
        ("data.phantom.size=3", "data.phantom: size is 3; give at least 32"),
        ("data.phantom.train=0", "data.phantom: train is 0; give at least 1"),
        ("data.fold=1", "data: give data.splits and data.fold together"),
        ("run.seed=-1", "run: run.seed=-1 is not allowed"),
        ("run.save_minutes=0", "run.save_minutes=0.0 is not allowed"),
        ("run.devices=0", "run.devices=0 is not allowed"),
    ],
)
def test_a_wrong_word_is_one_line(word: str, line: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_settings("paper", [word])
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_contradictions_are_named() -> None:
    both = ["data.cache=x", "data.phantom.train=4"]
    with pytest.raises(ValueError, match=r"data.cache and data.phantom are both given"):
        read_settings("paper", both)
    gpu = ["run.accelerator=cpu", "run.precision=16-mixed"]
    with pytest.raises(ValueError, match="16-mixed works on GPUs only; use bf16-mixed"):
        read_settings("paper", gpu)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (None, "give --config a YAML file or one of paper, demo"),
        ("recipe: [", "is no YAML"),
        ("word", "holds no sections"),
        ("recipe: {epoch: 3}", "no setting recipe.epoch; did you mean recipe.epochs"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str | None, line: str) -> None:
    file = tmp_path / "mine.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=line):
        read_settings(file)


def test_every_key_is_known_by_its_place() -> None:
    keys = known_keys()
    assert len(keys) == len(set(keys)) > 80
    for key in (
        "model.dim",
        "recipe.augmentation.rotation",
        "recipe.augmentation.shift",
        "recipe.photometric.contrast",
        "data.phantom.misregistration",
        "data.phantom.train",
        "run.seed",
    ):
        assert key in keys


def test_a_named_cache_takes_the_place_of_the_phantoms() -> None:
    settings = read_settings("demo", ["data.cache=some/where"])
    assert settings.data.cache == Path("some/where") and settings.data.phantom is None
    assert read_settings("demo").data.phantom is not None
