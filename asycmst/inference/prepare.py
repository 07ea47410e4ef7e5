"""From a trained model to a function that answers fast."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from asycmst.inference import onednn
from asycmst.inference.arrangement import arranged
from asycmst.inference.graphs import RecordedCalls
from asycmst.model import AsyCMST, AsyCMSTOutput

_DTYPES = (torch.float32, torch.bfloat16)


class PreparedModel:
    """A model that only answers.

    Call it with clips as `AsyCMST.forward` takes them, from any device; the outputs lie on
    `device`, without gradients, and of floating dtypes below 32 bits none leaves it.

    Attributes:
        device: Where it computes.
        dtype: In which it computes.
    """

    def __init__(
        self,
        call: Callable[..., AsyCMSTOutput],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._call = call
        self.device = device
        self.dtype = dtype

    def __call__(
        self, bus: Tensor, ceus: Tensor, frame_lengths: Tensor | None = None
    ) -> AsyCMSTOutput:
        """What the model says about a batch; see `AsyCMST.forward`."""
        inputs = [bus, ceus] if frame_lengths is None else [bus, ceus, frame_lengths]
        with torch.no_grad():
            output = self._call(*(x.to(self.device) for x in inputs))
        return AsyCMSTOutput(*(_widened(x) for x in output))  # type: ignore[arg-type]


def prepare_model(
    model: nn.Module,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    compile: bool = False,
) -> PreparedModel:
    """Make a trained model ready to answer.

    The answers are the model's in evaluation mode, to rounding: of the paper's model, logits in
    float32 within 1e-4. In bfloat16 weights and tokens are rounded to 8 bits, sums are not: three
    trained models of the demo's size moved the difference of their logits by up to 0.07 and a
    probability by up to 0.017 over 1200 phantoms, none of which changed its class; fresh weights
    of the paper's size moved a logit by 0.011. benchmarks/inference_agreement.py measures yours
    and names each case whose class changes.

    Args:
        model: An `AsyCMST`, which stays as it is and whose weights are copied; prepare again after
            training on. Any other network that answers as it does is put into evaluation mode and
            on `device`, no more.
        dtype: float32 or bfloat16, for an `AsyCMST`; None is the model's.
        device: None is the model's.
        compile: On a GPU, also compile by torch.compile: a minute or more at the first batch, for
            long evaluations. Without it kernels run as they are, recorded as a CUDA graph.

    Raises:
        ValueError: `dtype` is another one, or given for another network; `compile` is asked for
            on a device that is no GPU.
    """
    weight = next(model.parameters())
    where = weight.device if device is None else torch.device(device)
    if compile and where.type != "cuda":
        raise ValueError(f"compile=True is for GPUs, the device is {where}; leave it out")
    if not isinstance(model, AsyCMST):
        if dtype not in (None, weight.dtype):
            raise ValueError(
                f"dtype {dtype} is given for a {type(model).__name__}, which runs as it is; "
                "leave it out"
            )
        return PreparedModel(model.to(where).eval(), where, weight.dtype)
    network: Callable[..., AsyCMSTOutput] = inference_copy(model, dtype=dtype, device=where)
    if where.type == "cuda":
        if compile:
            network = torch.compile(network)
        network = RecordedCalls(network, where)
    return PreparedModel(network, where, weight.dtype if dtype is None else dtype)


def inference_copy(
    model: AsyCMST,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
) -> AsyCMST:
    """The copy of a model that `prepare_model` calls, for its steps `encode`, `from_features`.

    Arguments and errors are those of `prepare_model`; its outputs are in `dtype`.
    """
    weight = next(model.parameters())
    if dtype is not None and dtype not in _DTYPES:
        raise ValueError(f"dtype is {dtype}; give torch.float32 or torch.bfloat16")
    where = weight.device if device is None else torch.device(device)
    chosen = weight.dtype if dtype is None else dtype
    packs = where.type == "cpu" and onednn.is_available(chosen)
    return arranged(model, where, chosen, packs)


def _widened(values: Tensor | None) -> Tensor | None:
    if values is None or values.dtype not in (torch.bfloat16, torch.float16):
        return values
    return values.float()
