"""A prepared model answers as the plain one, whatever its configuration; the plain one stays."""

import dataclasses
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from asycmst.baselines.early_fusion import EarlyFusion, EarlyFusionConfig
from asycmst.config import AsyCMSTConfig
from asycmst.data.phantom import PhantomConfig
from asycmst.data.samples import PhantomDataset
from asycmst.export.graph import without_norms
from asycmst.inference import onednn
from asycmst.inference.arrangement import arranged
from asycmst.inference.graphs import RecordedCalls, Recording, record_on_cuda
from asycmst.inference.parts import DecoderInPieces, FlatAttention, FoldedEncoders
from asycmst.inference.prepare import prepare_model
from asycmst.model import AsyCMST, AsyCMSTOutput

CPU = torch.device("cpu")

OPTIONS: list[dict[str, Any]] = [
    {},
    {"stsa": "joint"},
    {"stsa": "dot_product"},
    {"update": "sequential"},
    {"update": "sequential", "kv": "raw", "stsa": "joint"},
    {"kv": "raw"},
    {"norm": "pre", "stsa": "joint"},
    {"ffn": "literal"},
    {"bias": False, "stsa": "joint"},
    {"bias": False, "kv": "raw"},
    {"fuse": "mean", "diagnosis": "sigmoid"},
    {"pixels": "imagenet"},
    {"share_encoder": True, "share_positions": True},
    {"positions": "factorised"},
    {"lower": "ceus", "upper": "bus"},
    {"lower": "ceus", "upper": "bus", "task_place": "modality"},
    {"image_size": (32, 40)},
    {"ceus_task": None, "bus_task": None},
    {"cross_attention": None},
    {"acmst_layers": (2,)},
    *({"cross_attention": name} for name in ("symmetric", "spatial", "temporal", "global")),
    {"update": "sequential", "kv": "raw", "cross_attention": "global"},
]


def small(**fields: Any) -> AsyCMSTConfig:
    """The demo's model on frames of 2 x 2 cells."""
    sizes = {"frames": 5, "image_size": 32, "decoder_channels": (8, 8, 4, 4)}
    return dataclasses.replace(AsyCMSTConfig.demo(), **(sizes | fields))


def authors(emulate_layout: bool) -> AsyCMSTConfig:
    """The released model's kinds in a small size."""
    full = AsyCMSTConfig.authors(emulate_layout)
    return dataclasses.replace(
        full, frames=4, image_size=64, dim=24, layers=2, heads=2, ffn_dim=48
    )


def trained(config: AsyCMSTConfig, seed: int = 0) -> AsyCMST:
    """A model whose batch norms and biases are those of no fresh one."""
    torch.manual_seed(seed)
    model = AsyCMST(config)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
        elif isinstance(module, nn.Linear | nn.LayerNorm) and module.bias is not None:
            nn.init.normal_(module.bias, std=0.1)
    return model.eval()


def clips(config: AsyCMSTConfig, batch: int = 2, frames: int = 5) -> tuple[Tensor, Tensor]:
    bus, ceus = torch.rand(2, batch, 3, min(frames, config.frames), *config.frame_size)
    return bus, ceus


def difference(found: AsyCMSTOutput, wanted: AsyCMSTOutput) -> float:
    """The largest over all outputs, of which both have the same."""
    assert [x is None for x in found] == [x is None for x in wanted]
    pairs = [(x, y) for x, y in zip(found, wanted, strict=True) if x is not None]
    assert all(x.shape == y.shape and x.dtype == torch.float32 for x, y in pairs)
    return max(float((x - y).abs().max()) for x, y in pairs)


def ids(options: dict[str, Any]) -> str:
    return ",".join(f"{k}={v}" for k, v in options.items()) or "demo"


@pytest.mark.parametrize("options", OPTIONS, ids=ids)
def test_every_configuration_answers_as_its_plain_model(options: dict[str, Any]) -> None:
    config = small(**options)
    model = trained(config, zlib.crc32(ids(options).encode()))
    given = clips(config)
    lengths = torch.tensor([5, 3])
    for more in ((), (lengths,)):
        with torch.no_grad():
            wanted = model(*given, *more)
        assert difference(prepare_model(model)(*given, *more), wanted) < 2e-5
        unpacked = arranged(model, CPU, torch.float32, packs=False)
        with torch.no_grad():
            assert difference(unpacked(*given, *more), wanted) < 2e-5
        assert difference(prepare_model(model, dtype=torch.bfloat16)(*given, *more), wanted) < 0.15


@pytest.mark.parametrize("emulate_layout", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_released_model_s_kinds(emulate_layout: bool, batch: int) -> None:
    config = authors(emulate_layout)
    model = trained(config)
    given = clips(config, batch, frames=4)
    with torch.no_grad():
        wanted = model(*given)
    assert difference(prepare_model(model)(*given), wanted) < 2e-5


def test_the_paper_s_encoder_in_float32_and_bfloat16() -> None:
    config = small(encoder="resnet18", image_size=64, stsa="joint", frames=3)
    model = trained(config)
    given = clips(config, batch=1, frames=2)
    with torch.no_grad():
        wanted = model(*given)
    assert difference(prepare_model(model)(*given), wanted) < 1e-4
    assert difference(prepare_model(model, dtype=torch.bfloat16)(*given), wanted) < 0.3


@pytest.mark.parametrize("share", [False, True])
def test_pieces_of_a_batch_are_the_batch(share: bool) -> None:
    config = small(share_encoder=share)
    given = clips(config)
    model = trained(config)
    with torch.no_grad():
        wanted = model.encoders(*given)
        features = wanted[0].clone()
        found = FoldedEncoders(model.encoders, torch.float32, images=3)(*given)
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
        decoder = model.mask_decoder
        assert decoder is not None
        torch.testing.assert_close(
            DecoderInPieces(decoder, 3)(features, (32, 32)), decoder(features, (32, 32))
        )


def test_one_call_where_the_branches_share_their_encoder() -> None:
    seen: list[int] = []
    for share, wanted in ((True, [20]), (False, [10, 10])):
        model = trained(small(share_encoder=share))
        network = arranged(model, CPU, torch.float32, packs=False)
        folded = network.encoders
        for encoder in {folded.lower, folded.upper}:
            encoder.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
        network(*clips(model.config))
        assert seen == wanted
        seen.clear()
        assert not any(isinstance(x, nn.BatchNorm2d) for x in network.modules())


def test_the_plain_model_stays_as_it_is() -> None:
    model = trained(small(stsa="joint")).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prepared = prepare_model(model)
    given = clips(model.config)
    first = prepared(*given)
    assert model.training and all(p.requires_grad for p in model.parameters())
    assert not any(x.requires_grad for x in first if x is not None)
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1)
    assert difference(prepared(*given), first) == 0  # its weights are its own


def test_decisions_in_bfloat16_on_the_phantom() -> None:
    """Where the two logits lie further apart than twice the bound, the class is the same."""
    config = small(frames=4, stsa="joint")
    model = trained(config)
    data = PhantomDataset(PhantomConfig(frames=4, size=32), 0, 24)
    bus = torch.stack([item["bus"] for item in data])
    ceus = torch.stack([item["ceus"] for item in data])
    with torch.no_grad():
        wanted = model(bus, ceus).logits
    found = prepare_model(model, dtype=torch.bfloat16)(bus, ceus).logits
    bound = 0.02
    assert float((found - wanted).abs().max()) < bound
    clear = (wanted[:, 0] - wanted[:, 1]).abs() > 2 * bound
    assert clear.any()
    assert torch.equal(found.argmax(1)[clear], wanted.argmax(1)[clear])


def test_what_a_gpu_runs_is_one_graph() -> None:
    """As far as a CPU shows: the arrangement without oneDNN's layouts traces as a whole."""
    model = trained(small(stsa="joint", share_encoder=True))
    network = arranged(model, CPU, torch.float32, packs=False)
    given = clips(model.config)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert difference(compiled(*given), network(*given)) < 1e-5


def record_on_cpu(
    call: Callable[..., AsyCMSTOutput], inputs: Sequence[Tensor | None], device: torch.device
) -> Recording:
    """Stands in for a CUDA graph: repeats the call on the same inputs into the same outputs."""
    assert all(x is None or x.device == device for x in inputs)
    output = call(*inputs)

    def replay() -> None:
        for place, value in zip(output, call(*inputs), strict=True):
            if place is not None:
                place.copy_(value)

    return replay, output


def test_recorded_calls_give_each_caller_its_own_answer() -> None:
    model = trained(small())
    recorded: list[int] = []

    def record(call: Any, inputs: Any, device: torch.device) -> Recording:
        recorded.append(len(inputs))
        return record_on_cpu(call, inputs, device)

    calls = RecordedCalls(model, CPU, record, most=2)
    given = [clips(model.config, batch) for batch in (2, 2, 1, 3)]
    lengths = torch.tensor([4, 2])
    inputs = [*given, (*given[0], lengths), (*given[1], lengths - 1)]
    with torch.no_grad():
        found = [calls(*one) for one in inputs]
        wanted = [model(*one) for one in inputs]
    assert all(difference(x, y) < 1e-6 for x, y in zip(found, wanted, strict=True))
    assert recorded == [2, 2]  # batches of 2 and of 1; further kinds run as they are


def test_a_recording_is_made_on_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two GPUs the first is current; torch.cuda is a stand-in that notes what is entered."""
    entered: list[object] = [torch.device("cuda:0")]

    class Stream:
        def __init__(self, device: object = None) -> None:
            self.device = entered[-1] if device is None else device

        def wait_stream(self, other: object) -> None:
            waited.append((self, other))

    @contextmanager
    def entering(what: object, stream: Stream | None = None) -> Iterator[None]:
        entered.append(what if stream is None else stream)
        yield
        entered.pop()

    waited: list[tuple[object, object]] = []
    calls: list[object] = []
    cuda = SimpleNamespace(device=entering, stream=entering, graph=entering, Stream=Stream)
    cuda.CUDAGraph = lambda: SimpleNamespace(replay=None)
    currents: dict[object, Stream] = {}
    cuda.current_stream = lambda: currents.setdefault(entered[-1], Stream())
    monkeypatch.setattr(torch, "cuda", cuda)
    second = torch.device("cuda:1")
    record_on_cuda(lambda: calls.append(entered[-1]), (), second)
    (stream,) = set(calls)  # of the calls before the recording and of the recorded one
    assert isinstance(stream, Stream) and stream.device == second
    assert waited == [(stream, currents[second]), (currents[second], stream)]


class PreActivated(nn.Module):
    """The parts of a basic block, by the same names, in another order."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(block.conv1.in_channels)
        nn.init.uniform_(self.bn1.weight, 0.5, 1.5)
        self.conv1, self.bn2, self.conv2 = block.conv1, block.bn2, block.conv2
        self.act, self.downsample = block.act, block.downsample

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.conv1(self.act(self.bn1(maps)))
        inner = self.conv2(self.act(self.bn2(inner)))
        return inner + (maps if self.downsample is None else self.downsample(maps))


def test_another_trunk_in_an_encoder_s_place_runs_as_it_is() -> None:
    model = trained(small())
    for encoder in (model.encoders.bus, model.encoders.ceus):
        for stage in encoder.trunk[-4:]:
            stage[0] = PreActivated(stage[0]).eval()
    given = clips(model.config)
    with torch.no_grad():
        wanted = model(*given)
        assert difference(without_norms(model)(*given), wanted) == 0
    assert difference(prepare_model(model)(*given), wanted) < 2e-5


def test_other_networks_run_as_they_are() -> None:
    network = EarlyFusion(EarlyFusionConfig.from_dict(small().to_dict())).train()
    given = clips(small())
    prepared = prepare_model(network)
    assert not network.training
    with torch.no_grad():
        assert difference(prepared(*given), network(*given)) == 0
    with pytest.raises(ValueError, match="EarlyFusion"):
        prepare_model(network, dtype=torch.bfloat16)


@pytest.mark.parametrize("kernel", ["csrc", "reference"])
def test_joint_attention_is_torch_s_own_without_compiled_kernels(
    monkeypatch: pytest.MonkeyPatch, kernel: str
) -> None:
    """The reference keeps all weights of the attention in memory, torch's fused one does not."""
    monkeypatch.setattr("asycmst.inference.arrangement.info", lambda: {"cpu": {"kernel": kernel}})
    network = arranged(trained(small(stsa="joint")), CPU, torch.float32, packs=False)
    flat = any(isinstance(part, FlatAttention) for part in network.modules())
    assert flat == (kernel == "csrc")


def test_onednn_is_left_out_where_it_is_off_or_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    if not onednn.is_available(torch.float32):
        pytest.skip("no oneDNN on this machine")
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    assert not onednn.is_available(torch.float32)
    monkeypatch.undo()

    def other(*_: object) -> Tensor:
        raise RuntimeError("takes other arguments in this version")

    monkeypatch.setattr(onednn.PackedConvolution, "add_to", other)
    onednn._works.cache_clear()
    assert not onednn.is_available(torch.float32)
    monkeypatch.setattr(onednn.PackedConvolution, "add_to", lambda self, residual, images: images)
    onednn._works.cache_clear()
    assert not onednn.is_available(torch.float32)  # a wrong answer
    monkeypatch.undo()
    onednn._works.cache_clear()
    assert onednn.is_available(torch.float32)


def test_a_processor_without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "is_available", lambda dtype: False)
    model = trained(small(stsa="joint"))
    given = clips(model.config)
    with torch.no_grad():
        wanted = model(*given)
    assert difference(prepare_model(model)(*given), wanted) < 2e-5
    assert difference(prepare_model(model, dtype=torch.bfloat16)(*given), wanted) < 0.15


def test_a_model_in_float64_stays_in_it() -> None:
    model = trained(small()).double()
    given = [x.double() for x in clips(model.config)]
    with torch.no_grad():
        wanted = model(*given)
    torch.testing.assert_close(prepare_model(model)(*given), wanted)
    narrow = prepare_model(model, dtype=torch.float32)(*(x.float() for x in given))
    torch.testing.assert_close(narrow.logits, wanted.logits.float(), atol=2e-5, rtol=0)


def test_what_cannot_be_prepared() -> None:
    model = AsyCMST(small())
    with pytest.raises(ValueError, match=r"torch\.float32 or torch\.bfloat16"):
        prepare_model(model, dtype=torch.float16)
    with pytest.raises(ValueError, match="for GPUs"):
        prepare_model(model, compile=True)
    with pytest.raises(ValueError, match="this model takes 32 x 32"):
        prepare_model(model)(*torch.rand(2, 1, 3, 5, 16, 16))
