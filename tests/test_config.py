"""The configuration: presets, checks, plain types; and the package's front door."""

import dataclasses
import importlib.metadata
import json
import subprocess
import sys
from typing import Any

import pytest

import asycmst
from asycmst.config import AsyCMSTConfig, Modality, TaskPlace


def test_the_default_is_the_papers_model() -> None:
    config = AsyCMSTConfig()
    assert config == AsyCMSTConfig.paper()
    assert (config.frames, config.image_size) == (16, 224)
    assert (config.dim, config.layers, config.heads) == (384, 6, 6)
    assert (config.fss_clamp, config.fss_weight, config.segmentation_weight) == (0.9, 0.4, 0.4)
    assert config.cross_attention_layers == (1, 2, 3, 4, 5, 6)
    assert config.sorts_frames
    assert config.segments_nodule


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        AsyCMSTConfig().dim = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    "config",
    [
        AsyCMSTConfig.paper(),
        AsyCMSTConfig.demo(),
        AsyCMSTConfig(acmst_layers=(1, 3), decoder_channels=(8,), dropout=0),
        AsyCMSTConfig(cross_attention=None, ceus_task=None, bus_task=None),
        AsyCMSTConfig.authors(emulate_layout=True),
        AsyCMSTConfig(image_size=(96, 128), fss_hidden=7),
    ],
    ids=["paper", "demo", "tuples", "nones", "authors", "oblong"],
)
def test_json_round_trip(config: AsyCMSTConfig) -> None:
    text = json.dumps(config.to_dict())
    assert AsyCMSTConfig.from_dict(json.loads(text)) == config


def test_absent_keys_take_defaults() -> None:
    assert AsyCMSTConfig.from_dict({"layers": 2}) == AsyCMSTConfig(layers=2)


def test_unknown_keys_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"unknown config keys \['depth', 'width'\]"):
        AsyCMSTConfig.from_dict({"width": 3, "depth": 2, "dim": 384})


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"frames": 0}, ValueError),
        ({"frames": 8.0}, TypeError),
        ({"layers": True}, TypeError),
        ({"image_size": -1}, ValueError),
        ({"dim": 100}, ValueError),
        ({"position_std": 0.0}, ValueError),
        ({"heads": 5}, ValueError),
        ({"dim": 1028, "heads": 4}, ValueError),
        ({"encoder": "resnet50"}, ValueError),
        ({"stsa": "dense"}, ValueError),
        ({"cross_attention": "none"}, ValueError),
        ({"ceus_task": "dice"}, ValueError),
        ({"bus_task": "fss"}, ValueError),
        ({"dropout": 1.0}, ValueError),
        ({"dropout": "0.1"}, TypeError),
        ({"fss_clamp": 0}, ValueError),
        ({"fss_clamp": 1.1}, ValueError),
        ({"fss_weight": -0.1}, ValueError),
        ({"segmentation_weight": float("nan")}, ValueError),
        ({"decoder_channels": ()}, ValueError),
        ({"decoder_channels": (8, 0)}, ValueError),
        ({"decoder_channels": 8}, TypeError),
        ({"acmst_layers": (0, 1)}, ValueError),
        ({"acmst_layers": (1, 7)}, ValueError),
        ({"acmst_layers": (2, 1)}, ValueError),
        ({"acmst_layers": (1, 1)}, ValueError),
        ({"acmst_layers": 3}, TypeError),
        ({"acmst_layers": (1,), "cross_attention": None}, ValueError),
        ({"image_size": (64,)}, ValueError),
        ({"image_size": (64, 0)}, ValueError),
        ({"image_size": 64.0}, TypeError),
        ({"lower": "b-mode"}, ValueError),
        ({"upper": None}, ValueError),
        ({"pixels": "none"}, ValueError),
        ({"share_encoder": 1}, TypeError),
        ({"share_positions": None}, TypeError),
        ({"bias": 0}, TypeError),
        ({"emulate_layout": "yes"}, TypeError),
        ({"positions": "sine"}, ValueError),
        ({"norm": "both"}, ValueError),
        ({"update": "ceus first"}, ValueError),
        ({"kv": "before"}, ValueError),
        ({"ffn": "none"}, ValueError),
        ({"fuse": "concat"}, ValueError),
        ({"diagnosis": "bce"}, ValueError),
        ({"task_place": "off"}, ValueError),
        ({"dice_scope": "pixel"}, ValueError),
        ({"cross_dropout": 1.0}, ValueError),
        ({"fss_hidden": 0}, ValueError),
        ({"stsa": "dot_product", "heads": 3, "dim": 384}, ValueError),
        ({"ffn": "literal", "norm": "pre"}, ValueError),
        ({"task_place": "modality", "upper": "bus"}, ValueError),
        ({"task_place": "modality", "lower": "ceus"}, ValueError),
        ({"emulate_layout": True}, ValueError),
        ({"emulate_layout": True, "bus_task": None}, ValueError),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_impossible_choices_are_named_in_one_line(
    fields: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        AsyCMSTConfig(**fields)
    message = str(caught.value)
    assert "\n" not in message
    assert any(name in message for name in fields)


def test_heads_may_be_256_channels_wide() -> None:
    assert AsyCMSTConfig(dim=1024, heads=4).heads == 4


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (1, 2, 3)),
        ({"acmst_layers": (1, 3)}, (1, 3)),
        ({"acmst_layers": ()}, ()),
        ({"cross_attention": None}, ()),
    ],
    ids=["all", "some", "empty", "off"],
)
def test_layers_with_cross_attention(fields: dict[str, Any], expected: tuple[int, ...]) -> None:
    assert AsyCMSTConfig(layers=3, **fields).cross_attention_layers == expected


def test_the_authors_preset_is_their_released_model() -> None:
    config = AsyCMSTConfig.authors()
    differs = {
        "share_encoder": True,
        "share_positions": True,
        "position_std": 1.0,
        "update": "sequential",
        "kv": "raw",
        "fuse": "mean",
        "ceus_task": None,
        "bus_task": None,
    }
    assert config == dataclasses.replace(AsyCMSTConfig.paper(), **differs)
    assert AsyCMSTConfig.authors(True) == dataclasses.replace(config, emulate_layout=True)


def test_a_side_means_a_square_frame() -> None:
    assert AsyCMSTConfig(image_size=96).frame_size == (96, 96)
    assert AsyCMSTConfig(image_size=(96, 128)).frame_size == (96, 128)


@pytest.mark.parametrize(
    ("lower", "upper", "place", "segmented", "is_sorted"),
    [
        ("bus", "ceus", "branch", "lower", "upper"),
        ("bus", "ceus", "modality", "lower", "upper"),
        ("ceus", "bus", "branch", "lower", "upper"),
        ("ceus", "bus", "modality", "upper", "lower"),
        ("ceus", "ceus", "branch", "lower", "upper"),
    ],
)
def test_tasks_stay_with_their_branch_or_follow_their_modality(
    lower: Modality, upper: Modality, place: TaskPlace, segmented: str, is_sorted: str
) -> None:
    config = AsyCMSTConfig(lower=lower, upper=upper, task_place=place)
    assert (config.segmented_branch, config.sorted_branch) == (segmented, is_sorted)


def test_a_task_may_be_off_where_its_modality_is_not_seen() -> None:
    config = AsyCMSTConfig(upper="bus", task_place="modality", ceus_task=None)
    assert config.segmented_branch == "lower"


@pytest.mark.parametrize("fields", [{"ceus_task": None}, {"fss_weight": 0}], ids=str)
def test_frame_sorting_is_off_without_task_or_weight(fields: dict[str, Any]) -> None:
    config = AsyCMSTConfig(**fields)
    assert not config.sorts_frames
    assert config.segments_nodule


@pytest.mark.parametrize("fields", [{"bus_task": None}, {"segmentation_weight": 0.0}], ids=str)
def test_segmentation_is_off_without_task_or_weight(fields: dict[str, Any]) -> None:
    config = AsyCMSTConfig(**fields)
    assert not config.segments_nodule
    assert config.sorts_frames


def test_importing_the_package_loads_neither_torch_nor_monai() -> None:
    code = (
        "import sys, asycmst; asycmst.AsyCMSTConfig.demo(); "
        "print(sorted({'torch', 'monai', 'numpy'} & set(sys.modules)))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "[]"


def test_public_names_resolve() -> None:
    for name in set(asycmst.__all__) - {"__version__"}:
        assert getattr(asycmst, name).__name__ == name
    assert dir(asycmst) == sorted(asycmst.__all__)


def test_the_version_is_the_installed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", {"asycmst": "1.2.3"}.__getitem__)
    assert asycmst.__version__ == "1.2.3"


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(AttributeError, match="AsyCMSTConfig"):
        asycmst.AsyCMTS  # noqa: B018


def test_a_missing_monai_names_the_extra() -> None:
    code = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == "monai":
            raise ModuleNotFoundError("No module named 'monai'", name="monai")
sys.meta_path.insert(0, Absent())
import asycmst
try:
    asycmst.AsyCMST
except ModuleNotFoundError as error:
    print(error)
"""
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "pip install 'asycmst[train]'" in shown.stdout
