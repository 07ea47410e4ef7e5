"""Networks by name: trained, stored, resumed, evaluated and predicted by the same code."""

import os
import signal
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from asycmst import cli
from asycmst.baselines.early_fusion import EarlyFusion, EarlyFusionConfig
from asycmst.config import AsyCMSTConfig
from asycmst.model import AsyCMST
from asycmst.network_config import NetworkConfig
from asycmst.training.checkpoint import load_checkpoint, save_checkpoint
from asycmst.training.networks import (
    BUILT_IN,
    Network,
    build,
    known,
    name_of,
    network_named,
    network_of,
)
from asycmst.training.recipe import Recipe
from asycmst.training.run import fit_run
from asycmst.training.settings import FitSettings
from asycmst.training.settings_file import change, read_settings, to_plain, to_yaml
from asycmst.training.state import load_state

PLUG_IN = "plug_in:network"
EXAMPLES = Path(__file__).parent.parent / "examples"
EARLY = replace(EarlyFusionConfig.demo(), frames=2, image_size=32, dim=8, ffn_dim=8)
PHANTOM = ("data.phantom.frames=2", "data.phantom.size=32", "data.phantom.train=8")
SMALL = (
    *PHANTOM,
    "data.phantom.validation=4",
    "model.frames=2",
    "model.image_size=32",
    "recipe.batch_size=4",
    "run.accelerator=cpu",
    "run.threads=1",
)

_NARROW = ("model.dim=8", "model.ffn_dim=8")
TINY = {
    "early-fusion": _NARROW,
    "r2plus1d": ("model.widths=[4,4]", "model.blocks=[1,1]"),
    "vivit": (*_NARROW, "model.dropout=0.2"),
    PLUG_IN: (),
}


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples' folder is where modules are found, and none of them is imported yet."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.delitem(sys.modules, "plug_in", raising=False)


def command(*words: str | Path) -> int:
    return cli.main([str(word) for word in words])


@pytest.mark.parametrize("name", list(BUILT_IN))
def test_name_and_configuration_find_the_same_network(name: str) -> None:
    network = network_named(name)
    config = network.config.demo()
    assert (name_of(config), network_of(config)) == (name, network)
    with torch.device("meta"):
        assert build(config).config == config


def test_a_configuration_of_no_network_is_named() -> None:
    with pytest.raises(ValueError, match="NetworkConfig belongs to no network; write NAME = "):
        network_of(NetworkConfig())


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("asycmts", "no network 'asycmts'; choose one of asycmst, early-fusion"),
        ("nowhere.at.all:x", "there is no module nowhere; install it or put"),
        ("math:pi", "math has no Network pi; write pi = Network"),
    ],
)
def test_a_wrong_name_is_one_line(name: str, line: str) -> None:
    with pytest.raises(ValueError, match=line) as caught:
        network_named(name)
    assert "\n" not in str(caught.value)


def test_a_network_of_the_script_that_runs_is_refused(
    examples: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import plug_in

    monkeypatch.setattr(plug_in.CurveNetConfig, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "mine", plug_in.network, raising=False)
    with pytest.raises(ValueError, match="CurveNetConfig is of the script that runs"):
        name_of(plug_in.CurveNetConfig())


def test_a_network_that_forgets_its_configuration_is_named(
    examples: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import plug_in

    monkeypatch.setattr(plug_in, "network", Network(plug_in.CurveNetConfig, lambda c: nn.ReLU()))
    with pytest.raises(TypeError, match="ReLU does not keep its configuration; write self"):
        build(plug_in.CurveNetConfig())
    other = Network(plug_in.CurveNetConfig, lambda c: plug_in.CurveNet(replace(c, width=9)))
    monkeypatch.setattr(plug_in, "network", other)
    with pytest.raises(TypeError, match="CurveNet changes its configuration"):
        build(plug_in.CurveNetConfig())


@pytest.mark.parametrize("config", ["paper", "demo"])
def test_settings_of_a_network_name_it_and_read_back(config: str, tmp_path: Path) -> None:
    settings = read_settings(config, ["model.layers=3"], "early-fusion")
    expected = getattr(EarlyFusionConfig, config)()
    assert settings.model == replace(expected, layers=3)
    assert settings.recipe == getattr(Recipe, config)()
    file = tmp_path / "mine.yaml"
    file.write_text(to_yaml(settings))
    assert yaml.safe_load(file.read_text())["model"]["network"] == "early-fusion"
    assert read_settings(file) == read_settings(file, network="early-fusion") == settings
    with pytest.raises(ValueError, match="is of the network early-fusion, not asycmst; leave out"):
        read_settings(file, network="asycmst")


def test_a_file_without_a_network_is_of_the_model(tmp_path: Path) -> None:
    plain = to_plain(FitSettings.demo())
    del plain["model"]["network"]  # as older versions wrote it
    assert change(FitSettings(), plain) == FitSettings.demo()
    file = tmp_path / "mine.yaml"
    file.write_text("model: {layers: 2}\n")
    assert read_settings(file).model == AsyCMSTConfig(layers=2)
    assert read_settings(file, network="early-fusion").model == EarlyFusionConfig(layers=2)


@pytest.mark.parametrize(
    ("words", "network", "line"),
    [
        (["model.kv=raw"], "early-fusion", "model: kv is 'raw', which early fusion does not read"),
        (["model.network=x"], None, "model.network is chosen by --model x"),
        (["model.wdth=3"], PLUG_IN, "no setting model.wdth; did you mean model.width"),
        (["model.width=0"], PLUG_IN, "model: width is 0; give an integer >= 1"),
        (["model.width=wide"], PLUG_IN, "model.width='wide' is not allowed; use a whole number"),
        (["model.dim=8"], PLUG_IN, "there is no setting model.dim"),
    ],
)
def test_a_wrong_setting_of_a_network_is_one_line(
    examples: None, words: list[str], network: str | None, line: str
) -> None:
    with pytest.raises(ValueError) as caught:
        read_settings("paper", words, network)
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_checkpoints_bring_their_network_back(tmp_path: Path) -> None:
    model = EarlyFusion(EARLY).eval()
    save_checkpoint(tmp_path / "a.ckpt", model, {"seed": 1})
    loaded, meta = load_checkpoint(tmp_path / "a.ckpt")
    assert (type(loaded), loaded.config, meta) == (EarlyFusion, EARLY, {"seed": 1})
    clips = torch.rand(2, 1, 3, 2, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(*clips).logits, model(*clips).logits)


def test_the_models_checkpoints_are_as_they_were(tmp_path: Path) -> None:
    config = AsyCMSTConfig.from_dict(EARLY.to_dict())
    save_checkpoint(tmp_path / "a.ckpt", AsyCMST(config), {})
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert (content["format"], content["model"]) == (1, "asycmst")
    assert content["config"] == {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(config).items()
    }


@pytest.mark.parametrize("network", list(TINY))
def test_a_network_trains_resumes_and_answers(
    examples: None, network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two epochs at once and with a break give the same state, bit for bit."""
    words = ("fit", "--config", "demo", *SMALL, *TINY[network], "recipe.epochs=2")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert command(*words, "--model", network, "--out", whole) == 0
    stop_after_an_epoch(parts, words, network)
    capsys.readouterr()
    assert command("fit", "--resume", parts, "--model", network) == 0, capsys.readouterr().err
    one, other = (load_state(folder / "last.ckpt") for folder in (whole, parts))
    assert one.counters == other.counters and one.counters["epochs_done"] == 2
    for name, value in one.model.items():
        assert torch.equal(value, other.model[name]), name
    assert yaml.safe_load((whole / "config.yaml").read_text())["model"]["network"] == network

    for name in ("bus.npy", "ceus.npy"):
        clip = np.random.default_rng(len(name)).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
        np.save(tmp_path / name, clip)
    case = ("--bus", tmp_path / "bus.npy", "--ceus", tmp_path / "ceus.npy")
    found = ("--checkpoint", whole / "best.ckpt", "--model", network, *case)
    capsys.readouterr()
    assert command("predict", *found, "--out", tmp_path / "answer") == 0
    assert '"probability_malignant": 0.' in capsys.readouterr().out
    assert [entry.name for entry in (tmp_path / "answer").iterdir()] == ["prediction.json"]
    assert command("explain", *found, "--out", tmp_path / "look") == 2
    assert f"holds the network {network}, of which explain knows no" in capsys.readouterr().err
    assert not (tmp_path / "look").exists()


def stop_after_an_epoch(folder: Path, words: tuple[Any, ...], network: str) -> None:
    """A run of the same settings that a signal ends after its first epoch."""
    changes = [word for word in words[3:] if "=" in word]
    settings = read_settings("demo", changes, network).in_folder(folder)

    def report(progress: Any) -> None:
        if progress.epoch_done:
            os.kill(os.getpid(), signal.SIGTERM)

    assert fit_run(settings, report=report).signal == signal.SIGTERM


def test_a_file_never_makes_a_plug_ins_code_run(
    examples: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ("fit", "--config", "demo", *SMALL, "recipe.epochs=1", "--model", PLUG_IN)
    assert command(*words, "--out", out) == 0
    networks = known(PLUG_IN)
    assert type(load_checkpoint(out / "best.ckpt", networks)[0]).__name__ == "CurveNet"
    del sys.modules["plug_in"]
    with pytest.raises(ValueError, match=f"name it yourself: --model {PLUG_IN}") as caught:
        load_checkpoint(out / "best.ckpt")
    assert "\n" not in str(caught.value)
    for given in (("--resume", out), ("--config", out / "config.yaml", "--print-config")):
        capsys.readouterr()
        assert command("fit", *given) == 2
        assert f"name it yourself: --model {PLUG_IN}" in capsys.readouterr().err
    assert "plug_in" not in sys.modules
    assert command("fit", "--resume", out, "--model", "asycmst") == 2
    assert command(*words[:-2], "--out", out) == 2
    assert "plug_in" not in sys.modules


def test_a_run_of_one_network_is_not_resumed_as_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.yaml").write_text(to_yaml(read_settings("demo")))
    assert command("fit", "--config", "demo", "--model", "early-fusion", "--out", out) == 2
    assert "holds a run with model.network=asycmst, not early-fusion" in capsys.readouterr().err
    assert command("fit", "--resume", out, "--model", "early-fusion") == 2
    assert "is a run of asycmst, not early-fusion; leave out --model" in capsys.readouterr().err


def test_imagenet_weights_need_an_encoder_that_takes_them(
    examples: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    changes = (*SMALL, "run.imagenet_weights=resnet18.pth")
    assert command("fit", "--config", "demo", *changes, "--model", PLUG_IN, "--out", out) == 2
    assert f"the network {PLUG_IN} has no ResNet-18 over frames" in capsys.readouterr().err
    assert not out.exists()
