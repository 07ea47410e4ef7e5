"""The training objective (Eq 3-5, 14, 16)."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from asycmst.config import AsyCMSTConfig, DiceScope
from asycmst.losses import AsyCMSTLoss, AsyCMSTLosses
from asycmst.model import AsyCMST, AsyCMSTOutput

EPSILON = 1e-6
DOUBLE = torch.float64


def outputs(
    batch: int = 2, frames: int = 3, size: int = 4, dtype: torch.dtype = DOUBLE
) -> AsyCMSTOutput:
    leaves = (
        torch.randn(batch, 2),
        torch.randn(batch, frames),
        torch.randn(batch, frames, size, size),
        torch.randn(batch, 5),
    )
    return AsyCMSTOutput(*(x.to(dtype).requires_grad_() for x in leaves))


def loss_of(output: AsyCMSTOutput, *, label: Any = (0, 1), **given: Any) -> AsyCMSTLosses:
    losses = AsyCMSTLoss()(output, torch.tensor(label), **given)
    assert isinstance(losses, AsyCMSTLosses)
    return losses


def segmentation(logits: Tensor, mask: Tensor, **given: Any) -> float:
    output = outputs(logits.shape[0], logits.shape[1])._replace(mask_logits=logits)
    label = [0] * logits.shape[0]
    return loss_of(output, label=label, mask=mask, **given).segmentation.item()


def algorithm_1(scores: list[float], clamp: float) -> float:
    """The paper's double loop."""
    frames, loss = len(scores), 0.0
    for t in range(frames - 1):
        for i in range(t + 1, frames):
            loss += -math.log(min(1 / (1 + math.exp(scores[t] - scores[i])), clamp))
    return loss / (frames * (frames - 1) / 2)


def test_diagnosis_is_the_cross_entropy_of_the_malignant_probability() -> None:
    output = outputs(3)
    labels = [1, 0, 1]
    probability = [row.softmax(0)[1].item() for row in output.logits]
    expected = -sum(
        y * math.log(p) + (1 - y) * math.log(1 - p)
        for y, p in zip(labels, probability, strict=True)
    )
    loss = loss_of(output, label=labels).diagnosis.item()
    assert loss == pytest.approx(expected / 3, abs=1e-12)


@pytest.mark.parametrize("scale", [1e3, -1e3])
def test_diagnosis_is_finite_for_large_logits(scale: float) -> None:
    output = outputs(1)._replace(logits=torch.tensor([[scale, -scale]]))
    assert loss_of(output, label=[0]).diagnosis.item() == pytest.approx(max(0, -2 * scale))


def test_frame_sorting_is_algorithm_1() -> None:
    output = outputs(2, 6)
    assert output.frame_scores is not None
    rows = output.frame_scores.tolist()
    expected = (algorithm_1(rows[0], 0.9) + algorithm_1(rows[1], 0.9)) / 2
    assert loss_of(output).fss.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "clamp", "expected"),
    [
        ([0.0, 0.0], 0.9, math.log(2)),
        ([0.0, 50.0], 0.9, 0.10536051565782628),
        ([0.0, 50.0], 0.5, math.log(2)),
        ([1000.0, 0.0], 0.9, 1000.0),
        ([3.0], 0.9, 0.0),
    ],
    ids=["equal", "clamped", "other clamp", "reversed", "one frame"],
)
def test_frame_sorting_by_hand(scores: list[float], clamp: float, expected: float) -> None:
    config = dataclasses.replace(AsyCMSTConfig(), fss_clamp=clamp)
    output = outputs(1)._replace(frame_scores=torch.tensor([scores], dtype=DOUBLE))
    losses = AsyCMSTLoss(config)(output, torch.tensor([0]))
    assert losses.fss.item() == pytest.approx(expected, rel=1e-9)


def test_dice_of_one_half_everywhere() -> None:
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1
    n = 16
    expected = 1 - (n / 2 + EPSILON) / (n + EPSILON)
    loss = segmentation(torch.zeros(1, 1, 4, 4, dtype=DOUBLE), mask)
    assert loss == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("predicted", "drawn", "expected"),
    [
        ("left", "left", 0.0),
        ("left", "right", 1 - EPSILON / (16 + EPSILON)),
        ("none", "none", 0.0),
        ("all", "left", 1 - (2 * 8 + EPSILON) / (16 + 8 + EPSILON)),
        ("none", "all", 1 - EPSILON / (16 + EPSILON)),
    ],
)
def test_dice_of_certain_predictions(predicted: str, drawn: str, expected: float) -> None:
    shapes = {name: torch.zeros(1, 1, 4, 4, dtype=DOUBLE) for name in ("left", "right", "none")}
    shapes["left"][..., :2] = shapes["right"][..., 2:] = 1
    shapes["all"] = torch.ones(1, 1, 4, 4, dtype=DOUBLE)
    logits = (shapes[predicted] - 0.5) * 1e4
    assert segmentation(logits, shapes[drawn]) == pytest.approx(expected, abs=1e-12)


def test_dice_is_the_mean_over_frames_and_not_over_pixels() -> None:
    logits = torch.full((1, 2, 4, 4), -1e4, dtype=DOUBLE)
    mask = torch.zeros(1, 2, 4, 4)
    logits[0, 0] = 1e4
    mask[0, 0] = 1  # a large lesion, found
    mask[0, 1, 0, 0] = 1  # a small one, missed
    assert segmentation(logits, mask) == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_masks_may_have_any_dtype(dtype: torch.dtype) -> None:
    logits, mask = torch.randn(2, 3, 4, 4, dtype=DOUBLE), torch.rand(2, 3, 4, 4) > 0.5
    assert segmentation(logits, mask.to(dtype)) == segmentation(logits, mask)


def test_masks_of_0_and_255_are_not_scaled() -> None:
    logits, mask = torch.randn(2, 3, 4, 4, dtype=DOUBLE), torch.rand(2, 3, 4, 4) > 0.5
    assert segmentation(logits, mask.byte() * 255) == segmentation(logits, mask)


def test_frames_without_annotation_add_nothing() -> None:
    output = outputs()
    assert output.mask_logits is not None
    mask = (torch.rand(2, 3, 4, 4) > 0.5).float()
    valid = torch.tensor([[True, False, False], [True, True, False]])
    mask[~valid] = float("nan")
    loss = loss_of(output, mask=mask, mask_valid=valid).segmentation
    frames = [
        segmentation(output.mask_logits[b : b + 1, t : t + 1], mask[b : b + 1, t : t + 1])
        for b, t in valid.nonzero().tolist()
    ]
    assert loss.item() == pytest.approx(sum(frames) / 3, abs=1e-12)
    (gradient,) = torch.autograd.grad(loss, output.mask_logits)
    assert torch.equal(gradient.abs().amax((2, 3)) > 0, valid)


@pytest.mark.parametrize("scope", ["frame", "sample", "batch"])
def test_the_sums_of_dice_run_over_a_frame_a_sample_or_the_batch(scope: DiceScope) -> None:
    """Eq 5 sums over i without saying over what."""
    output = outputs()
    mask = torch.rand(2, 3, 4, 4) > torch.tensor([0.2, 0.5, 0.9])[:, None, None]
    valid = torch.tensor([[True, False, True], [False, True, False]])
    assert output.mask_logits is not None
    p, g = output.mask_logits.sigmoid(), mask.double()
    above = 2 * (p * g).sum((2, 3)) * valid
    below = (p.sum((2, 3)) + g.sum((2, 3))) * valid
    if scope == "sample":
        above, below = above.sum(1), below.sum(1)
    elif scope == "batch":
        above, below = above.sum(), below.sum()
    pieces = 1 - (above + 1e-6) / (below + 1e-6)
    expected = pieces[valid].mean() if scope == "frame" else pieces.mean()
    loss = AsyCMSTLoss(dataclasses.replace(AsyCMSTConfig.demo(), dice_scope=scope))
    losses = loss(output, torch.tensor([0, 1]), mask, valid)
    torch.testing.assert_close(losses.segmentation, expected)


def test_the_scopes_of_dice_differ_where_lesions_differ_in_size() -> None:
    output = outputs()
    mask = torch.zeros(2, 3, 4, 4)
    mask[0], mask[1, 0, 0, 0] = 1, 1
    found = set()
    for scope in ("frame", "sample", "batch"):
        loss = AsyCMSTLoss(dataclasses.replace(AsyCMSTConfig.demo(), dice_scope=scope))
        found.add(round(loss(output, torch.tensor([0, 1]), mask).segmentation.item(), 6))
    assert len(found) == 3


def test_a_sample_without_annotation_does_not_count() -> None:
    output, mask = outputs(), torch.ones(2, 3, 4, 4)
    valid = torch.tensor([[False] * 3, [True] * 3])
    loss = AsyCMSTLoss(dataclasses.replace(AsyCMSTConfig.demo(), dice_scope="sample"))
    both = loss(output, torch.tensor([0, 1]), mask, valid).segmentation
    alone = AsyCMSTOutput(*(None if x is None else x[1:] for x in output))
    expected = loss(alone, torch.tensor([1]), mask[1:]).segmentation
    torch.testing.assert_close(both, expected)


@pytest.mark.parametrize("flags", ["no mask", "no frame valid"])
def test_without_annotation_the_loss_is_zero_with_a_graph(flags: str) -> None:
    output = outputs()
    given: dict[str, Any] = {}
    if flags == "no frame valid":
        none = torch.zeros(2, 3, dtype=torch.bool)
        given = {"mask": torch.ones(2, 3, 4, 4), "mask_valid": none}
    losses = loss_of(output, **given)
    assert losses.segmentation.item() == 0
    losses.total.backward()
    assert output.mask_logits is not None
    assert output.mask_logits.grad is not None
    assert not output.mask_logits.grad.any()


def test_padding_is_left_out_of_pairs_and_masks() -> None:
    output = outputs(2, 4)
    mask = torch.rand(2, 4, 4, 4) > 0.5
    lengths = torch.tensor([2, 4])
    losses = loss_of(output, mask=mask, frame_lengths=lengths)
    assert output.frame_scores is not None
    assert output.mask_logits is not None
    rows = output.frame_scores.tolist()
    sorting = (algorithm_1(rows[0][:2], 0.9) + algorithm_1(rows[1], 0.9)) / 2
    assert losses.fss.item() == pytest.approx(sorting, abs=1e-12)
    kept = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (1, 3)]
    frames = [
        segmentation(output.mask_logits[b : b + 1, t : t + 1], mask[b : b + 1, t : t + 1])
        for b, t in kept
    ]
    assert losses.segmentation.item() == pytest.approx(sum(frames) / 6, abs=1e-12)


def test_total_is_equation_14() -> None:
    config = AsyCMSTConfig(fss_weight=0.8, segmentation_weight=1.6)
    losses = AsyCMSTLoss(config)(outputs(), torch.tensor([0, 1]), torch.ones(2, 3, 4, 4))
    assert min(losses.diagnosis, losses.fss, losses.segmentation) > 0
    expected = losses.diagnosis + 0.8 * losses.fss + 1.6 * losses.segmentation
    torch.testing.assert_close(losses.total, expected)


def test_tasks_that_are_off_cost_exactly_nothing() -> None:
    output = outputs()._replace(frame_scores=None, mask_logits=None)
    losses = loss_of(output, mask=torch.ones(2, 3, 4, 4))
    assert losses.fss.item() == losses.segmentation.item() == 0
    assert torch.equal(losses.total, losses.diagnosis)


def test_no_part_trains_the_encoder_of_the_other_task() -> None:
    config = dataclasses.replace(AsyCMSTConfig.demo(), frames=3)
    model = AsyCMST(config)
    bus, ceus = torch.rand(2, 2, 3, 3, 64, 64)
    losses = AsyCMSTLoss(config)(
        model(bus, ceus), torch.tensor([0, 1]), torch.rand(2, 3, 64, 64) > 0.5
    )

    def trained(loss: Tensor) -> set[str]:
        names, parameters = zip(*model.named_parameters(), strict=True)
        found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
        reached = (n for n, g in zip(names, found, strict=True) if g is not None)
        return {".".join(name.split(".")[: 2 if "encoders" in name else 1]) for name in reached}

    assert trained(losses.segmentation) == {"encoders.bus", "mask_decoder"}
    assert trained(losses.fss) == {"encoders.ceus", "frame_sorting"}
    stream = {"embed_bus", "embed_ceus", "layers", "classifier"}
    assert trained(losses.diagnosis) == {"encoders.bus", "encoders.ceus"} | stream


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_outputs_are_widened_to_float32(dtype: torch.dtype) -> None:
    output = outputs(dtype=dtype)
    losses = loss_of(output, mask=torch.rand(2, 3, 4, 4) > 0.5)
    assert all(loss.dtype == torch.float32 for loss in losses)
    mask = torch.rand(2, 3, 4, 4) > 0.5
    wide = AsyCMSTOutput(*(x.detach().double() for x in output if x is not None))
    for half, exact in zip(loss_of(output, mask=mask), loss_of(wide, mask=mask), strict=True):
        assert half.item() == pytest.approx(exact.item(), rel=1e-5)


def test_large_half_masks_do_not_overflow() -> None:
    logits = torch.full((1, 1, 300, 300), 10.0, dtype=torch.float16)
    assert segmentation(logits, torch.ones(1, 1, 300, 300)) < 1e-3
    output = outputs(1, 1)._replace(mask_logits=logits)
    assert loss_of(output, label=[0]).segmentation.item() == 0


@pytest.mark.parametrize(
    ("given", "error", "hint"),
    [
        ({"label": torch.tensor([0.0, 1.0])}, TypeError, "label is torch.float32"),
        ({"label": torch.tensor([1])}, ValueError, r"label has shape \(1,\)"),
        ({"mask": torch.ones(2, 3, 4, 5)}, ValueError, r"mask has shape \(2, 3, 4, 5\)"),
        ({"mask_valid": torch.ones(2, 3).bool()}, ValueError, "without mask"),
        (
            {"mask": torch.ones(2, 3, 4, 4), "mask_valid": torch.ones(2, 3)},
            TypeError,
            "mask_valid is torch.float32",
        ),
        (
            {"mask": torch.ones(2, 3, 4, 4), "mask_valid": torch.ones(2).bool()},
            ValueError,
            r"mask_valid has shape \(2,\)",
        ),
    ],
)
def test_bad_input_is_named_in_one_line(
    given: dict[str, Tensor], error: type[Exception], hint: str
) -> None:
    with pytest.raises(error, match=hint) as caught:
        AsyCMSTLoss()(outputs(), **({"label": torch.tensor([0, 1])} | given))
    assert "\n" not in str(caught.value)
