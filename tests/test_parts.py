"""A step in parts is the step of the whole batch, and every process has its share of samples."""

from dataclasses import replace

import pytest
import torch

from asycmst.config import AsyCMSTConfig
from asycmst.data.phantom import PhantomConfig
from asycmst.data.samples import Item, PhantomDataset
from asycmst.losses import AsyCMSTLoss
from asycmst.model import AsyCMST
from asycmst.training.batches import TrainingBatches, ValidationBatches
from asycmst.training.draws import Draws
from asycmst.training.parts import loss_of_part, shares, split

CONFIG = replace(
    AsyCMSTConfig.demo(), frames=2, image_size=32, dim=16, ffn_dim=16, decoder_channels=(8, 8)
)


@pytest.fixture(scope="module")
def batch() -> Item:
    """Five samples, whose frames are annotated unevenly; the last ones not at all."""
    items = list(PhantomDataset(PhantomConfig(frames=2, size=32), 0, 5))
    collated: Item = torch.utils.data.default_collate(items)
    collated["mask_valid"] = torch.tensor([[1, 1], [1, 0], [0, 0], [0, 1], [0, 0]]).bool()
    return collated


@pytest.mark.parametrize(
    ("scope", "weights", "parts"),
    [("frame", None, 2), ("sample", (1.0, 3.0), 2), ("frame", (1.0, 3.0), 9)],
)
def test_parts_add_up_to_the_batch(
    batch: Item, scope: str, weights: tuple[float, float] | None, parts: int
) -> None:
    config = replace(CONFIG, dice_scope=scope)  # type: ignore[arg-type]
    model, loss = AsyCMST(config).double().eval(), AsyCMSTLoss(config, weights)

    def gradients(pieces: list[Item]) -> tuple[list[float], list[torch.Tensor]]:
        model.zero_grad()
        found = torch.zeros(4, dtype=torch.float64)
        for piece, share in zip(pieces, shares(loss, pieces, 1, lambda x: x), strict=True):
            output = model(piece["bus"].double(), piece["ceus"].double())
            losses = loss_of_part(loss, output, piece, share)
            (losses.total / len(pieces)).backward()
            found += torch.stack([x.detach() for x in losses]) / len(pieces)
        return found.tolist(), [x.grad.clone() for x in model.parameters() if x.grad is not None]

    whole, in_parts = gradients([batch]), gradients(split(batch, parts))
    assert in_parts[0] == pytest.approx(whole[0], rel=1e-6)
    for one, other in zip(whole[1], in_parts[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)


def test_without_shares_the_dice_loss_would_differ(batch: Item) -> None:
    """What `shares` is for: the mean of the parts' means is another number."""
    loss, model = AsyCMSTLoss(CONFIG), AsyCMST(CONFIG).eval()

    def dice(piece: Item) -> float:
        output = model(piece["bus"], piece["ceus"])
        return float(loss_of_part(loss, output, piece, None).segmentation.detach())

    naive = sum(dice(piece) for piece in split(batch, 5)) / 5
    assert abs(naive - dice(batch)) > 0.1


def test_splitting_keeps_order_and_everything(batch: Item) -> None:
    pieces = split(batch, 2)
    assert [len(piece["id"]) for piece in pieces] == [3, 2]
    assert [name for piece in pieces for name in piece["id"]] == list(batch["id"])
    for key in ("bus", "ceus", "mask", "mask_valid", "label"):
        joined = torch.cat([piece[key] for piece in pieces])  # type: ignore[literal-required]
        assert torch.equal(joined, batch[key])  # type: ignore[literal-required]
    assert split(batch, 1)[0] is batch


def test_class_weights_are_those_of_cross_entropy(batch: Item) -> None:
    output = AsyCMST(CONFIG).eval()(batch["bus"], batch["ceus"])
    ours = AsyCMSTLoss(CONFIG, (1.0, 4.0))(output, batch["label"], batch["mask"]).diagnosis
    weights = torch.tensor([1.0, 4.0])
    theirs = torch.nn.CrossEntropyLoss(weights)(output.logits, batch["label"])
    torch.testing.assert_close(ours, theirs)


def test_processes_share_each_step_and_epochs_differ() -> None:
    draws = Draws(3)
    alone = TrainingBatches(11, 4, draws)
    pair = [TrainingBatches(11, 4, draws, process, 2) for process in range(2)]
    seen = []
    for epoch in (1, 2):
        for batches in (alone, *pair):
            batches.begin(epoch)
        steps = list(alone)
        assert [len(step) for step in steps] == [4, 4]
        assert steps == [a + b for a, b in zip(*pair, strict=True)]
        assert len({index for step in steps for index in step}) == 8
        seen.append(steps)
    assert seen[0] != seen[1]
    alone.begin(2, done=1)
    assert list(alone) == seen[1][1:]


def test_validation_batches_are_the_same_for_any_number_of_processes() -> None:
    alone = list(ValidationBatches(10, 4))
    assert alone == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    two = [ValidationBatches(10, 4, process, 2) for process in range(2)]
    assert [len(batches) for batches in two] == [2, 2]
    assert [batches.real for batches in two] == [2, 1]
    own = [batch for batches in two for batch in list(batches)[: batches.real]]
    assert sorted(own) == alone


def test_too_few_samples_or_processes_that_do_not_divide_are_named() -> None:
    with pytest.raises(
        ValueError, match=r"3 training samples make no step of recipe.batch_size=4"
    ):
        TrainingBatches(3, 4, Draws(0))
    with pytest.raises(ValueError, match=r"batch_size=4 cannot be divided over 3 processes"):
        TrainingBatches(9, 4, Draws(0), 0, 3)
