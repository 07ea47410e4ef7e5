"""The two attention gates of a dual-attention fusion, in one pass over the features."""

from typing import Literal

import torch
from torch import Tensor

from asycmst_ops import _library

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def dual_attention_gates(
    features: Tensor, *, scope: Literal["both", "split"] = "both", patch: int = 4
) -> Tensor:
    """Features under a variance-guided channel gate and a patch-wise spatial gate.

    The channel gate of a map is sigmoid(its variance), unbiased, with variance 0 for a map of one
    pixel. The spatial gate is the sigmoid of the mean of each patch, bilinear between the centres
    of the patches. The gates meet the features before the 1x1 convolution of the fusion.

    Patches start at the upper left corner. Those at the lower and right border may be cut off,
    and a map below the patch is one such patch: their means are over the pixels there are, and
    the gate is interpolated as if they were whole. The backward keeps nothing but the features.

    Args:
        features: (B, C, H, W); float16, bfloat16, float32 or float64. Contiguous and
            channels_last tensors and slices of them are read in place.
        scope: "both": features * (channel gate + spatial gate). "split": the first half of the
            channels under the channel gate alone, the second half under the spatial gate alone,
            for features of an original image followed by those of its saliency-guided version.
        patch: side of the square patches in pixels, at least 1.

    Returns:
        (B, C, H, W) in the dtype of `features`; channels_last where they are, else contiguous.

    Raises:
        TypeError: no tensor, a dtype outside these four, or a patch that is no integer.
        ValueError: not four dimensions, an empty map, an unknown scope, an odd number of channels
            to split, or a patch below 1.
    """
    if not isinstance(features, Tensor) or features.dtype not in _DTYPES:
        got = features.dtype if isinstance(features, Tensor) else f"a {type(features).__name__}"
        raise TypeError(
            f"features is {got}; pass a float16, bfloat16, float32 or float64 tensor (B, C, H, W)"
        )
    if features.dim() != 4 or 0 in features.shape[1:]:
        raise ValueError(
            f"features has shape {tuple(features.shape)}; pass (B, C, H, W), of which only B may"
            " be 0"
        )
    if scope not in ("both", "split"):
        raise ValueError(f'scope is {scope!r}; pass "both" or "split"')
    if scope == "split" and features.shape[1] % 2:
        raise ValueError(
            f"features has {features.shape[1]} channels, which no half splits; pass an even"
            ' number or scope="both"'
        )
    if isinstance(patch, bool) or not isinstance(patch, int):
        raise TypeError(f"patch is a {type(patch).__name__}; pass an integer")
    if patch < 1:
        raise ValueError(f"patch is {patch}; pass the side of a patch in pixels, at least 1")
    return _gates(features, patch, scope == "split")  # type: ignore[no-any-return]


_gates = _library.register_recomputing(_library.gates, _library.gates_backward, tensors=1)
