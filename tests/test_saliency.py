"""The second model: saliency net, dual-attention fusion, classifier, objective."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from asycmst.saliency.config import SaliencyConfig
from asycmst.saliency.encoder import DualAttentionFusion, DualBranchEncoder
from asycmst.saliency.loss import SaliencyLoss
from asycmst.saliency.model import SaliencyDualAttention
from asycmst.saliency.network import DepthwiseMLP, SaliencyNet
from asycmst_ops import reference

SMALL = replace(
    SaliencyConfig.demo(), image_size=32, width=4, hidden=8, saliency_widths=(4, 4, 4, 8, 8, 8)
)


def clips(batch: int = 3, frames: int = 2, side: int = 32) -> Tensor:
    return torch.rand(batch, 3, frames, side, side)


def test_the_default_is_the_published_description() -> None:
    config = SaliencyConfig()
    assert config == SaliencyConfig.paper()
    assert (config.image_size, config.width, config.scope) == (224, 32, "split")
    weights = config.reconstruction_weight, config.affinity_weight, config.boundary_weight
    assert weights == (0.5, 1.0, 0.01)
    authors = SaliencyConfig.authors()
    assert (authors.scope, authors.suppress) == ("both", False)


@pytest.mark.parametrize("preset", ["paper", "authors", "demo"])
def test_json_round_trip(preset: str) -> None:
    config = getattr(SaliencyConfig, preset)()
    assert SaliencyConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"image_size": 100}, "multiples of 32"),
        ({"image_size": (64, 80)}, "multiples of 32"),
        ({"saliency_widths": (8, 8, 8)}, "6 multiples of 4"),
        ({"saliency_widths": (8, 8, 8, 8, 8, 6)}, "6 multiples of 4"),
        ({"scope": "one"}, "'split' or 'both'"),
        ({"patch": 0}, "patch is 0"),
        ({"lesion": "grey"}, "lesion"),
    ],
)
def test_values_that_describe_no_model_are_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SaliencyConfig(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
def test_the_saliency_net_marks_images_at_full_size(size: tuple[int, int]) -> None:
    net = SaliencyNet((8, 16, 24, 32, 48, 64))
    logits, embedding = net(torch.rand(2, 3, *size))
    assert logits.shape == (2, 1, *size)
    assert embedding.shape == (2, 64)
    kinds = [type(stage) for stage in net.stages]
    assert kinds == [nn.Conv2d] * 3 + [DepthwiseMLP] * 3
    assert [type(stage) for stage in net.decoders] == [DepthwiseMLP] * 3 + [nn.Conv2d] * 2


def test_the_depthwise_mlp_by_its_definition() -> None:
    block = DepthwiseMLP(8, 6).double()
    with torch.no_grad():
        block.alpha.fill_(0.7)
    maps = torch.rand(2, 8, 5, 4).double()
    gelu = nn.functional.gelu

    def place_by_place(layer: nn.Module, x: Tensor) -> Tensor:
        out: Tensor = layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out

    z = place_by_place(block.norm, maps)
    u = gelu(block.squeeze_places(place_by_place(block.squeeze, z)))
    v = gelu(block.expand_places(place_by_place(block.expand, u)))
    wanted = place_by_place(block.out, place_by_place(block.norm, v + 0.7 * z))
    found = block(maps)
    torch.testing.assert_close(found, wanted)
    found.sum().backward()
    assert block.alpha.grad is not None and float(block.alpha.grad) != 0


def test_the_encoder_has_five_scales() -> None:
    encoder = DualBranchEncoder(replace(SMALL, width=2))
    sizes: list[tuple[int, ...]] = []
    for fusion in encoder.fusions:
        fusion.register_forward_hook(lambda _, __, output: sizes.append(tuple(output.shape[1:])))
    image = torch.rand(1, 3, 224, 224)
    encoder(image, image)
    assert sizes == [(2 * 2**i, 224 // 2**i, 224 // 2**i) for i in range(5)]


@pytest.mark.parametrize("scope", ["split", "both"])
@pytest.mark.parametrize("size", [(3, 2), (14, 14), (1, 1)])
def test_the_fusion_projects_gated_features(scope: str, size: tuple[int, int]) -> None:
    """At sizes below the patch and not divisible by it too."""
    config = replace(SMALL, scope=scope, suppress=False)  # type: ignore[arg-type]
    fusion = DualAttentionFusion(config, 3)
    original, enhanced = torch.rand(2, 3, *size), torch.rand(2, 3, *size)
    features = torch.cat((original, enhanced), 1)
    gated = reference.dual_attention_gates(features, scope=scope, patch=4)  # type: ignore[arg-type]
    wanted = torch.einsum("oc,bchw->bohw", fusion.project.weight[:, :, 0, 0], gated)
    torch.testing.assert_close(fusion(original, enhanced), wanted)
    assert torch.isfinite(fusion(original, enhanced)).all()


@pytest.mark.parametrize("scope", ["split", "both"])
def test_gates_that_suppress_reach_zero(scope: str) -> None:
    """A flat channel says nothing; released gates let half of it, or more, through."""
    features = torch.ones(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    through = {
        suppress: DualAttentionFusion(
            replace(SMALL, scope=scope, suppress=suppress),  # type: ignore[arg-type]
            3,
        )
        for suppress in (True, False)
    }
    for fusion in through.values():
        nn.init.ones_(fusion.project.weight)
    least = {suppress: float(f(*features).detach().min()) for suppress, f in through.items()}
    spatial = 0.0 if scope == "split" else float(torch.ones(()).sigmoid()) - 0.5
    assert least[True] == pytest.approx(3 * spatial, abs=1e-6)
    assert least[False] >= 1.5


def test_a_weak_gate_keeps_its_value_in_bfloat16() -> None:
    """A channel of little variance: its gate is 1/2 and half a percent of that."""
    fusion = DualAttentionFusion(SMALL, 2)
    nn.init.dirac_(fusion.project.weight)
    maps = (1 + 0.1 * torch.randn(1, 2, 16, 16)).bfloat16()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = fusion(maps, maps).double()
    wide = maps.double()
    wanted = wide * (wide.var((2, 3), keepdim=True).sigmoid() - 0.5)
    assert float(wanted.mean()) < 0.004
    torch.testing.assert_close(found, wanted, rtol=0.03, atol=0)


def test_scopes_are_different_models() -> None:
    split, both = (
        DualAttentionFusion(replace(SMALL, scope=scope), 3) for scope in ("split", "both")
    )
    both.load_state_dict(split.state_dict())
    maps = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)
    assert float((split(*maps) - both(*maps)).detach().abs().max()) > 1e-3


@pytest.mark.parametrize(("bias", "share"), [(1e4, 1.0), (-1e4, 0.0)])
def test_the_enhanced_image_is_the_marked_part(bias: float, share: float) -> None:
    model = SaliencyDualAttention(SMALL).eval()
    nn.init.zeros_(model.saliency.logit.weight)
    nn.init.constant_(model.saliency.logit.bias, bias)
    image = torch.rand(2, 3, 32, 32)
    output = model.diagnose(image)
    torch.testing.assert_close(output.enhanced, share * image)
    assert output.saliency_logits.shape == (2, 1, 32, 32)


def test_an_image_is_a_clip_of_one_frame() -> None:
    model = SaliencyDualAttention(SMALL).eval()
    image = torch.rand(2, 3, 32, 32)
    single, clip = model.diagnose(image), model(image[:, :, None])
    torch.testing.assert_close(single.logits, clip.logits)
    torch.testing.assert_close(single.saliency_logits, clip.mask_logits)
    assert clip.frame_scores is None


def test_each_frame_is_marked_on_its_own() -> None:
    model = SaliencyDualAttention(SMALL).eval().double()
    clip = clips().double()
    output = model(clip)
    assert output.mask_logits is not None and output.mask_logits.shape == (3, 2, 32, 32)
    for frame in range(2):
        alone = model.diagnose(clip[:, :, frame])
        torch.testing.assert_close(output.mask_logits[:, frame, None], alone.saliency_logits)
    mean = sum(model.diagnose(clip[:, :, frame]).features for frame in range(2)) / 2
    torch.testing.assert_close(output.features, mean)


@pytest.mark.parametrize(
    ("clip", "error", "words"),
    [
        (torch.rand(1, 3, 32, 32), ValueError, "give \\(B, 3, T, H, W\\)"),
        (torch.rand(1, 3, 1, 64, 64), ValueError, "set image_size"),
        (torch.zeros(1, 3, 1, 32, 32, dtype=torch.uint8), TypeError, "floating"),
    ],
)
def test_clips_that_do_not_fit_are_refused(
    clip: Tensor, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        SaliencyDualAttention(SMALL)(clip)


def test_the_objective_is_class_and_saliency_losses() -> None:
    model, loss = SaliencyDualAttention(SMALL).eval(), SaliencyLoss(SMALL)
    bus, label = clips(), torch.tensor([0, 1, 1])
    output = model(bus)
    found = loss(output, label, bus=bus)
    assert output.mask_logits is not None
    terms = SMALL.terms(
        bus.transpose(1, 2).flatten(0, 1), output.mask_logits.flatten(0, 1).sigmoid()
    )
    supervision = (
        10.0 * terms.reconstruction
        + 0.3 * terms.boundary
        + 0.1 * terms.affinity
        + 0.1 * terms.area
    ).mean()
    torch.testing.assert_close(found.segmentation, supervision)
    torch.testing.assert_close(found.diagnosis, nn.functional.cross_entropy(output.logits, label))
    torch.testing.assert_close(found.total, found.diagnosis + supervision)


def test_masks_of_the_data_teach_nothing() -> None:
    model, loss = SaliencyDualAttention(SMALL).eval(), SaliencyLoss(SMALL)
    bus, label = clips(), torch.tensor([0, 1, 1])
    mask = torch.rand(3, 2, 32, 32) > 0.5
    output = model(bus)
    assert torch.equal(
        loss(output, label, mask, bus=bus).total, loss(output, label, bus=bus).total
    )


@pytest.mark.parametrize("weights", [None, (1.0, 3.0)])
def test_divisors_put_parts_of_a_batch_together(weights: tuple[float, float] | None) -> None:
    model, loss = SaliencyDualAttention(SMALL).eval(), SaliencyLoss(SMALL, weights)
    bus, label, valid = clips(), torch.tensor([0, 1, 1]), torch.ones(3, 2, dtype=torch.bool)
    whole = loss(model(bus), label, bus=bus)
    shares = [loss.divisors(label[part], valid[part]) for part in (slice(1), slice(1, 3))]
    parts = [
        loss(model(bus[part]), label[part], bus=bus[part]) for part in (slice(1), slice(1, 3))
    ]
    for place, name in ((0, "diagnosis"), (2, "segmentation")):
        total = sum(shares)[place]  # type: ignore[index]
        mean = sum(s[place] / total * getattr(p, name) for s, p in zip(shares, parts, strict=True))
        torch.testing.assert_close(mean, getattr(whole, name))


def test_every_weight_is_trained() -> None:
    model = SaliencyDualAttention(replace(SMALL, image_size=64))
    bus = clips(side=64)
    SaliencyLoss(SMALL)(model(bus), torch.tensor([0, 1, 1]), bus=bus).total.backward()
    still = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert not still


def test_building_a_model_writes_nothing_and_needs_no_image_library() -> None:
    SaliencyDualAttention(SMALL)
    assert not list(Path().iterdir())
    assert not {"cv2", "timm"} & set(sys.modules)
