"""Dropout whose mask costs a processor little (the paper's model is trained with 0.1).

On a CPU `torch.nn.functional.dropout` spends most of its time on drawing a float for each entry;
here sixteen random bits decide an entry. Other devices, and graphs that are compiled or exported,
use torch's own.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LEVELS = 1 << 16


def dropout(values: Tensor, probability: float) -> Tensor:
    """Zeroes each entry with `probability` and scales the others, so that the mean stays.

    On a CPU the probability is rounded to a multiple of 2^-16, and the scale follows it. What is
    dropped depends on torch's global generator alone.

    Args:
        values: Floating, any shape.
        probability: In [0, 1).

    Returns:
        The same shape; `values` itself where nothing is dropped.
    """
    if values.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(values, probability)
    dropped = round(probability * _LEVELS)
    if dropped == 0:
        return values
    entries = values.numel()
    seed = int(torch.randint(2**63 - 1, ()))
    words: np.ndarray = np.random.SFC64(seed).random_raw(-(-entries // 4))
    bits = torch.from_numpy(words.view(np.int16))[:entries].reshape(values.shape)
    keep = (bits >= dropped - _LEVELS // 2).to(values.dtype)
    return values * keep.mul_(_LEVELS / (_LEVELS - dropped))


class Dropout(nn.Dropout):
    """`dropout` in training, nothing in evaluation."""

    def forward(self, values: Tensor) -> Tensor:
        """Any shape to the same."""
        return dropout(values, self.p) if self.training and self.p else values
