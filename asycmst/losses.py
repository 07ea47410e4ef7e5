"""The training objective: diagnosis plus the two auxiliary tasks (Section 3.4)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from monai.losses.dice import DiceLoss
from torch import Tensor, nn

from asycmst.config import AsyCMSTConfig
from asycmst.model import AsyCMSTOutput
from asycmst.self_supervision import NODULES, SaliencyObjective
from asycmst_ops import fss_ranking_loss

_EPSILON = 1e-6  # of Eq 5


class AsyCMSTLosses(NamedTuple):
    """Eq 14 and its parts before weighting, scalars; the part of a task that is off is 0."""

    total: Tensor
    diagnosis: Tensor
    fss: Tensor
    segmentation: Tensor


class AsyCMSTLoss(nn.Module):
    """L = L_Diag + w1 * L_FSS + w2 * L_Seg (Eq 14).

    L_Diag is the two-class cross entropy (Eq 16), L_FSS the ranking loss of the frame scores
    (Eq 3-4), L_Seg the Dice loss (Eq 5) of each annotated frame, of the annotated frames of each
    sample together, or of those of the whole batch; several losses are averaged. Without masks
    the saliency losses of each frame can take the place of L_Seg.

    Args:
        config: Weights, clamp and the scope of Dice; None is `AsyCMSTConfig.paper()`.
        class_weights: Of benign and malignant in L_Diag, which then is a weighted mean.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        config: AsyCMSTConfig | None = None,
        class_weights: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        config = AsyCMSTConfig.paper() if config is None else config
        self.fss_clamp = config.fss_clamp
        self.fss_weight = config.fss_weight
        self.segmentation_weight = config.segmentation_weight
        self.saliency = NODULES if config.bus_task == "saliency" else None
        self.pieces = _PIECES[config.dice_scope]
        self.dice = DiceLoss(smooth_nr=_EPSILON, smooth_dr=_EPSILON, reduction="none")
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(
        self,
        output: AsyCMSTOutput,
        label: Tensor,
        mask: Tensor | None = None,
        mask_valid: Tensor | None = None,
        frame_lengths: Tensor | None = None,
        *,
        bus: Tensor | None = None,
    ) -> AsyCMSTLosses:
        """Losses of a batch, computed in float32 or, for float64 outputs, in float64.

        Args:
            output: What the model returned.
            label: Integer (B,), 1 is malignant.
            mask: None or (B, T, H', W'), bool or any dtype with values in {0, 1}; every value
                other than 0 is nodule.
            mask_valid: None or bool (B, T): the frames that have an annotation; None is all. Other
                frames add nothing to loss and gradient, whatever their mask holds. Without an
                annotated frame the segmentation loss is 0 and still has a graph.
            frame_lengths: As the model had it; pairs and masks on padding are left out.
            bus: The clip (B, 3, T, H', W') that the model saw; only the saliency losses of
                `bus_task` "saliency" look at it, and they at no mask.

        Raises:
            TypeError: `label` is not integer or `mask_valid` not bool.
            ValueError: A shape does not fit, or `mask_valid` comes without `mask`.
        """
        _check(output, label, mask, mask_valid)
        logits = _widen(output.logits)
        weights = None if self.class_weights is None else self.class_weights.to(logits)
        diagnosis = F.cross_entropy(logits, label.long(), weights)
        fss = segmentation = diagnosis.new_zeros(())
        if output.frame_scores is not None:
            fss = fss_ranking_loss(
                output.frame_scores, clamp=self.fss_clamp, lengths=frame_lengths
            )
        if output.mask_logits is not None:
            segmentation = (
                self._segmentation(output.mask_logits, mask, mask_valid, frame_lengths)
                if self.saliency is None
                else self._marking(self.saliency, output.mask_logits, bus, frame_lengths)
            )
        total = diagnosis + self.fss_weight * fss + self.segmentation_weight * segmentation
        return AsyCMSTLosses(total, diagnosis, fss, segmentation)

    def divisors(self, label: Tensor, mask_valid: Tensor) -> Tensor:
        """What the means of L_Diag, L_FSS and L_Seg of a batch divide by.

        The loss of a batch that is computed in parts is the sum of the parts' means, each times
        its divisor over the sum of all divisors.

        Args:
            label: Integer (B,).
            mask_valid: Bool (B, T).

        Returns:
            float32 (3,): the sum of the class weights, the samples, and the Dice losses.
        """
        samples = torch.ones_like(label, dtype=torch.float32)
        weights = samples if self.class_weights is None else self.class_weights[label]
        pieces = self.pieces(mask_valid[:, :, None, None]).flatten(1).any(1)
        marked = pieces.sum().float() if self.saliency is None else samples.sum()
        return torch.stack((weights.sum(), samples.sum(), marked))

    @staticmethod
    def _marking(
        objective: SaliencyObjective,
        mask_logits: Tensor,
        bus: Tensor | None,
        frame_lengths: Tensor | None,
    ) -> Tensor:
        """The saliency losses, a mean over frames."""
        if bus is None:
            raise ValueError("bus_task 'saliency' compares with the B-mode clip; give bus")
        saliency = _widen(mask_logits).sigmoid().flatten(0, 1)
        images = bus.transpose(1, 2).flatten(0, 1).to(saliency.dtype)
        per_frame = objective.total(objective.terms(images, saliency))
        if frame_lengths is None:
            return per_frame.mean()
        index = torch.arange(mask_logits.shape[1], device=frame_lengths.device)
        real = (index < frame_lengths.clamp(min=1)[:, None]).flatten()
        return torch.where(real, per_frame, 0).sum() / real.sum()

    def _segmentation(
        self,
        mask_logits: Tensor,
        mask: Tensor | None,
        mask_valid: Tensor | None,
        frame_lengths: Tensor | None,
    ) -> Tensor:
        probabilities = _widen(mask_logits).sigmoid()
        if mask is None:
            return probabilities.sum() * 0
        annotated = mask.new_ones(mask.shape[:2], dtype=torch.bool)
        if mask_valid is not None:
            annotated = mask_valid
        if frame_lengths is not None:
            index = torch.arange(mask.shape[1], device=frame_lengths.device)
            annotated = annotated & (index < frame_lengths[:, None])
        chosen = annotated[:, :, None, None]
        nodule = self.pieces(chosen & (mask != 0)).to(probabilities.dtype)
        found = self.pieces(torch.where(chosen, probabilities, 0))
        per_piece: Tensor = self.dice(found, nodule).flatten()
        counts = self.pieces(chosen).flatten(1).any(1).to(per_piece.dtype)
        return (per_piece * counts).sum() / counts.sum().clamp(min=1)


def _frames(clips: Tensor) -> Tensor:
    return clips.flatten(0, 1)[:, None]


def _samples(clips: Tensor) -> Tensor:
    return clips[:, None]


def _batch(clips: Tensor) -> Tensor:
    return clips[None, None]


# Clips (B, T, ...) as pieces (n, 1, ...), each with sums of its own in Eq 5.
_PIECES = {"frame": _frames, "sample": _samples, "batch": _batch}


def _widen(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _check(
    output: AsyCMSTOutput, label: Tensor, mask: Tensor | None, mask_valid: Tensor | None
) -> None:
    batch = output.logits.shape[0]
    if label.is_floating_point() or label.dtype == torch.bool:
        raise TypeError(f"label is {label.dtype}; give integers, 1 is malignant")
    if label.shape != (batch,):
        raise ValueError(f"label has shape {tuple(label.shape)}; give one per clip, ({batch},)")
    if mask is None:
        if mask_valid is not None:
            raise ValueError("mask_valid is given without mask; give both or neither")
        return
    if output.mask_logits is not None and mask.shape != output.mask_logits.shape:
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}; give that of the mask logits, "
            f"{tuple(output.mask_logits.shape)}"
        )
    if mask_valid is not None:
        if mask_valid.dtype != torch.bool:
            raise TypeError(f"mask_valid is {mask_valid.dtype}; give bool, True is annotated")
        if mask_valid.shape != mask.shape[:2]:
            raise ValueError(
                f"mask_valid has shape {tuple(mask_valid.shape)}; "
                f"give one flag per frame, {tuple(mask.shape[:2])}"
            )
