"""What a written model answers, held against the model it was made from."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from asycmst.export.graph import NamedOutputs, random_clips
from asycmst.jobs import JobError

Runner = Callable[..., Mapping[str, Tensor]]
"""A written model: clips, as its graph takes them, to named tensors."""

BATCHES = (1, 2, 5)
TOLERANCE = 1e-4


@torch.no_grad()
def largest_differences(
    name: str, runner: Runner, named: NamedOutputs, *, lengths: bool
) -> dict[str, float]:
    """Run both on random clips in batches of several sizes.

    Args:
        name: Of the format, for messages.
        runner: What was written and loaded back.
        named: The model.
        lengths: Whether `runner` takes frame lengths.

    Returns:
        For each output the largest absolute difference.

    Raises:
        JobError: A difference exceeds 1e-4 of the largest value of its output, or 1e-4 where
            that value is below 1; an output is missing, extra or of another shape or dtype.
        ValueError: The model itself answers NaN or infinity.
    """
    largest: dict[str, float] = {}
    for batch in BATCHES:
        clips = random_clips(named.model, batch, lengths=lengths, seed=batch)
        expected, found = named(*clips), runner(*clips)
        if list(found) != list(expected):
            raise JobError(f"{name} answers {list(found)}, the model {list(expected)}")
        for output, want in expected.items():
            if not torch.isfinite(want).all():
                raise ValueError(
                    "the model of this checkpoint answers NaN or infinity: its training diverged, "
                    "use another one"
                )
            got = found[output]
            if got.shape != want.shape or got.dtype != want.dtype:
                raise JobError(
                    f"{name} answers {output} as {got.dtype} {tuple(got.shape)}, the model as "
                    f"{want.dtype} {tuple(want.shape)}"
                )
            difference = (got - want).abs().max().item()
            allowed = TOLERANCE * max(1.0, want.abs().max().item())
            if not difference <= allowed:
                raise JobError(
                    f"{name} answers {output} of {batch} random clips {difference:.3g} away from "
                    f"the model, {allowed:.3g} are allowed; nothing is written"
                )
            largest[output] = max(largest.get(output, 0.0), difference)
    return largest
