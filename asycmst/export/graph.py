"""A network as one graph of PyTorch's own operators, from clips to named tensors."""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from asycmst.encoders import FrameEncoder
from asycmst.inference.folding import fold_norms
from asycmst.jobs import JobError
from asycmst.training.networks import config_of
from asycmst_ops import decomposition_table

INPUTS = ("bus", "ceus", "frame_lengths")
_NAMESPACES = ("aten", "prims")


class NamedOutputs(nn.Module):
    """A model whose result is a dictionary of the tensors that it has.

    "logits" (B, 2) and "probability" (B,), that of class 1, malignant; "frame_scores" (B, T) and
    "mask_logits" (B, T, H', W') where the model makes them.

    Args:
        model: A network that answers with an AsyCMSTOutput, in evaluation mode.
        segments: Whether mask logits are wanted, if the model has them.
    """

    def __init__(self, model: nn.Module, segments: bool) -> None:
        super().__init__()
        self.model = model
        self.segments = segments

    def forward(
        self, bus: Tensor, ceus: Tensor | None = None, frame_lengths: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Clips as the model takes them; without `ceus` where it reads none."""
        output = self.model(*(x for x in (bus, ceus, frame_lengths) if x is not None))
        named = {"logits": output.logits, "probability": output.logits.softmax(1)[:, 1]}
        if output.frame_scores is not None:
            named["frame_scores"] = output.frame_scores
        if output.mask_logits is not None and self.segments:
            named["mask_logits"] = output.mask_logits
        return named


def random_clips(
    model: nn.Module, batch: int, *, lengths: bool, seed: int = 0
) -> tuple[Tensor, ...]:
    """Noise of differing brightness and contrast, shaped as the model takes clips.

    Args:
        model: Whose sizes they have.
        batch: B.
        lengths: Whether frame lengths (B,) come third, from T of the first clip downwards.
        seed: Of the noise.

    Returns:
        BUS and, unless the model reads none, CEUS, each (B, 3, T, H', W') in [0, 1]; and the
        lengths.
    """
    generator = torch.Generator().manual_seed(seed)
    config = config_of(model)
    frames, (height, width) = config.frames, config.frame_size
    clips: list[Tensor] = []
    for _ in range(2 if config.reads_ceus else 1):
        noise = torch.rand((batch, 3, frames, height, width), generator=generator)
        contrast, brightness = torch.rand((2, batch, 3, frames, 1, 1), generator=generator)
        clips.append(contrast * noise + (1 - contrast) * brightness)
    if lengths:
        clips.append(frames - torch.arange(batch) % frames)
    return tuple(clips)


def without_norms(model: nn.Module) -> nn.Module:
    """A copy whose frame encoders have taken the batch norms up in their convolutions.

    A trunk put in the place of an encoder's own is copied as it is.
    """
    copied = copy.deepcopy(model)
    for part in list(copied.modules()):
        if isinstance(part, FrameEncoder):
            fold_norms(part.trunk)
    return copied


@torch.no_grad()
def clip_graph(named: NamedOutputs, *, lengths: bool) -> ExportedProgram:
    """One graph for clips of the model's T and size, in batches of any size.

    Our operators are decomposed into their reference, and the paths of source files, which
    tracing notes at every operation, are taken out.

    Args:
        named: The model, float32, on the CPU.
        lengths: Whether the graph takes frame lengths as a third input.

    Returns:
        A program of (bus,), (bus, ceus) or (bus, ceus, frame_lengths).

    Raises:
        JobError: The model cannot be traced, or calls operators that are not PyTorch's.
    """
    batch = Dim("batch", min=1)
    example = random_clips(named.model, 2, lengths=lengths)
    shapes = tuple({0: batch} for _ in example)
    try:
        with without_remarks_of_torch():
            program: ExportedProgram = torch.export.export(named, example, dynamic_shapes=shapes)
            program = program.run_decompositions(decomposition_table())
    except Exception as error:  # of any kind: the code of a network of one's own runs here
        reason = str(error).partition("\n")[0]
        network = type(named.model).__name__
        raise JobError(f"torch.export cannot trace {network} for any batch: {reason}") from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
        called = node.target
        if isinstance(called, torch._ops.OpOverload) and called.namespace not in _NAMESPACES:
            raise JobError(f"the model calls {called}, which runs only where its package is")
    return program


@contextmanager
def without_remarks_of_torch() -> Iterator[None]:
    """Hide deprecations inside torch, about which the caller can do nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
