"""The losses of a saliency map against its target, each of a whole image, in one pass."""

import math

import torch
from torch import Tensor

from asycmst_ops import _library

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def saliency_losses(target: Tensor, saliency: Tensor, *, floor: float) -> Tensor:
    """Reconstruction, boundary and affinity of each saliency map M against its target I.

    Reconstruction is mean |I M - I|. Boundary is mean |S_x * (I - M)| + mean |S_y * (I - M)| with
    Sobel's kernels S; beyond the border both images go on as they end. Affinity is the mean of
    (A(I) - A(M))^2: A is the size of the forward difference down plus that to the right, 0 at the
    end of each, over its mean in the image plus `floor`.

    The gradient is by the saliency only; that of an absolute value at 0 is 0. The backward keeps
    nothing but both images. An image is summed in one order, whatever the batch and the threads.

    Args:
        target: I, (n, H, W), values in [0, 1]; float16, bfloat16, float32 or float64; any strides.
        saliency: M, as the target.
        floor: positive.

    Returns:
        (n, 3) in this order; float32, or float64 for float64 images.

    Raises:
        TypeError: no tensor, a dtype outside these four, or two dtypes or devices.
        ValueError: not three dimensions, an empty image, two shapes, a floor that is not positive
            and finite, or a target that requires a gradient while gradients are recorded.
    """
    for name, x in (("target", target), ("saliency", saliency)):
        if not isinstance(x, Tensor) or x.dtype not in _DTYPES:
            got = x.dtype if isinstance(x, Tensor) else f"a {type(x).__name__}"
            raise TypeError(
                f"{name} is {got}; pass a float16, bfloat16, float32 or float64 tensor (n, H, W)"
            )
        if x.dim() != 3 or 0 in x.shape[1:]:
            raise ValueError(
                f"{name} has shape {tuple(x.shape)}; pass (n, H, W), of which only n may be 0"
            )
    if target.shape != saliency.shape:
        raise ValueError(
            f"target has shape {tuple(target.shape)} but saliency {tuple(saliency.shape)}; pass"
            " one map for each target, of its size"
        )
    if target.dtype != saliency.dtype:
        raise TypeError(
            f"target is {target.dtype} but saliency is {saliency.dtype}; cast one, nothing is"
            " promoted"
        )
    if target.device != saliency.device:
        raise TypeError(
            f"target is on {target.device} but saliency is on {saliency.device}; move one"
        )
    if isinstance(floor, bool) or not isinstance(floor, (int, float)) or not 0 < floor < math.inf:
        raise ValueError(f"floor is {floor!r}; pass a positive number")
    if target.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            "target requires a gradient, and there is one by the saliency only; pass"
            " target.detach()"
        )
    return _saliency_losses(saliency, target, float(floor))  # type: ignore[no-any-return]


# The saliency comes first: `register_recomputing` gives gradients to the first arguments.
_saliency_losses = _library.register_recomputing(
    _library.saliency_losses, _library.saliency_losses_backward, tensors=2
)
