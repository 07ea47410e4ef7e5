"""A pair of clips that is still being recorded: each frame is encoded once, when it arrives."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asycmst.config import Branch, Modality
from asycmst.data.clips import Clip, View, frames_to_tensor
from asycmst.data.pairs import common_duration, pair_indices
from asycmst.data.sampling import IntArray, Source, UInt8Array, fit_frame, half
from asycmst.inference.prepare import inference_copy
from asycmst.model import AsyCMST, BranchFeatures


class Estimate(NamedTuple):
    """What the model says about the frames that have arrived so far.

    Attributes:
        probability_malignant: in [0, 1].
        frame_scores: T scores of the sampled frames (Eq 2), None where the model sorts none.
        mask: bool, shape (H', W'), the nodule in the last sampled BUS frame; None where the model
            has no segmentation.
        bus_frames: how many BUS frames have arrived.
        ceus_frames: how many CEUS frames have arrived.
        seconds: the time that both clips cover so far, None where no times were given.
    """

    probability_malignant: float
    frame_scores: list[float] | None
    mask: NDArray[np.bool_] | None
    bus_frames: int
    ceus_frames: int
    seconds: float | None


class ClipStream:
    """Two clips that grow, and what a model says about them at any moment.

    The encoders see each frame on its own, and each frame once. An estimate takes T moments of
    what has arrived, as :func:`asycmst.data.pairs.load_pair` takes them of a finished pair, and
    runs the rest of the model on the kept features; it equals the model's answer on the finished
    pair to float rounding. BUS and CEUS may come at different rates and in any order between
    each other:

        stream = ClipStream(model)
        for modality, picture, seconds in camera:
            stream.push(modality, picture, seconds)
            if stream.ready:
                print(stream.estimate().probability_malignant)

    As a clip grows any earlier frame may be sampled, so features are kept for all of them:
    4 H W D bytes for a frame and a branch that sees it, 75 264 for the paper's model and 3 072
    for the demo's. Pictures are kept only where asked for, 3 H' W' bytes a frame (150 528 and
    12 288).

    Args:
        model: in evaluation mode; it is copied and stays as it is.
        bus_view: the half of a picture with the B-mode image, None for all of it.
        ceus_view: the half with the contrast image.
        keep_pictures: also keeps the pictures, in the model's size, for `clips`.

    Raises:
        ValueError: the model is in training mode or mixes the frames of a clip.
    """

    def __init__(
        self,
        model: AsyCMST,
        *,
        bus_view: View | None = None,
        ceus_view: View | None = None,
        keep_pictures: bool = False,
    ) -> None:
        if model.training:
            raise ValueError("the model is in training mode; call model.eval() before streaming")
        if model.config.emulate_layout:
            raise ValueError(
                "this model has emulate_layout, which mixes the frames of a clip, so none can be "
                "encoded on its own; set emulate_layout=False or predict the finished clip"
            )
        self._model = inference_copy(model)
        seen: dict[Branch, Modality] = {"lower": model.config.lower, "upper": model.config.upper}
        views: dict[Modality, View | None] = {"bus": bus_view, "ceus": ceus_view}
        self._growing = {
            modality: _GrowingClip(
                modality.upper(),
                view,
                [branch for branch in seen if seen[branch] == modality],
                keep_pictures,
            )
            for modality, view in views.items()
        }

    def push(self, modality: Modality, picture: UInt8Array, time: float | None = None) -> None:
        """Take in the next frame of a clip; as `extend` with one frame."""
        self.extend(modality, [picture], None if time is None else [time])

    def extend(
        self,
        modality: Modality,
        pictures: Sequence[UInt8Array],
        times: Sequence[float] | None = None,
    ) -> None:
        """Take in the next frames of a clip and encode them.

        Args:
            modality: "bus" or "ceus".
            pictures: each (H, W) or (H, W, 3), uint8, all of one clip of the same size.
            times: seconds, one for each picture, never decreasing; None where unknown. A clip
                with a frame of unknown time is sampled by the count of its frames.

        Raises:
            ValueError: a time or a size does not fit what has arrived; nothing is taken in.
        """
        growing = self._growing[modality]
        growing.check(pictures, times)
        longest = self._model.config.frames
        for start in range(0, len(pictures), longest):
            part = slice(start, start + longest)
            growing.take_in(self._model, pictures[part], None if times is None else times[part])

    @property
    def frames(self) -> tuple[int, int]:
        """How many BUS and CEUS frames have arrived."""
        return self._growing["bus"].frames, self._growing["ceus"].frames

    @property
    def ready(self) -> bool:
        """Whether a frame of each clip has arrived."""
        return all(self.frames)

    def sources(self) -> tuple[Source, Source]:
        """What is known about the BUS and the CEUS clip so far.

        Raises:
            ValueError: one of them has no frame yet.
        """
        return self._growing["bus"].source(), self._growing["ceus"].source()

    def estimate(self) -> Estimate:
        """What the model says about the frames that have arrived.

        Raises:
            ValueError: a clip has no frame yet, or the model answers NaN.
        """
        bus, ceus = self.sources()
        indices = pair_indices(bus, ceus, self._model.config.frames)
        chosen: dict[Branch, Tensor] = {}
        for growing, taken in zip(self._growing.values(), indices, strict=True):
            chosen |= growing.features_of(taken)
        with torch.inference_mode():
            output = self._model.from_features(BranchFeatures(**chosen))
        probability = float(output.logits.double().softmax(dim=1)[0, 1])
        if math.isnan(probability):
            raise ValueError("the model answers NaN: its training diverged, use another one")
        return Estimate(
            probability_malignant=probability,
            frame_scores=None if output.frame_scores is None else output.frame_scores[0].tolist(),
            mask=None
            if output.mask_logits is None
            else (output.mask_logits[0, -1] > 0).numpy(force=True),
            bus_frames=bus.frames,
            ceus_frames=ceus.frames,
            seconds=common_duration(bus, ceus),
        )

    def clips(self, bus_name: str, ceus_name: str) -> tuple[Clip, Clip]:
        """The BUS and the CEUS clip of T frames that `estimate` would take now.

        Args:
            bus_name: becomes the `source` of the BUS clip.
            ceus_name: the same of the CEUS clip.

        Raises:
            ValueError: a clip has no frame yet, or the stream keeps no pictures.
        """
        names = (bus_name, ceus_name)
        indices = pair_indices(*self.sources(), self._model.config.frames)
        bus, ceus = (
            growing.clip_of(taken, name)
            for growing, taken, name in zip(self._growing.values(), indices, names, strict=True)
        )
        return bus, ceus


class _GrowingClip:
    """The frames of one modality, and their features in the branches that see them."""

    def __init__(
        self,
        name: str,
        view: View | None,
        branches: list[Branch],
        keep_pictures: bool,
    ) -> None:
        self.frames = 0
        self._name = name
        self._view = view
        self._features: dict[Branch, list[Tensor]] = {branch: [] for branch in branches}
        self._pictures: list[UInt8Array] | None = [] if keep_pictures else None
        self._size: tuple[int, int] | None = None
        self._times: list[float] = []

    def check(self, pictures: Sequence[UInt8Array], times: Sequence[float] | None) -> None:
        if times is not None and len(times) != len(pictures):
            raise ValueError(
                f"{self._name}: {len(times)} times for {len(pictures)} frames; give one each"
            )
        size = self._size
        for picture in pictures:
            if (
                picture.dtype != np.uint8
                or picture.ndim not in (2, 3)
                or (picture.ndim == 3 and picture.shape[2] != 3)
            ):
                raise ValueError(
                    f"{self._name}: a frame is {picture.dtype} of shape {picture.shape}; give "
                    "uint8 of shape (H, W) or (H, W, 3)"
                )
            size = size or picture.shape[:2]
            if picture.shape[:2] != size:
                height, width = picture.shape[:2]
                raise ValueError(
                    f"{self._name}: frame {self.frames} is {width} x {height} pixels and those "
                    f"before are {size[1]} x {size[0]}; the frames of a clip share one size"
                )
        last = self._times[-1] if self._times else -math.inf
        for time in times or ():
            if not math.isfinite(time) or time < last:
                raise ValueError(
                    f"{self._name}: a frame at {time:g} s comes after one at {last:g} s; give "
                    "frames in the order of their times"
                )
            last = time

    def take_in(
        self, model: AsyCMST, pictures: Sequence[UInt8Array], times: Sequence[float] | None
    ) -> None:
        self._size = pictures[0].shape[:2]
        box = None if self._view is None else half(*self._size, self._view)
        fitted = [fit_frame(picture, model.config.frame_size, box) for picture in pictures]
        encoded = self._encode(model, np.stack(fitted))
        for branch, kept in self._features.items():
            kept.extend(encoded[branch])
        if self._pictures is not None:
            self._pictures.extend(fitted)
        self._times.extend(times or ())
        self.frames += len(pictures)

    @torch.inference_mode()
    def _encode(self, model: AsyCMST, fitted: UInt8Array) -> dict[Branch, Tensor]:
        if not self._features:
            return {}
        device = next(model.parameters()).device
        clip = model.pixels(frames_to_tensor(fitted)[None].to(device))
        first, *others = self._features
        grids = {first: model.encoders.encode(clip, first)[0]}
        for branch in others:  # of a model that sees one modality twice
            shared = model.config.share_encoder
            grids[branch] = grids[first] if shared else model.encoders.encode(clip, branch)[0]
        return grids

    def source(self) -> Source:
        if self._size is None:
            raise ValueError(f"no {self._name} frame has arrived yet; push one first")
        times = None
        if len(self._times) == self.frames:
            times = np.asarray(self._times, dtype=np.float64) - self._times[0]
        return Source(self.frames, times, self._size)

    def features_of(self, indices: IntArray) -> dict[Branch, Tensor]:
        """(1, T, H, W, D) of the frames `indices` (T,) for each branch."""
        with torch.inference_mode():
            return {
                branch: torch.stack([kept[index] for index in indices])[None]
                for branch, kept in self._features.items()
            }

    def clip_of(self, indices: IntArray, name: str) -> Clip:
        if self._pictures is None:
            raise ValueError("this stream keeps no pictures; make it with keep_pictures=True")
        times = self.source().times
        return Clip(
            np.stack([self._pictures[index] for index in indices]),
            indices,
            None if times is None else times[indices],
            name,
        )
