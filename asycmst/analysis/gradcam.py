"""Grad-CAM++ of both streams: which parts of which frames speak for a class (Fig 10)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asycmst.model import AsyCMST


class GradCAM(NamedTuple):
    """Relevance maps of a batch, float32 in [0, 1], 1 being the clip's most relevant place.

    A clip in which nothing speaks for the class is 0 everywhere.

    Attributes:
        bus: shape (B, T, H', W'), of the lower branch.
        ceus: shape (B, T, H', W'), of the upper branch.
    """

    bus: Tensor
    ceus: Tensor


def gradcam_plus_plus(model: AsyCMST, bus: Tensor, ceus: Tensor, target: int = 1) -> GradCAM:
    """Grad-CAM++ on the last map of each frame encoder, all clips and frames at once.

    The model runs in evaluation mode, in which clips of a batch do not influence each other, and
    is left as it was: modes, parameters' gradients and hooks.

    Args:
        model: the network, in any mode.
        bus: float, shape (B, 3, T, H', W'), values in [0, 1].
        ceus: as `bus`.
        target: the class explained, 1 = malignant, 0 = benign.

    Returns:
        Maps resized (bilinear) to the input and divided by each clip's own maximum, so that
        frames of one clip can be compared.

    Raises:
        ValueError: `target` is not a class, a clip does not fit the model, or the model's layout
            mixes frames, so that no map belongs to one.
    """
    if target not in (0, 1):
        raise ValueError(f"target is {target}: allowed are 0 (benign) and 1 (malignant)")
    if model.config.emulate_layout:
        raise ValueError("the model's emulate_layout mixes frames; explain it without")
    maps: list[Tensor] = []  # of the lower branch, then of the upper one
    modes = {module: module.training for module in model.modules()}
    trunks = {model.encoders.bus.trunk, model.encoders.ceus.trunk}  # one, where it is shared
    hooks = [_keep_outputs(trunk, maps) for trunk in trunks]
    try:
        model.eval()
        with torch.enable_grad():
            score = model(bus, ceus).logits[:, target].sum()
            gradients = torch.autograd.grad(score, maps)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training
    height, width = bus.shape[3:]
    bus_cam, ceus_cam = (
        _per_clip(gradcam_plus_plus_map(found.detach(), gradient), len(bus), height, width)
        for found, gradient in zip(maps, gradients, strict=True)
    )
    return GradCAM(bus_cam, ceus_cam)


def gradcam_plus_plus_map(activations: Tensor, gradients: Tensor) -> Tensor:
    """The Grad-CAM++ map of each image from a layer's maps A_k and gradients g = dS/dA_k.

    alpha = g^2 / (2 g^2 + sum_ij A_k g^3), 0 where the denominator is 0;
    w_k = sum_ij alpha relu(g); map = relu(sum_k w_k A_k).

    Args:
        activations: float, shape (n, K, h, w).
        gradients: the same shape.

    Returns:
        Shape (n, h, w), float64: cubes of small gradients leave the range of float32.
    """
    values, slopes = activations.double(), gradients.double()
    squares = slopes.square()
    below = 2 * squares + (values * squares * slopes).sum(dim=(2, 3), keepdim=True)
    alpha = torch.where(below == 0, 0.0, squares / below)
    weights = (alpha * slopes.relu()).sum(dim=(2, 3), keepdim=True)
    return (weights * values).sum(dim=1).relu()


def _keep_outputs(module: nn.Module, maps: list[Tensor]) -> torch.utils.hooks.RemovableHandle:
    """Store a module's outputs and let the graph start there: also with frozen weights."""

    def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        maps.append(output.detach().requires_grad_())
        return maps[-1]

    return module.register_forward_hook(hook)


def _per_clip(maps: Tensor, clips: int, height: int, width: int) -> Tensor:
    sized = F.interpolate(maps[:, None], size=(height, width), mode="bilinear")
    grouped = sized.reshape(clips, -1, height, width)
    top = grouped.amax(dim=(1, 2, 3), keepdim=True)
    return torch.where(top > 0, grouped / top, 0.0).float()
