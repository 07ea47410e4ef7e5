"""What a model costs: parameters, FLOPs, attention pairs (Table 5), memory."""

import dataclasses
from typing import Any

import pytest
import torch

from asycmst import cli
from asycmst.analysis.complexity import complexity, cross_interactions, self_interactions
from asycmst.config import AsyCMSTConfig, KeySource, Strategy
from asycmst.model import AsyCMST

DEMO = AsyCMSTConfig.demo()


@pytest.mark.parametrize(
    ("strategy", "pairs"),
    [
        ("global", 1_229_312),
        ("symmetric", 100_352),
        ("asymmetric", 50_960),
        ("spatial", 76_832),
        ("temporal", 25_088),
    ],
)
def test_interactions_at_the_papers_shape(strategy: Strategy, pairs: int) -> None:
    assert cross_interactions(strategy, 16, 49) == pairs


def test_no_cross_attention_has_no_pairs() -> None:
    assert cross_interactions(None, 16, 49) == 0


@pytest.mark.parametrize(
    ("stsa", "pairs"),
    [
        ("joint", 2 * 614_656),
        ("factorised", 2 * 784 * (16 + 49)),
        ("dot_product", 784 * (16 + 49)),
    ],
)
def test_pairs_of_the_self_attention(stsa: Any, pairs: int) -> None:
    """Both streams of a layer (Section 3.1, ViViT's models 1, 3 and 4)."""
    assert self_interactions(AsyCMSTConfig(stsa=stsa), 49) == pairs


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"cross_attention": None},
        {"update": "sequential", "kv": "raw"},
        {"norm": "pre", "positions": "factorised", "share_positions": True},
        {"share_encoder": True, "ceus_task": None, "bus_task": None},
    ],
    ids=str,
)
def test_the_parts_are_the_whole(fields: dict[str, Any]) -> None:
    config = dataclasses.replace(DEMO, **fields)
    model = AsyCMST(config)
    parts = complexity(config).parts
    assert sum(p.parameters for p in parts) == sum(p.numel() for p in model.parameters())
    expected = {"self-attention": 4, "cross-attention": 2 * (config.cross_attention is not None)}
    assert {p.name: p.modules for p in parts} | expected == {p.name: p.modules for p in parts}


def test_flops_by_hand() -> None:
    """Two for each multiplication with its addition, one pair of clips of 8 x 4 x 4 tokens."""
    tokens, dim, layers = 8 * 16, DEMO.dim, DEMO.layers
    flops = {part.name: part.flops for part in complexity(DEMO).parts}
    linear = 2 * 2 * tokens * dim * 4 * dim  # Q, K, V and output, both streams
    assert flops["cross-attention"] == layers * (linear + 4 * tokens * (8 + 16) * dim)
    assert flops["self-attention"] == layers * (2 * linear + 2 * 4 * tokens * (8 + 16) * dim)
    assert flops["feed-forward"] == layers * 2 * 2 * 2 * tokens * dim * DEMO.ffn_dim
    assert flops["final norms, classifier"] == 2 * dim * 2


@pytest.mark.parametrize("kv", ["stsa", "raw"])
def test_the_order_of_updates_costs_the_same(kv: KeySource) -> None:
    config = dataclasses.replace(DEMO, kv=kv)
    sequential = complexity(dataclasses.replace(config, update="sequential"))
    assert sequential.parts == complexity(config).parts == complexity(DEMO).parts


def test_shared_modules_count_once() -> None:
    for share, count in ((False, 2), (True, 1)):
        config = dataclasses.replace(DEMO, share_encoder=share, share_positions=share)
        parts = {part.name: part.modules for part in complexity(config).parts}
        assert parts["frame encoders"] == parts["positions"] == count


def test_memory_by_hand() -> None:
    model = AsyCMST(DEMO)
    found = complexity(DEMO)
    weights = [*model.parameters(), *model.buffers()]
    assert found.weight_bytes == sum(x.numel() * x.element_size() for x in weights)
    clips = 2 * 3 * 8 * 64 * 64 * 4
    first_map = 8 * 8 * 32 * 32 * 4  # of one clip, after the first convolution
    assert found.inference_bytes >= clips + first_map
    assert found.training_bytes > found.inference_bytes


def test_training_memory_is_what_autograd_keeps() -> None:
    config = dataclasses.replace(DEMO, layers=1)
    kept: dict[int, int] = {}
    model = AsyCMST(config).train()
    own = {x.untyped_storage().data_ptr() for x in [*model.parameters(), *model.buffers()]}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(*torch.rand(2, 1, 3, 8, 64, 64))
    real = sum(kept.values())
    del output
    assert complexity(config).training_bytes == pytest.approx(real, rel=0.1)


def test_shorter_tokens_cost_less_memory() -> None:
    small = complexity(dataclasses.replace(DEMO, frames=4))
    assert small.inference_bytes < complexity(DEMO).inference_bytes
    assert small.training_bytes < complexity(DEMO).training_bytes


@pytest.mark.parametrize("name", ["paper", "authors", "demo"])
def test_info_prints_a_model_as_a_table(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "--config", name]) == 0
    printed = capsys.readouterr().out
    total = sum(part.parameters for part in complexity(getattr(AsyCMSTConfig, name)()).parts)
    assert f"{total:,}" in printed
    for word in ("frame encoders", "cross-attention", "pairs of query and key", "memory"):
        assert word in printed


def test_info_names_the_presets(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["info", "--config", "huge"])
    assert caught.value.code == 2
    assert "paper" in capsys.readouterr().err
