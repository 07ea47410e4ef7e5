"""A trained model on a real ultrasound file, to see that reading, model and maps work.

The file is the multi-frame echocardiogram that pydicom ships. It is one clip of a heart, given to
the model as BUS and as CEUS: what comes out has no meaning.
"""

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from asycmst.analysis.attention_maps import (
    CrossAttentionMaps,
    cross_attention_maps,
    has_cross_attention_maps,
)
from asycmst.analysis.gradcam import GradCAM, gradcam_plus_plus
from asycmst.data.clips import clip_to_tensor, load_clip
from asycmst.model import AsyCMST

_EXAMPLE = "ybr_color"


class RealClipCheck(NamedTuple):
    """What the model made of the file.

    Attributes:
        source: the file's name.
        last_frame: number of the source's last frame that was used, from 0.
        frames: uint8 (T, size, size, 3).
        probability: of malignancy, without meaning.
        frame_scores: (T,), or None without frame self-sorting.
        cam: Grad-CAM++ of the clip.
        attention: the cross attention, or None where the model has no asymmetric one.
    """

    source: str
    last_frame: int
    frames: NDArray[np.uint8]
    probability: float
    frame_scores: list[float] | None
    cam: GradCAM
    attention: CrossAttentionMaps | None


def check_real_clip(model: AsyCMST) -> RealClipCheck:
    """Read pydicom's example from disk and give it to `model` (in evaluation mode) twice."""
    from pydicom import examples

    path = Path(examples.get_path(_EXAMPLE))
    with warnings.catch_warnings():
        # The example describes a region outside its frames; the reader says so and uses all.
        warnings.filterwarnings("ignore", message=f"{path.name}: ", category=UserWarning)
        clip = load_clip(path, model.config.frames, model.config.frame_size)
    tensor = clip_to_tensor(clip)[None]
    with torch.no_grad():
        output = model(tensor, tensor)
    maps = cross_attention_maps(model, tensor, tensor) if has_cross_attention_maps(model) else None
    return RealClipCheck(
        source=clip.source,
        last_frame=int(clip.source_indices[-1]),
        frames=clip.frames,
        probability=float(output.logits.softmax(dim=1)[0, 1]),
        frame_scores=None if output.frame_scores is None else output.frame_scores[0].tolist(),
        cam=gradcam_plus_plus(model, tensor, tensor),
        attention=maps,
    )
