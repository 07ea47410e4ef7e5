"""The whole network: contract, sizes, padding, and what depends on what."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from asycmst.config import AsyCMSTConfig
from asycmst.losses import AsyCMSTLoss
from asycmst.model import AsyCMST, AsyCMSTOutput, attention_inputs
from asycmst_ops import attention_weights


def small(**fields: Any) -> AsyCMSTConfig:
    """The demo's model on frames of 2 x 2 cells."""
    return dataclasses.replace(
        AsyCMSTConfig.demo(), frames=5, image_size=32, decoder_channels=(8, 8, 4, 4), **fields
    )


def make(**fields: Any) -> AsyCMST:
    """An untrained model in evaluation mode whose layers and positions matter."""
    model = AsyCMST(small(**fields))
    for embedding in (model.embed_bus, model.embed_ceus):
        nn.init.normal_(embedding.positions.table)
    return model.eval()


def clips(batch: int = 2, frames: int = 5, size: int = 32) -> tuple[Tensor, Tensor]:
    bus, ceus = torch.rand(2, batch, 3, frames, size, size)
    return bus, ceus


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def reaches(output: Tensor, *inputs: Tensor) -> list[bool]:
    weights = torch.randn_like(output)
    gradients = torch.autograd.grad((output * weights).sum(), inputs, allow_unused=True)
    return [g is not None and bool(g.abs().max() > 0) for g in gradients]


def test_demo_sizes() -> None:
    config = AsyCMSTConfig.demo()
    model = AsyCMST(config).eval()
    with torch.no_grad():
        output = model(*clips(2, 8, 64))
    assert output.logits.shape == (2, 2)
    assert output.frame_scores.shape == (2, 8)
    assert output.mask_logits.shape == (2, 8, 64, 64)
    assert output.features.shape == (2, 48)
    assert model.config is config


def test_demo_parameter_count() -> None:
    assert count(AsyCMST(AsyCMSTConfig.demo())) == 297_932


def test_paper_sizes_and_parameter_count() -> None:
    model = AsyCMST().eval()
    assert model.config == AsyCMSTConfig.paper()
    assert count(model.encoders.bus) == count(model.encoders.ceus) == 11_373_504
    assert count(model.embed_bus) == 16 * 49 * 384
    # Per stream: self-attention, cross-attention, feed-forward and three norms.
    stream = 2 * (4 * 384**2 + 4 * 384) + 2 * 384 * 2048 + 2048 + 384 + 3 * 2 * 384
    assert count(model.layers) == 6 * 2 * stream
    assert count(model) == 58_892_148
    with torch.no_grad():
        output = model(*clips(1, 1, 224))
    assert output.mask_logits.shape == (1, 1, 224, 224)
    assert output.features.shape == (1, 384)


@pytest.mark.parametrize("frames", [1, 3, 5])
def test_shorter_clips_are_taken(frames: int) -> None:
    output = make()(*clips(2, frames))
    assert output.frame_scores.shape == (2, frames)
    assert output.mask_logits.shape == (2, frames, 32, 32)


def test_sizes_that_no_stride_divides() -> None:
    model = AsyCMST(dataclasses.replace(small(), image_size=41)).eval()
    assert model(*clips(1, 2, 41)).mask_logits.shape == (1, 2, 41, 41)
    assert model.embed_bus.positions.table.shape[2] == 9


@pytest.mark.parametrize(
    ("fields", "absent", "off"),
    [
        ({"ceus_task": None}, "frame_sorting", "frame_scores"),
        ({"fss_weight": 0}, "frame_sorting", "frame_scores"),
        ({"bus_task": None}, "mask_decoder", "mask_logits"),
        ({"segmentation_weight": 0}, "mask_decoder", "mask_logits"),
    ],
    ids=str,
)
def test_a_task_that_is_off_has_no_parameters(
    fields: dict[str, Any], absent: str, off: str
) -> None:
    full, model = make(), make(**fields)
    names = set(full.state_dict()) - set(model.state_dict())
    assert names
    assert all(name.startswith(absent + ".") for name in names)
    output = model(*clips())
    assert [f for f in output._fields if getattr(output, f) is None] == [off]


def test_no_cross_attention_has_no_parameters_of_it() -> None:
    full, model = make(), make(cross_attention=None)
    names = set(full.state_dict()) - set(model.state_dict())
    assert names
    assert all(".cross." in name for name in names)
    assert not any(".cross." in name for name in model.state_dict())


def test_the_diagnosis_needs_neither_auxiliary_head() -> None:
    model, (bus, ceus) = make(), clips()
    full = model(bus, ceus)
    model.frame_sorting = None
    model.mask_decoder = None
    bare = model(bus, ceus)
    assert torch.equal(bare.logits, full.logits)
    assert torch.equal(bare.features, full.features)
    assert bare.frame_scores is None
    assert bare.mask_logits is None


def test_padding_matters_when_no_lengths_are_given() -> None:
    model, (bus, ceus) = make(), clips()
    with torch.no_grad():
        assert not torch.allclose(model(bus, ceus).logits, model(bus[:, :, :3], ceus[:, :, :3])[0])


@pytest.mark.parametrize(("given", "meant"), [(9, 5), (0, 1), (-2, 1)])
def test_lengths_are_clamped(given: int, meant: int) -> None:
    model, (bus, ceus) = make(), clips(1)
    with torch.no_grad():
        output = model(bus, ceus, torch.tensor([given]))
        expected = model(bus, ceus, torch.tensor([meant], dtype=torch.int32))
    assert torch.equal(output.logits, expected.logits)
    assert torch.equal(output.mask_logits, expected.mask_logits)


def test_nan_padding_leaves_training_finite() -> None:
    config = small()
    model, (bus, ceus) = AsyCMST(config).train(), clips()
    bus[0, :, 2:] = ceus[0, :, 2:] = float("nan")
    lengths = torch.tensor([2, 5])
    output = model(bus, ceus, lengths)
    losses = AsyCMSTLoss(config)(
        output, torch.tensor([0, 1]), torch.ones(2, 5, 32, 32), frame_lengths=lengths
    )
    losses.total.backward()
    assert all(loss.isfinite() for loss in losses)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_what_each_output_depends_on() -> None:
    model, (bus, ceus) = make(), clips(1)
    bus.requires_grad_()
    ceus.requires_grad_()
    output = model(bus, ceus)
    assert reaches(output.logits, bus, ceus) == [True, True]
    assert reaches(model(bus, ceus).frame_scores, bus, ceus) == [False, True]
    assert reaches(model(bus, ceus).mask_logits, bus, ceus) == [True, False]


def test_the_modalities_have_different_roles() -> None:
    model, (bus, ceus) = make(), clips()
    assert not torch.allclose(model(bus, ceus).logits, model(ceus, bus).logits, atol=1e-4)


def test_frame_order_matters_through_the_positions_alone() -> None:
    model, (bus, ceus) = make(), clips()
    order = [4, 2, 0, 1, 3]
    shuffled = (bus[:, :, order], ceus[:, :, order])
    with torch.no_grad():
        assert not torch.allclose(model(bus, ceus).logits, model(*shuffled).logits, atol=1e-4)
        model.embed_bus.positions.table.zero_()
        model.embed_ceus.positions.table.zero_()
        torch.testing.assert_close(model(*shuffled).logits, model(bus, ceus).logits)


def test_a_batch_of_one_equals_the_row_of_a_batch() -> None:
    model, (bus, ceus) = make(), clips(3)
    with torch.no_grad():
        batch, row = model(bus, ceus), model(bus[1:2], ceus[1:2])
    for whole, single in zip(batch, row, strict=True):
        torch.testing.assert_close(whole[1:2], single)


def test_non_contiguous_clips_give_equal_outputs() -> None:
    model = make()
    stored = torch.rand(2, 2, 5, 32, 64, 3)
    bus, ceus = stored[:, :, :, :, ::2].permute(0, 1, 5, 2, 3, 4)
    assert not bus.is_contiguous()
    with torch.no_grad():
        strided, dense = model(bus, ceus), model(bus.contiguous(), ceus.contiguous())
    assert all(torch.equal(a, b) for a, b in zip(strided, dense, strict=True))


def test_weights_travel_with_the_config() -> None:
    model = make(acmst_layers=(1,))
    twin = AsyCMST(AsyCMSTConfig.from_dict(model.config.to_dict())).eval()
    twin.load_state_dict(model.state_dict())
    bus, ceus = clips()
    assert torch.equal(twin(bus, ceus).logits, model(bus, ceus).logits)


def test_autocast_gives_close_results() -> None:
    model, (bus, ceus) = make(), clips()
    with torch.no_grad():
        exact = model(bus, ceus)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(bus, ceus)
    assert rough.logits.dtype == torch.bfloat16
    for a, b in zip(rough, exact, strict=True):
        torch.testing.assert_close(a.float(), b, atol=0.1, rtol=0.1)


@pytest.mark.parametrize(
    ("bus", "ceus", "lengths", "error", "hint"),
    [
        ("uint8", None, None, TypeError, "bus is torch.uint8.*/ 255"),
        (None, "uint8", None, TypeError, "ceus is torch.uint8.*/ 255"),
        (
            (2, 5, 3, 32, 32),
            None,
            None,
            ValueError,
            r"bus has shape \(2, 5, 3, 32, 32\); give \(B, 3",
        ),
        (None, (2, 3, 32, 32), None, ValueError, "ceus has shape"),
        ((2, 3, 5, 32, 48), None, None, ValueError, "bus has frames of 32 x 48.* 32 x 32"),
        (None, (2, 3, 6, 32, 32), None, ValueError, "ceus has 6 frames.*1 to 5"),
        ((2, 3, 0, 32, 32), None, None, ValueError, "bus has 0 frames"),
        (None, (1, 3, 5, 32, 32), None, ValueError, "give equal shapes"),
        (None, (2, 3, 4, 32, 32), None, ValueError, "give equal shapes"),
        (None, None, torch.tensor([1.0, 2.0]), TypeError, "frame_lengths is torch.float32"),
        (None, None, torch.tensor([3]), ValueError, r"frame_lengths has shape \(1,\)"),
    ],
)
def test_bad_input_is_named_in_one_line(
    bus: Any, ceus: Any, lengths: Tensor | None, error: type[Exception], hint: str
) -> None:
    def clip(change: Any) -> Tensor:
        if change == "uint8":
            return torch.zeros(2, 3, 5, 32, 32, dtype=torch.uint8)
        return torch.rand(change or (2, 3, 5, 32, 32))

    with pytest.raises(error, match=hint) as caught:
        make()(clip(bus), clip(ceus), lengths)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "layers"),
    [
        ({}, 2),
        ({"acmst_layers": (2,)}, 1),
        ({"cross_attention": None}, 0),
        ({"cross_attention": "global"}, 2),
    ],
    ids=str,
)
def test_attention_inputs_of_each_cross_attention(fields: dict[str, Any], layers: int) -> None:
    model = make(**fields)
    found = attention_inputs(model, *clips(2, 4))
    assert len(found) == layers
    for entry in found:
        assert all(grid.shape == (2, 4, 4, 2, 24) for grid in entry)
        assert not any(grid.requires_grad for grid in entry)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_attention_inputs_are_what_the_layer_attends_with() -> None:
    model, (bus, ceus) = make(), clips()
    (entry, _) = attention_inputs(model, bus, ceus)
    layer = model.layers[0]
    with torch.no_grad():
        features_bus, features_ceus = model.encoders(bus, ceus)
        x_bus = layer.self_bus(model.embed_bus(features_bus), None)
        x_ceus = layer.self_ceus(model.embed_ceus(features_ceus), None)
        attention = layer.cross.attention
        value = attention.project_ceus(x_ceus)[..., 96:].unflatten(-1, (2, 24))
        when = attention_weights(entry.q_bus, entry.k_ceus, axis="time")
        read = torch.einsum("btnhu,bunhd->btnhd", when, value).flatten(-2)
        expected, _ = attention(x_bus, x_ceus, None)
    torch.testing.assert_close(attention.output_bus(read), expected)


def test_attention_inputs_need_evaluation_mode() -> None:
    with pytest.raises(ValueError, match=r"model\.eval\(\)"):
        attention_inputs(make().train(), *clips())


def test_attention_inputs_leave_no_hook_after_an_error() -> None:
    model, (bus, _) = make(), clips()
    with pytest.raises(ValueError, match="give equal shapes"):
        attention_inputs(model, bus, bus[:1])
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_compiles_into_one_graph() -> None:
    model, (bus, ceus) = make(), clips()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        for lengths in (None, torch.tensor([3, 5])):
            expected: AsyCMSTOutput = model(bus, ceus, lengths)
            actual = compiled(bus, ceus, lengths)
            for a, b in zip(actual, expected, strict=True):
                torch.testing.assert_close(a, b)
