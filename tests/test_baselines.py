"""The early-fusion model: as large as the full one, with the same tasks."""

from dataclasses import replace

import pytest
import torch

from asycmst.baselines.early_fusion import EarlyFusion, EarlyFusionConfig, parameter_count
from asycmst.config import AsyCMSTConfig
from asycmst.losses import AsyCMSTLoss
from asycmst.model import AsyCMST

SMALL = replace(EarlyFusionConfig.demo(), frames=2, image_size=32, dim=16, ffn_dim=32)


def full_of(config: EarlyFusionConfig) -> AsyCMSTConfig:
    """The model that it is compared with."""
    return AsyCMSTConfig.from_dict(config.to_dict())


@pytest.mark.parametrize(
    "config",
    [EarlyFusionConfig.demo(), EarlyFusionConfig.paper(), SMALL, replace(SMALL, stsa="joint")],
    ids=["demo", "paper", "small", "joint"],
)
def test_it_is_as_large_as_the_full_model(config: EarlyFusionConfig) -> None:
    with torch.device("meta"):
        full, fused = (
            parameter_count(AsyCMST(full_of(config))),
            parameter_count(EarlyFusion(config)),
        )
    assert abs(fused - full) < 0.05 * full


def test_outputs_fit_the_full_models() -> None:
    bus, ceus = torch.rand(2, 3, 3, 2, 32, 32)
    full, fused = AsyCMST(full_of(SMALL))(bus, ceus), EarlyFusion(SMALL)(bus, ceus)
    for name in full._fields:
        assert getattr(fused, name).shape == getattr(full, name).shape, name


@pytest.mark.parametrize("task", ["ceus_task", "bus_task"])
def test_a_task_that_is_off_has_no_output(task: str) -> None:
    output = EarlyFusion(replace(SMALL, **{task: None}))(*torch.rand(2, 1, 3, 2, 32, 32))
    assert (output.frame_scores is None) == (task == "ceus_task")
    assert (output.mask_logits is None) == (task == "bus_task")


def test_all_outputs_read_both_modalities_and_train_every_parameter() -> None:
    model = EarlyFusion(SMALL)
    bus, ceus = (torch.rand(2, 3, 2, 32, 32, requires_grad=True) for _ in range(2))
    output = model(bus, ceus)
    for part in (output.logits, output.frame_scores, output.mask_logits):
        for gradient in torch.autograd.grad(part.square().sum(), (bus, ceus), retain_graph=True):
            assert gradient.abs().max() > 0
    mask = torch.rand(2, 2, 32, 32) > 0.5
    AsyCMSTLoss(SMALL)(output, torch.tensor([0, 1]), mask).total.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_the_encoder_sees_frames_one_by_one_and_keeps_places() -> None:
    model = EarlyFusion(replace(SMALL, image_size=48, frames=3)).eval()
    clip = torch.rand(2, 6, 3, 48, 48)
    changed = clip.clone()
    changed[1, :, 2] += 1
    with torch.no_grad():
        before, after = model.encoder(clip), model.encoder(changed)
    assert before.shape == (2, 3, 3, 3, 16)
    same = (before == after).flatten(2).all(-1)
    assert same.tolist() == [[True] * 3, [True, True, False]]
    spot = torch.zeros(1, 6, 1, 48, 48)
    spot[..., :4, -4:] = 5.0
    with torch.no_grad():
        moved = (model.encoder(spot) - model.encoder(torch.zeros_like(spot))).abs().sum(-1)[0, 0]
    assert moved.argmax() == 2  # first row, last column


def test_a_choice_that_it_does_not_read_is_refused() -> None:
    with pytest.raises(ValueError, match="kv is 'raw', which early fusion does not read; leave"):
        EarlyFusionConfig(kv="raw")
