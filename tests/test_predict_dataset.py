"""A model over a dataset."""

import math
from dataclasses import replace

import pytest
import torch
from scipy.stats import kendalltau
from torch import nn
from torch.utils.data import Dataset

from asycmst.analysis.metrics import dice
from asycmst.analysis.predict_dataset import kendall_tau, predict_dataset
from asycmst.config import AsyCMSTConfig
from asycmst.data.phantom import PhantomConfig
from asycmst.data.samples import Item, PhantomDataset
from asycmst.model import AsyCMST, AsyCMSTOutput

CONFIG = replace(
    AsyCMSTConfig.demo(),
    frames=3,
    image_size=32,
    dim=8,
    layers=1,
    heads=1,
    ffn_dim=8,
    decoder_channels=(4, 4),
)


class Annotated(Dataset[Item]):
    """Phantoms of which only some frames are annotated."""

    def __init__(self, *frames: tuple[bool, bool, bool]) -> None:
        self.phantoms = PhantomDataset(PhantomConfig(frames=3, size=32), 0, len(frames))
        self.frames = frames

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Item:
        item = self.phantoms[index]
        item["mask_valid"] = torch.tensor(self.frames[index])
        return item


class Scribbling(nn.Module):
    """A model that marks the left half of even frames and all of odd ones."""

    def __init__(self) -> None:
        super().__init__()
        self.model = AsyCMST(CONFIG)

    def forward(self, bus: torch.Tensor, ceus: torch.Tensor) -> AsyCMSTOutput:
        output = self.model(bus, ceus)
        masks = torch.ones_like(output.mask_logits)
        masks[:, ::2, :, 16:] = -1
        return output._replace(mask_logits=masks)


def test_every_case_has_its_answer() -> None:
    data = Annotated((True, True, True), (False, True, False), (False, False, False))
    model = Scribbling().train()
    heard: list[int] = []
    found = predict_dataset(model, data, batch=2, report=heard.append)
    assert not model.training and heard == [2, 3]
    assert found.ids == ["breast-0-0", "breast-0-1", "breast-0-2"]
    assert found.labels == data.phantoms.labels().tolist()
    for row, item in enumerate(data):
        with torch.no_grad():
            output = model(item["bus"][None], item["ceus"][None])
        assert found.features is not None
        assert found.features[row] == pytest.approx(output.features[0].tolist(), abs=1e-5)
        probability = float(output.logits.softmax(1)[0, 1])
        assert found.probabilities[row] == pytest.approx(probability, abs=1e-5)
        kept = item["mask_valid"]
        if kept.any():
            mask = output.mask_logits[0, kept] > 0
            assert found.dice[row] == pytest.approx(dice(mask, item["mask"][kept]), abs=1e-3)
        else:
            assert math.isnan(found.dice[row])
        expected = kendalltau(output.frame_scores[0].numpy(), [0, 1, 2]).statistic
        assert found.frame_order[row] == pytest.approx(expected)
        if row == len(data) - 1:
            break


def test_tasks_that_are_off_have_no_scores() -> None:
    model = AsyCMST(replace(CONFIG, fss_weight=0, segmentation_weight=0))
    found = predict_dataset(model, Annotated((True, True, True)))
    assert math.isnan(found.dice[0]) and math.isnan(found.frame_order[0])


def test_tau_is_scipys_without_ties_and_0_for_equal_scores() -> None:
    scores = torch.randn(5, 9)
    expected = [kendalltau(row.numpy(), range(9)).statistic for row in scores]
    assert kendall_tau(scores).tolist() == pytest.approx(expected)
    assert kendall_tau(torch.zeros(1, 4)).tolist() == [0]
    assert kendall_tau(torch.tensor([[0.0, 1, 1, 2]])).tolist() == [pytest.approx(5 / 6)]
    assert math.isnan(kendall_tau(torch.zeros(1, 1))[0])
