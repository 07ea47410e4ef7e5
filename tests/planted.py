"""Models that look where they are told to, and clips whose truth is known."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from asycmst.analysis.case_clips import CaseClips
from asycmst.data.clips import Clip
from asycmst.model import AsyCMST

_STRONG = 1e3


def plant_attention(
    model: AsyCMST, frame_of_place: Sequence[int], place_of_frame: Sequence[int]
) -> None:
    """BUS tokens of place n look at CEUS frame `frame_of_place[n]` alone, in every layer and head;
    CEUS tokens of frame t at the place `place_of_frame[t]` of their BUS frame alone."""
    frames, places = torch.tensor(frame_of_place), torch.tensor(place_of_frame)

    def hook(stream: str):  # type: ignore[no-untyped-def]
        def answer(layer: nn.Module, _inputs: object, output: Tensor) -> Tensor:
            packed = output.unflatten(-1, (3, layer.heads, -1)).clone()
            _, count, size = packed.shape[:3]
            if stream == "bus":
                wanted = frames.expand(count, size)
                own = torch.arange(size).expand(count, size)
            else:
                wanted = places[:, None].expand(count, size)
                own = torch.arange(count)[:, None].expand(count, size)
            packed[:, :, :, 0] = _one_hot(wanted, packed.shape[-1])
            packed[:, :, :, 1] = _one_hot(own, packed.shape[-1])
            return packed.flatten(-3)

        return answer

    for block in model.layers:
        block.cross.attention.project_bus.register_forward_hook(hook("bus"))
        block.cross.attention.project_ceus.register_forward_hook(hook("ceus"))


def _one_hot(index: Tensor, channels: int) -> Tensor:
    return _STRONG * nn.functional.one_hot(index, channels).float()[None, :, :, None]


def plant_brightness(model: AsyCMST) -> None:
    """Both encoders see the mean brightness of each 16 x 16 cell and nothing else."""
    for encoder in (model.encoders.bus, model.encoders.ceus):
        mix = nn.Conv2d(3, 32, kernel_size=1, bias=False)
        nn.init.constant_(mix.weight, 1.0)
        encoder.trunk = nn.Sequential(nn.AvgPool2d(16), mix)


def clip(frames: np.ndarray, seconds: float | None = None) -> Clip:
    """A clip of frames (T, H, W), over so many seconds."""
    colour = np.repeat(frames[..., None], 3, axis=-1).astype(np.uint8)
    count = len(frames)
    times = None if seconds is None else np.linspace(0, seconds, count)
    return Clip(colour, np.arange(count), times, "planted")


def spots(seconds: float | None = None) -> CaseClips:
    """8 frames of 64 x 64, black but for one bright cell in one frame: BUS cell (1, 2) of frame 3,
    CEUS cell (2, 0) of frame 6."""
    bus, ceus = np.zeros((2, 8, 64, 64))
    bus[3, 16:32, 32:48] = 250
    ceus[6, 32:48, 0:16] = 250
    return CaseClips(clip(bus, seconds), clip(ceus, seconds), same=False)
