"""Modalities in each other's branch (Fig 9): training to explanation, and what is invariant."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from asycmst import cli
from asycmst.config import AsyCMSTConfig, Modality, Strategy
from asycmst.data.phantom import PhantomConfig
from asycmst.data.phantom_files import write_phantom
from asycmst.data.samples import PhantomDataset
from asycmst.model import AsyCMST
from asycmst.training.checkpoint import load_checkpoint

SIZES = {"frames": 3, "image_size": 32, "dim": 16, "ffn_dim": 16, "decoder_channels": (8, 8)}


def tied(strategy: Strategy | None) -> AsyCMST:
    """A model whose branches have the same weights."""
    config = replace(AsyCMSTConfig.demo(), **SIZES, cross_attention=strategy)
    model = AsyCMST(config).eval()
    weights = model.state_dict()
    for name in weights:
        if "ceus" in name:
            weights[name] = weights[name.replace("ceus", "bus")]
    model.load_state_dict(weights)
    return model


@pytest.mark.parametrize(
    ("strategy", "invariant"),
    [
        ("symmetric", True),
        ("spatial", True),
        ("temporal", True),
        ("global", True),
        (None, True),
        ("asymmetric", False),
    ],
)
def test_only_the_asymmetric_model_tells_the_branches_apart(
    strategy: Strategy | None, invariant: bool
) -> None:
    """Section 4.5: with tied branches, the swap changes what asymmetric attention answers."""
    model = tied(strategy)
    swapped = AsyCMST(replace(model.config, lower="ceus", upper="bus")).eval()
    swapped.load_state_dict(model.state_dict())
    item = PhantomDataset(PhantomConfig(frames=3, size=32), 0, 1)[0]
    clips = item["bus"][None], item["ceus"][None]
    with torch.no_grad():
        one, other = model(*clips), swapped(*clips)
    same = torch.allclose(one.logits, other.logits, atol=1e-5)
    assert same is invariant
    assert torch.allclose(one.features, other.features, atol=1e-5) is invariant
    # The tasks stay with their branches and so change the clip: frames sorted, frames segmented.
    assert not torch.allclose(one.frame_scores, other.frame_scores, atol=1e-5)
    assert not torch.allclose(one.mask_logits, other.mask_logits, atol=1e-5)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of twenty phantoms with masks, in "cases", and a cache of them."""
    folder = tmp_path_factory.mktemp("study")
    phantom = PhantomConfig(frames=4, size=32)
    write_phantom(folder / "cases", 20, "frames", phantom, seed=0, masks=True)
    words = ["--frames", "3", "--size", "32", "--out", str(folder / "cache")]
    assert cli.main(["prepare", str(folder / "cases" / "manifest.csv"), *words]) == 0
    return folder


@pytest.mark.parametrize("upper", ["ceus", "bus"])
@pytest.mark.parametrize("lower", ["bus", "ceus"])
def test_every_arrangement_goes_all_the_way(
    cache: Path,
    tmp_path: Path,
    lower: Modality,
    upper: Modality,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """fit, evaluate, predict and explain, by the command line; the video is left out."""
    monkeypatch.setattr("asycmst.analysis.explain.write_overlay", lambda *_: None)
    sizes = [f"model.{name}={json.dumps(value)}" for name, value in SIZES.items()]
    words = [f"data.cache={cache / 'cache'}", f"model.lower={lower}", f"model.upper={upper}"]
    words += ["recipe.epochs=1", "recipe.batch_size=4", "run.accelerator=cpu", "run.threads=1"]
    noise = ["data.label_noise=0.2", "data.contour_noise=jitter"]
    run = tmp_path / "run"
    call = ["fit", "--config", "demo", "--out", str(run), *sizes, *words, *noise]
    assert cli.main(call) == 0
    best = str(run / "best.ckpt")
    model, meta = load_checkpoint(best)
    assert (model.config.lower, model.config.upper) == (lower, upper)
    assert meta["has_masks"] and meta["contour_noise"]["kind"] == "jitter"
    assert 0 < len(meta["label_noise"]["inverted_ids"]) < 5
    assert json.loads((run / "run.json").read_text())["data"]["label_noise"]["fraction"] == 0.2
    report = tmp_path / "report"
    call = ["evaluate", "--checkpoint", best, "--data", str(cache / "cache")]
    assert cli.main([*call, "--out", str(report)]) == 0
    metrics = (report / "metrics.json").read_text()
    assert "dice" in metrics
    clips = ["--checkpoint", best]
    for kind in ("bus", "ceus"):
        clips += [f"--{kind}", str(cache / "cases" / kind / "case0000")]
    assert cli.main(["predict", *clips, "--out", str(tmp_path / "predicted")]) == 0
    found = json.loads((tmp_path / "predicted" / "prediction.json").read_text())
    assert len(found["frame_scores"]) == len(found["mask_area_fraction"]) == 3
    assert cli.main(["explain", *clips, "--out", str(tmp_path / "explained")]) == 0
    looked = json.loads((tmp_path / "explained" / "explanation.json").read_text())
    assert (looked["model"]["lower_branch"], looked["model"]["upper_branch"]) == (lower, upper)
    assert [part["clip"] for part in looked["relevance"]] == [lower, upper]
