"""Where training starts."""

import math
from typing import Protocol

import torch
from torch import nn

from asycmst.heads import MaskDecoder


class HasMasks(Protocol):
    """Training samples, some of whose frames are annotated."""

    def nodule_share(self) -> float:
        """Share of nodule pixels among all annotated ones."""
        ...


@torch.no_grad()
def start_at_base_rate(decoder: MaskDecoder, train: HasMasks) -> None:
    """Let the untrained decoder answer with the share of nodule pixels in `train`.

    A nodule covers a few hundredths of a frame. From a start at one half everywhere, the Dice
    loss (Eq 5) spends most of a short training on the background: its gradient there is small,
    and an optimiser of bounded steps moves one bias slowly.

    Raises:
        ValueError: no pixel of `train`, or every pixel, is nodule.
    """
    share = train.nodule_share()
    if not 0 < share < 1:
        raise ValueError(f"the nodule covers {share:.0%} of all training frames; check the masks")
    assert decoder.logit.bias is not None
    nn.init.constant_(decoder.logit.bias, math.log(share / (1 - share)))
