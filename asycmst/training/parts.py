"""A step's loss computed in parts, one after another or in several processes.

The gradients of the parts are averaged. That is the gradient of the whole batch once each mean of
a part is scaled by the part's share: the Dice loss (Eq 5) is a mean over annotated frames, of
which a part may hold more or fewer than another, and a weighted diagnosis loss one over class
weights.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from asycmst.data.samples import Item
from asycmst.losses import AsyCMSTLosses
from asycmst.model import AsyCMSTOutput


class DividedLoss(Protocol):
    """A loss that says what its means divide by; AsyCMSTLoss is one."""

    fss_weight: float
    segmentation_weight: float

    def __call__(
        self,
        output: AsyCMSTOutput,
        label: Tensor,
        mask: Tensor | None = None,
        mask_valid: Tensor | None = None,
        *,
        bus: Tensor | None = None,
    ) -> AsyCMSTLosses: ...

    def divisors(self, label: Tensor, mask_valid: Tensor) -> Tensor: ...


def split(batch: Item, parts: int) -> list[Item]:
    """A batch as `parts` batches of about equal size, in order; fewer for a smaller batch."""
    if parts == 1:
        return [batch]
    size = -(-len(batch["label"]) // parts)
    return [
        Item(
            bus=batch["bus"][start : start + size],
            ceus=batch["ceus"][start : start + size],
            mask=batch["mask"][start : start + size],
            mask_valid=batch["mask_valid"][start : start + size],
            label=batch["label"][start : start + size],
            id=batch["id"][start : start + size],
        )
        for start in range(0, len(batch["label"]), size)
    ]


def shares(
    loss: DividedLoss,
    parts: Sequence[Item],
    processes: int,
    over_processes: Callable[[Tensor], Tensor],
) -> list[Tensor | None]:
    """What diagnosis, frame sorting and Dice loss of each part are multiplied by, float32 (3,).

    Args:
        loss: the objective.
        parts: of this process.
        processes: how many there are, each with as many parts.
        over_processes: sums a tensor over them.

    Returns:
        One entry for each part; None where the part is the whole batch.
    """
    if len(parts) * processes == 1:
        return [None]
    mine = [loss.divisors(part["label"], part["mask_valid"]) for part in parts]
    whole = over_processes(sum(mine[1:], mine[0].clone()))
    # A batch without any annotated frame has a Dice loss of 0, whatever it is multiplied by.
    return [part * (len(parts) * processes) / whole.clamp(min=1e-12) for part in mine]


def loss_of_part(
    loss: DividedLoss, output: AsyCMSTOutput, part: Item, share: Tensor | None
) -> AsyCMSTLosses:
    """The losses of a part, scaled so that their mean over all parts is that of the batch."""
    losses = loss(output, part["label"], part["mask"], part["mask_valid"], bus=part["bus"])
    if share is None:
        return losses
    diagnosis, fss, segmentation = (x * share[i] for i, x in enumerate(losses[1:]))
    total = diagnosis + loss.fss_weight * fss + loss.segmentation_weight * segmentation
    return AsyCMSTLosses(total, diagnosis, fss, segmentation)
