"""When and where, seen from the lesion: planted looks come out exactly, and only where defined."""

from dataclasses import replace

import pytest
import torch
from planted import plant_attention

from asycmst.analysis.attention_maps import cross_attention_maps
from asycmst.analysis.lesion_attention import lesion_attention, why_no_attention
from asycmst.config import AsyCMSTConfig
from asycmst.model import AsyCMST, attention_inputs


def build(**changes: object) -> AsyCMST:
    return AsyCMST(replace(AsyCMSTConfig.demo(), **changes)).eval()


def clips() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    bus, ceus = torch.rand(2, 1, 3, 8, 64, 64, generator=generator)
    return bus, ceus


def areas() -> torch.Tensor:
    """Lesion in places 5 and 6, twice as much in the first; in frame 0 a quarter of it all."""
    found = torch.zeros(8, 16)
    found[:, 5], found[:, 6] = 0.8, 0.4
    found[0] /= 4
    return found


def test_a_planted_look_comes_out_exactly() -> None:
    model = build()
    frame_of_place = [7] * 16
    frame_of_place[5], frame_of_place[6] = 2, 3
    place_of_frame = [0, 3, 9, 15, 9, 1, 2, 4]
    plant_attention(model, frame_of_place, place_of_frame)
    found = lesion_attention(model, *clips(), areas())
    assert found.layers == (1, 2)
    (when,), (where,) = found.when, found.where
    assert (when.asks, where.asks) == ("lower", "upper")
    expected = torch.zeros(8)
    expected[2], expected[3] = 2 / 3, 1 / 3
    torch.testing.assert_close(when.overall, expected.double().expand(2, 8))
    torch.testing.assert_close(when.by_frame, expected.double().expand(2, 8, 8))
    flat = where.maps.flatten(2)
    assert flat.argmax(-1).tolist() == [place_of_frame] * 2
    torch.testing.assert_close(flat.amax(-1), torch.ones(2, 8).double())


def test_weights_are_those_of_the_whole_clip_seen_by_area() -> None:
    """Even areas over all places give the mean that `cross_attention_maps` shows."""
    model = build()
    even = lesion_attention(model, *clips(), torch.full((8, 16), 0.5))
    for index, layer in enumerate(even.layers):
        maps = cross_attention_maps(model, *clips(), layer)
        torch.testing.assert_close(even.when[0].by_frame[index].float(), maps.when[0])
        torch.testing.assert_close(even.where[0].maps[index].float(), maps.where[0])
    shares = areas()[:, :, None] / areas().sum()
    by_place = cross_attention_maps(model, *clips(), 2).when_by_place[0].flatten(0, 1)
    expected = (shares * by_place.transpose(0, 1)).sum((0, 1))
    found = lesion_attention(model, *clips(), areas()).when[0].overall[1]
    torch.testing.assert_close(found.float(), expected)


@pytest.mark.parametrize(
    ("strategy", "when", "where"),
    [
        ("asymmetric", ["lower"], ["upper"]),
        ("spatial", [], ["lower", "upper"]),
        ("temporal", ["lower", "upper"], []),
    ],
)
@pytest.mark.parametrize("update", ["parallel", "sequential"])
def test_what_each_strategy_has(
    strategy: str, when: list[str], where: list[str], update: str
) -> None:
    model = build(cross_attention=strategy, update=update, heads=3, acmst_layers=(2,))
    assert why_no_attention(model) is None
    found = lesion_attention(model, *clips(), areas())
    assert found.layers == (2,)
    assert [look.asks for look in found.when] == when
    assert [look.asks for look in found.where] == where
    (inputs,) = attention_inputs(model, *clips())
    for look in found.when:
        assert look.overall.shape == (1, 8) and look.by_frame.shape == (1, 8, 8)
        torch.testing.assert_close(look.overall.sum(-1), torch.ones(1).double())
        query, key = (inputs.q_bus, inputs.k_ceus)
        if look.asks == "upper":
            query, key = inputs.q_ceus, inputs.k_bus
        logits = torch.einsum("bthd,bshd->bhts", query[:, :, 5], key[:, :, 5]) / 4
        only = torch.zeros(8, 16)
        only[:, 5] = 1
        alone = lesion_attention(model, *clips(), only).when
        by_frame = next(w.by_frame for w in alone if w.asks == look.asks)
        torch.testing.assert_close(by_frame[0].float(), logits.softmax(-1).mean(1)[0])
    for look in found.where:
        assert look.maps.shape == (1, 8, 4, 4)
        query, key = (inputs.q_bus, inputs.k_ceus)
        if look.asks == "upper":
            query, key = inputs.q_ceus, inputs.k_bus
        logits = torch.einsum("bnhd,bmhd->bhnm", query[:, 3], key[:, 3]) / 4
        expected = logits.softmax(-1).mean((1, 2)).reshape(4, 4)
        torch.testing.assert_close(look.maps[0, 3].float(), expected)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cross_attention": None}, "no cross-attention"),
        ({"acmst_layers": ()}, "no cross-attention"),
        ({"cross_attention": "symmetric"}, "'symmetric', one softmax over time and space"),
        ({"cross_attention": "global"}, "'global', one softmax"),
        ({"ceus_task": None, "bus_task": None, "emulate_layout": True}, "mixes frames"),
    ],
    ids=str,
)
def test_models_without_such_attention_say_why(changes: dict[str, object], words: str) -> None:
    model = build(**changes)
    reason = why_no_attention(model)
    assert reason is not None and words in reason
    with pytest.raises(ValueError, match=words.split(",")[0]):
        lesion_attention(model, *clips(), areas())
