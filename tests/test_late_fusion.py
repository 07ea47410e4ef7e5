"""R(2+1)D and ViViT, two branches each: sizes as published, and what they look at."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import default_collate

from asycmst.baselines.early_fusion import parameter_count
from asycmst.baselines.late_fusion import LateFusion, LateFusionConfig
from asycmst.baselines.r2plus1d import (
    R2Plus1D,
    R2Plus1DConfig,
    VideoResNet,
    channels_between,
)
from asycmst.baselines.vivit import FactorisedEncoder, JointEncoder, ViViT, ViViTConfig
from asycmst.config import AsyCMSTConfig
from asycmst.data.phantom import PhantomConfig
from asycmst.data.samples import PhantomDataset
from asycmst.losses import AsyCMSTLoss
from asycmst.model import AsyCMST
from asycmst.training.networks import build

CONFIGS = {
    "R(2+1)D": R2Plus1DConfig(frames=4, image_size=32, widths=(4, 6), blocks=(2, 1)),
    "factorised": ViViTConfig(
        frames=4, image_size=32, dim=8, heads=2, layers=2, temporal_layers=1, ffn_dim=8
    ),
    "joint": ViViTConfig(
        frames=4, image_size=32, dim=8, heads=2, layers=2, ffn_dim=8, encoder="joint"
    ),
}
every = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def make(config: LateFusionConfig, seed: int = 0) -> LateFusion:
    torch.manual_seed(seed)
    model = build(config)
    assert isinstance(model, LateFusion)
    return model


def test_r2plus1d_has_its_published_size() -> None:
    """18 layers and 400 classes: 33.3 million (Tran et al., Table 1), counted by hand below."""

    def pair(before: int, width: int, size: int) -> int:
        between = 3 * size**2 * before * width // (size**2 * before + 3 * width)
        norms = 2 * between + 2 * width
        return size**2 * before * between + 3 * between * width + norms

    expected = pair(3, 64, 7) + 4 * pair(64, 64, 3) + 512 * 400 + 400
    for before, width in ((64, 128), (128, 256), (256, 512)):
        projected = before * width + 2 * width
        expected += pair(before, width, 3) + 3 * pair(width, width, 3) + projected
    with torch.device("meta"):
        branch = VideoResNet(R2Plus1DConfig().widths, R2Plus1DConfig().blocks)
        both = R2Plus1D()
    assert parameter_count(branch) + 512 * 400 + 400 == expected
    assert 33.3e6 < expected < 33.4e6
    assert parameter_count(both) == 2 * parameter_count(branch) + 2 * 512 * 2 + 2


@pytest.mark.parametrize(
    ("encoder", "branch", "millions"),
    [("joint", JointEncoder, 88.9), ("factorised", FactorisedEncoder, 115.1)],
)
def test_vivit_has_its_published_size(encoder: Any, branch: type, millions: float) -> None:
    """ViViT-B/16x2 of 32 frames and 400 classes (Arnab et al., Table 2)."""
    with torch.device("meta"):
        count = parameter_count(branch(ViViTConfig(frames=32, encoder=encoder)))
    assert count + 768 * 400 + 400 == pytest.approx(1e6 * millions, abs=0.1e6)


def test_demo_presets_are_as_large_as_the_demos_model() -> None:
    full = parameter_count(AsyCMST(AsyCMSTConfig.demo()))
    for config in (R2Plus1DConfig.demo(), ViViTConfig.demo()):
        assert 0.5 * full < parameter_count(build(config)) < 1.5 * full


@pytest.mark.parametrize(("before", "width", "size"), [(3, 64, 7), (64, 64, 3), (256, 512, 3)])
def test_two_convolutions_weigh_as_much_as_the_one_they_replace(
    before: int, width: int, size: int
) -> None:
    between = channels_between(before, width, size)
    weights = [size * size * before * m + 3 * m * width for m in (between, between + 1)]
    assert weights[0] <= 3 * size * size * before * width < weights[1]


def test_r2plus1d_shrinks_time_and_place_as_published() -> None:
    """16 x 224 x 224 to 2 x 14 x 14: the stem halves places, three stages halve everything."""
    with torch.device("meta"):
        branch = VideoResNet(R2Plus1DConfig().widths, R2Plus1DConfig().blocks)
        maps = nn.Sequential(*list(branch)[:-2])(torch.empty(1, 3, 16, 224, 224))
    assert maps.shape == (1, 512, 2, 14, 14)


@every
def test_outputs_and_gradients(config: LateFusionConfig) -> None:
    model = make(config)
    output = model(*torch.rand(2, 3, 3, 4, 32, 32))
    width = config.widths[-1] if isinstance(config, R2Plus1DConfig) else 8
    assert (output.logits.shape, output.features.shape) == ((3, 2), (3, 2 * width))
    assert output.frame_scores is None and output.mask_logits is None
    assert not config.sorts_frames and not config.segments_nodule
    losses = AsyCMSTLoss()(output, torch.tensor([0, 1, 1]), torch.ones(3, 4, 32, 32))
    assert losses.total == losses.diagnosis
    losses.total.backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


@every
def test_the_order_of_frames_matters(config: LateFusionConfig) -> None:
    model = make(config).eval()
    bus, ceus = torch.rand(2, 1, 3, 4, 32, 32)
    with torch.no_grad():
        forwards, backwards = model(bus, ceus), model(bus, ceus.flip(2))
    assert not torch.allclose(forwards.logits, backwards.logits, atol=1e-5)


@every
def test_branches_do_not_share_weights_and_can_swap_clips(config: LateFusionConfig) -> None:
    """Fig 9: what a branch sees is a choice; the weights go with the branch."""
    bus, ceus = torch.rand(2, 2, 3, 4, 32, 32)
    model, swapped = (make(c).eval() for c in (config, replace(config, lower="ceus", upper="bus")))
    twice = make(replace(config, upper="bus")).eval()
    with torch.no_grad():
        plain = model(bus, ceus)
        assert torch.equal(swapped(ceus, bus).logits, plain.logits)
        assert not torch.allclose(swapped(bus, ceus).logits, plain.logits, atol=1e-5)
        assert torch.equal(twice(bus, ceus).logits, model(bus, bus).logits)
        lower, upper = model(bus, bus).features.chunk(2, dim=1)
    assert not torch.allclose(lower, upper, atol=1e-3)


@every
def test_one_exported_program_takes_any_batch(config: LateFusionConfig) -> None:
    model = make(config).eval()
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(
        model, (*torch.rand(2, 2, 3, 4, 32, 32),), dynamic_shapes=(batch, batch)
    ).module()
    clips = torch.rand(2, 3, 3, 4, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(program(*clips).logits, model(*clips).logits)


def test_the_demos_vivit_learns_sixteen_phantoms_by_heart() -> None:
    """With position tables as small as the paper's preset has, the loss stays at log 2."""
    phantoms = PhantomDataset(PhantomConfig(), 0, 16)
    batch = default_collate([phantoms[index] for index in range(16)])
    model = make(ViViTConfig.demo())
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for _ in range(100):
        output = model(batch["bus"], batch["ceus"])
        loss = AsyCMSTLoss()(output, batch["label"]).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.2


def test_moments_meet_only_in_the_second_transformer() -> None:
    config = CONFIGS["factorised"]
    assert isinstance(config, ViViTConfig)
    encoder = FactorisedEncoder(config).eval()
    clip = torch.rand(1, 3, 4, 32, 32)
    changed = clip.clone()
    changed[:, :, 2:] += 1
    with torch.no_grad():
        before, after = (encoder.embed(x).flatten(0, 1) for x in (clip, changed))
        seen = encoder.over_places(before), encoder.over_places(after)
        assert torch.equal(seen[0][0], seen[1][0])
        assert not torch.allclose(seen[0][1], seen[1][1], atol=1e-4)
        assert not torch.allclose(encoder(clip), encoder(changed), atol=1e-5)


def test_tubelets_are_where_they_belong() -> None:
    """A token sees its own two frames and 16 x 16 pixels, moments before places."""
    config = CONFIGS["joint"]
    assert isinstance(config, ViViTConfig)
    embed = JointEncoder(config).embed
    clip = torch.zeros(1, 3, 4, 32, 32)
    clip[..., 2, 20, 3] = 1  # third frame, lower left
    with torch.no_grad():
        moved = (embed(clip) - embed(torch.zeros_like(clip))).abs().sum(-1)[0]
    assert moved.nonzero().tolist() == [[1, 2]]


@pytest.mark.parametrize("encoder", ["joint", "factorised"])
def test_a_short_clip_takes_the_first_positions(encoder: Any) -> None:
    config = replace(CONFIGS[encoder], frames=8)
    long, short = make(config).eval(), make(replace(config, frames=4), seed=1).eval()
    weights = short.state_dict()
    short.load_state_dict(
        {
            name: value[:, : weights[name].shape[1]] if name.endswith("positions") else value
            for name, value in long.state_dict().items()
        }
    )
    clips = torch.rand(2, 1, 3, 4, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(long(*clips).logits, short(*clips).logits)


@pytest.mark.parametrize(
    ("kind", "fields", "line"),
    [
        (R2Plus1DConfig, {"widths": (8, 16)}, "name different numbers of stages"),
        (R2Plus1DConfig, {"widths": (), "blocks": ()}, "name different numbers of stages"),
        (R2Plus1DConfig, {"blocks": (1, 0, 1, 1)}, "an entry of blocks is 0"),
        (R2Plus1DConfig, {"lower": "mri"}, "lower is 'mri'; choose one of 'bus', 'ceus'"),
        (ViViTConfig, {"heads": 7}, "dim 768 is not a multiple of heads 7"),
        (ViViTConfig, {"frames": 7}, "frames 7 is not a multiple of tubelet 2"),
        (ViViTConfig, {"image_size": (224, 200)}, "is not a multiple of patch 16"),
        (ViViTConfig, {"encoder": "dot"}, "encoder is 'dot'; choose 'factorised' or 'joint'"),
        (ViViTConfig, {"dropout": 1.0}, r"dropout is 1.0; choose a probability in \[0, 1\)"),
        (ViViTConfig, {"position_std": 0.0}, "position_std is 0.0; choose a spread > 0"),
        (ViViTConfig, {"layers": 0}, "layers is 0; give an integer >= 1"),
    ],
)
def test_a_wrong_choice_is_named(kind: Any, fields: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        kind(**fields)


@pytest.mark.parametrize(
    "shape", [(1, 3, 5, 32, 32), (1, 3, 4, 32, 16), (1, 1, 4, 32, 32), (3, 4, 32, 32)]
)
def test_a_clip_that_does_not_fit_is_named(shape: tuple[int, ...]) -> None:
    model, fine = R2Plus1D(CONFIGS["R(2+1)D"]), torch.rand(1, 3, 4, 32, 32)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"ceus has shape .*; give \(B, 3, T, 32, 32\) with T"):
        model(fine, torch.rand(shape))


def test_frames_that_make_no_tubelet_are_named() -> None:
    model = ViViT(CONFIGS["joint"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the clip has 3 frames, a tubelet 2; give a multiple"):
        model(*torch.rand(2, 1, 3, 3, 32, 32))
