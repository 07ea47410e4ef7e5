"""Every reading of the paper that a configuration can choose, in the whole model."""

import dataclasses
import zlib
from typing import Any

import pytest
import torch
from torch import Tensor

from asycmst.analysis.gradcam import gradcam_plus_plus
from asycmst.config import AsyCMSTConfig
from asycmst.losses import AsyCMSTLoss
from asycmst.model import AsyCMST, attention_inputs

# One option each, then some together: all must train, compile and pad alike.
OPTIONS: list[dict[str, Any]] = [
    {},
    {"stsa": "joint"},
    {"stsa": "dot_product"},
    {"update": "sequential"},
    {"update": "sequential", "kv": "raw"},
    {"kv": "raw"},
    {"norm": "pre"},
    {"ffn": "literal"},
    {"bias": False},
    {"fuse": "mean"},
    {"diagnosis": "sigmoid"},
    {"pixels": "imagenet"},
    {"share_encoder": True},
    {"share_positions": True},
    {"positions": "factorised"},
    {"fss_hidden": 5},
    {"lower": "ceus", "upper": "bus"},
    {"lower": "ceus", "upper": "bus", "task_place": "modality"},
    {"upper": "bus"},
    {"image_size": (32, 40)},
    {"update": "sequential", "cross_attention": "symmetric", "norm": "pre", "stsa": "joint"},
    {"update": "sequential", "kv": "raw", "cross_attention": "global", "positions": "factorised"},
    {"kv": "raw", "cross_attention": "temporal", "stsa": "dot_product", "norm": "pre"},
    {"update": "sequential", "cross_attention": None, "ffn": "literal", "fuse": "mean"},
    {"acmst_layers": (2,)},
    *(
        {"stsa": stsa, "cross_attention": strategy}
        for stsa in ("factorised", "joint")
        for strategy in ("symmetric", "spatial", "temporal", "global", None)
    ),
]


def small(**fields: Any) -> AsyCMSTConfig:
    """The demo's model on frames of 2 x 2 cells."""
    sizes = {"frames": 5, "image_size": 32, "decoder_channels": (8, 8, 4, 4)}
    return dataclasses.replace(AsyCMSTConfig.demo(), **(sizes | fields))


def clips(config: AsyCMSTConfig, batch: int = 2, frames: int = 5) -> tuple[Tensor, Tensor]:
    bus, ceus = torch.rand(2, batch, 3, frames, *config.frame_size)
    return bus, ceus


@pytest.mark.parametrize("fields", OPTIONS, ids=str)
def test_a_padded_clip_equals_the_unpadded_one(fields: dict[str, Any]) -> None:
    config = small(**fields)
    model, (bus, ceus) = AsyCMST(config).eval(), clips(config)
    lengths = [3, 5]
    bus[0, :, 3:], ceus[0, :, 3:] = 0.5, float("nan")
    with torch.no_grad():
        padded = model(bus, ceus, torch.tensor(lengths))
        for row, n in enumerate(lengths):
            alone = model(bus[row : row + 1, :, :n], ceus[row : row + 1, :, :n])
            for name in ("logits", "features"):
                difference = (getattr(padded, name)[row] - getattr(alone, name)[0]).abs().max()
                assert difference < 1e-5, name
            for name in ("frame_scores", "mask_logits"):
                difference = (getattr(padded, name)[row, :n] - getattr(alone, name)[0]).abs().max()
                assert difference < 1e-5, name
    assert (padded.frame_scores[0, 3:] == 0).all()
    assert (padded.mask_logits[0, 3:] == 0).all()


@pytest.mark.parametrize("fields", [*OPTIONS, {"ceus_task": None, "bus_task": None}], ids=str)
def test_training_reaches_every_parameter(fields: dict[str, Any]) -> None:
    config = small(**fields)
    model, (bus, ceus) = AsyCMST(config), clips(config)
    mask = torch.rand(2, 5, *config.frame_size) > 0.5
    AsyCMSTLoss(config)(model(bus, ceus), torch.tensor([0, 1]), mask).total.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_every_option_is_another_function() -> None:
    found: list[Tensor] = []
    for fields in OPTIONS:
        if "image_size" in fields or "fss_hidden" in fields:
            continue  # other inputs, or the frame scores alone
        torch.manual_seed(0)
        config = small(**fields)
        model = AsyCMST(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                seed = zlib.crc32(name.encode())
                parameter.normal_(generator=torch.Generator().manual_seed(seed))
            bus, ceus = torch.rand(2, 1, 3, 5, 32, 32, generator=torch.Generator().manual_seed(1))
            output = model(bus, ceus)
        seen = torch.cat([x.flatten() for x in output if x is not None])
        assert not any(torch.equal(seen, other) for other in found), fields
        found.append(seen)


@pytest.mark.parametrize(
    "fields", [{"update": "sequential", "kv": "raw"}, {"norm": "pre", "kv": "raw"}], ids=str
)
def test_compiles_into_one_graph(fields: dict[str, Any]) -> None:
    config = small(**fields)
    model, (bus, ceus) = AsyCMST(config).eval(), clips(config)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        for lengths in (None, torch.tensor([3, 5])):
            expected, actual = model(bus, ceus, lengths), compiled(bus, ceus, lengths)
            for a, b in zip(actual, expected, strict=True):
                torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("lower", "upper", "reached"),
    [
        ("bus", "ceus", (True, True)),
        ("ceus", "bus", (True, True)),
        ("bus", "bus", (True, False)),
        ("ceus", "ceus", (False, True)),
    ],
)
def test_each_branch_sees_its_modality(lower: str, upper: str, reached: tuple[bool, bool]) -> None:
    config = small(lower=lower, upper=upper)
    model, (bus, ceus) = AsyCMST(config).eval(), clips(config)
    bus.requires_grad_()
    ceus.requires_grad_()
    gradients = torch.autograd.grad(model(bus, ceus).logits.sum(), (bus, ceus), allow_unused=True)
    assert tuple(g is not None and bool(g.any()) for g in gradients) == reached


def test_swapped_modalities_are_swapped_clips() -> None:
    """Fig 9: the branches keep their attention, the clips change places."""
    config = small()
    model, (bus, ceus) = AsyCMST(config).eval(), clips(config)
    swapped = AsyCMST(dataclasses.replace(config, lower="ceus", upper="bus")).eval()
    swapped.load_state_dict(model.state_dict())
    with torch.no_grad():
        for a, b in zip(swapped(bus, ceus), model(ceus, bus), strict=True):
            assert torch.equal(a, b)
        assert not torch.allclose(swapped(bus, ceus).logits, model(bus, ceus).logits, atol=1e-4)


def test_tasks_that_follow_their_modality_read_the_other_branch() -> None:
    config = small(lower="ceus", upper="bus", task_place="modality")
    model, (bus, ceus) = AsyCMST(config).eval(), clips(config)
    bus.requires_grad_()
    ceus.requires_grad_()
    output = model(bus, ceus)
    for task, reached in (
        (output.frame_scores, (False, True)),
        (output.mask_logits, (True, False)),
    ):
        gradients = torch.autograd.grad(
            task.sum(), (bus, ceus), allow_unused=True, retain_graph=True
        )
        assert tuple(g is not None and bool(g.any()) for g in gradients) == reached


def test_a_shared_encoder_is_one_module_and_its_gradients_add() -> None:
    config = small(share_encoder=True)
    shared = AsyCMST(config).eval()
    assert shared.encoders.bus is shared.encoders.ceus
    own = AsyCMST(small()).eval()
    own.load_state_dict(shared.state_dict())
    bus, ceus = clips(config)
    for model in (shared, own):
        model(bus, ceus).logits.sum().backward()
    total = own.encoders.bus.project.weight.grad + own.encoders.ceus.project.weight.grad
    torch.testing.assert_close(shared.encoders.bus.project.weight.grad, total)


def test_a_shared_encoder_is_explained_for_both_clips() -> None:
    config = small(share_encoder=True)
    shared, own = AsyCMST(config).eval(), AsyCMST(small()).eval()
    own.load_state_dict(shared.state_dict())
    bus, ceus = clips(config)
    for a, b in zip(
        gradcam_plus_plus(shared, bus, ceus), gradcam_plus_plus(own, bus, ceus), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_shared_positions_are_one_table() -> None:
    model = AsyCMST(small(share_positions=True))
    assert model.embed_bus is model.embed_ceus
    tables = [name for name, _ in model.named_parameters() if "positions" in name]
    assert tables == ["embed_bus.positions.table"]


def test_the_mean_of_the_streams_is_half_their_sum() -> None:
    """A factor that the classifier's weight takes up (Eq 15)."""
    config = small(fuse="mean")
    mean, total = AsyCMST(config).eval(), AsyCMST(small()).eval()
    weights = mean.state_dict()
    total.load_state_dict(weights | {"classifier.fc.weight": weights["classifier.fc.weight"] / 2})
    bus, ceus = clips(config)
    with torch.no_grad():
        a, b = mean(bus, ceus), total(bus, ceus)
    torch.testing.assert_close(a.logits, b.logits)
    torch.testing.assert_close(2 * a.features, b.features)


def test_one_logit_is_the_log_odds_and_its_loss_the_binary_cross_entropy() -> None:
    config = small(diagnosis="sigmoid")
    model, (bus, ceus) = AsyCMST(config).eval(), clips(config)
    output, label = model(bus, ceus), torch.tensor([0, 1])
    odds = output.logits[:, 1]
    assert not output.logits[:, 0].any()
    torch.testing.assert_close(output.logits.softmax(1)[:, 1], odds.sigmoid())
    loss = AsyCMSTLoss(config)(output, label).diagnosis
    expected = torch.nn.functional.binary_cross_entropy_with_logits(odds, label.float())
    torch.testing.assert_close(loss, expected)
    assert sum(p.numel() for p in model.classifier.parameters()) == config.dim + 1


def test_imagenet_pixels_are_normed_channel_by_channel_and_back() -> None:
    model = AsyCMST(small(pixels="imagenet"))
    clip = torch.rand(2, 3, 4, 8, 8)
    normed = model.pixels(clip)
    mean = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1, 1)
    torch.testing.assert_close(normed * std + mean, clip)
    assert not [name for name in model.state_dict() if name.startswith("pixels")]


def test_an_oblong_frame_has_an_oblong_grid() -> None:
    config = small(image_size=(32, 72))
    model = AsyCMST(config).eval()
    assert model.embed_bus.positions.table.shape[2] == 2 * 5
    assert model(*clips(config)).mask_logits.shape == (2, 5, 32, 72)
    with pytest.raises(ValueError, match=r"frames of 72 x 32.* 32 x 72"):
        model(*torch.rand(2, 1, 3, 5, 72, 32))


@pytest.mark.parametrize("update", ["parallel", "sequential"])
@pytest.mark.parametrize("kv", ["stsa", "raw"])
def test_attention_inputs_are_found_in_every_order(update: str, kv: str) -> None:
    config = small(update=update, kv=kv)
    model, (bus, ceus) = AsyCMST(config).eval(), clips(config)
    found = attention_inputs(model, bus, ceus)
    assert len(found) == 2
    layer = model.layers[0]
    with torch.no_grad():
        lower, upper = model.encoders(bus, ceus)
        x_bus, x_ceus = model.embed_bus(lower), model.embed_ceus(upper)
        asks = layer.cross.attention.project_bus.query(layer.self_bus(x_bus, None))
        read = layer.self_ceus(x_ceus, None) if kv == "stsa" else x_ceus
        keys, _ = layer.cross.attention.project_ceus.key_value(read)
    torch.testing.assert_close(found[0].q_bus, asks)
    torch.testing.assert_close(found[0].k_ceus, keys)
