"""What goes into a written model and what comes out, as JSON beside it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from asycmst import info
from asycmst.export.graph import INPUTS
from asycmst.training.networks import config_of, name_of

FILE = "model.json"

_INPUTS = {
    "bus": "B-mode clip: (clip, RGB channel, frame, row, column), values in [0, 1]",
    "ceus": "contrast clip of the same time, as bus",
    "frame_lengths": "frames of each clip that are no padding, 1 to T; what follows is not read",
}
_OUTPUTS = {
    "logits": "a logit for each class; their softmax gives the probabilities",
    "probability": "of the class malignant, in [0, 1]",
    "frame_scores": "one for each frame; later frames score higher",
    "mask_logits": "nodule in the frames of one clip: (clip, frame, row, column), positive inside",
}
_EVENLY = (
    "frame j of T is frame floor(j (n - 1) / (T - 1)) of the n of the source, T = 1 its first; "
    "both clips at the same moments"
)
_MIDDLE = "the image, or frame floor(n / 2) of the n of a clip"
# Facts of a checkpoint that name no case and no file.
_FACTS = (
    *("trained_on", "best_epoch"),
    *("validation_loss", "validation_auc", "validation_accuracy"),
)


def description(
    model: nn.Module,
    meta: Mapping[str, Any],
    inputs: tuple[Tensor, ...],
    outputs: Mapping[str, Tensor],
    files: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of model.json.

    Args:
        model: What was written.
        meta: The plain facts of its checkpoint, of which only those that name no case are kept.
        inputs: An example of them.
        outputs: An example of them, in their order.
        files: By name, the format and how far its answers are from the model's.
    """
    named = dict(zip(INPUTS, inputs, strict=False))
    config = config_of(model)
    height, width = config.frame_size
    return {
        "inputs": _tensors(named, _INPUTS),
        "outputs": _tensors(outputs, _OUTPUTS),
        "segmented": config.segmented_modality if "mask_logits" in outputs else None,
        "classes": ["benign", "malignant"],
        "preprocessing": {
            "frames": config.frames,
            "height": height,
            "width": width,
            "sampling": _MIDDLE if config.frames == 1 and not config.reads_ceus else _EVENLY,
            "resizing": "bilinear with antialiasing, aspect ratio not kept",
            "colour": "RGB; grey is repeated in all three channels",
            "values": "8-bit values / 255",
        },
        "files": files,
        "model": name_of(config),
        "config": config.to_dict(),
        "checkpoint": {key: meta[key] for key in _FACTS if key in meta},
        "made_by": {"asycmst": info.version(), "torch": torch.__version__},
        "notice": "Research software, not a medical device: no diagnosis.",
    }


def _tensors(examples: Mapping[str, Tensor], meanings: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "dtype": str(x.dtype).removeprefix("torch."),
            "shape": ["batch", *x.shape[1:]],
            "meaning": meanings[name],
        }
        for name, x in examples.items()
    ]
