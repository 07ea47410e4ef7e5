"""CUDA graphs: the launches of a model for one kind of input, recorded and started as one."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from asycmst.model import AsyCMSTOutput

Call = Callable[..., AsyCMSTOutput]
Recording = tuple[Callable[[], None], AsyCMSTOutput]
"""What repeats a call on the inputs it was recorded with, and where its outputs then are."""
Recorder = Callable[[Call, Sequence[Tensor | None], torch.device], Recording]

_WARM_UP = 3  # calls before a recording, which choose kernels and take their memory


class RecordedCalls:
    """A function that is recorded for every new kind of input, up to a number of them.

    Args:
        call: Of tensors and None; does no more than launch kernels, and reads no value.
        record: Makes a recording on `device`; another one serves to test without a GPU.
        device: Where recorded inputs lie.
        most: Recordings that are kept; inputs of further kinds go to `call` itself.
    """

    def __init__(
        self,
        call: Call,
        device: torch.device,
        record: Recorder | None = None,
        most: int = 4,
    ) -> None:
        self.call = call
        self.device = device
        self.record = record_on_cuda if record is None else record
        self.most = most
        self._kept: dict[tuple[object, ...], tuple[Sequence[Tensor | None], Recording]] = {}

    def __call__(self, *inputs: Tensor | None) -> AsyCMSTOutput:
        """As `call`; the outputs are the caller's own."""
        kind = tuple(None if x is None else (x.shape, x.dtype) for x in inputs)
        if kind not in self._kept:
            here = [None if x is None else x.to(self.device, copy=True) for x in inputs]
            here = [None if x is None else x.contiguous() for x in here]
            if len(self._kept) == self.most:
                return self.call(*here)
            self._kept[kind] = here, self.record(self.call, here, self.device)
        places, (replay, output) = self._kept[kind]
        for place, given in zip(places, inputs, strict=True):
            if place is not None and given is not None:
                place.copy_(given, non_blocking=True)
        replay()
        return AsyCMSTOutput(*(None if x is None else x.clone() for x in output))  # type: ignore[arg-type]


def record_on_cuda(call: Call, inputs: Sequence[Tensor | None], device: torch.device) -> Recording:
    """A CUDA graph of one call on `device`, which need not be the current GPU."""
    with torch.cuda.device(device):
        # Not torch's own stream for graphs: it lies on the GPU that was current at the first one.
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                call(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            output = call(*inputs)
    return graph.replay, output
