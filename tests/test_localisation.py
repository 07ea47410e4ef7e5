"""A map against masks: overlap, pointing game, and the guess at the centre beside them."""

import math

import pytest
import torch

from asycmst.analysis.localisation import NOWHERE, centre_discs, localise


def case() -> tuple[torch.Tensor, torch.Tensor]:
    """Three frames of 9 x 12: the map is right in the first and wrong in the second."""
    truth = torch.zeros(3, 9, 12, dtype=torch.bool)
    truth[0, 1:4, 2:6] = True
    truth[1, 4:7, 5:9] = True
    logits = torch.full((3, 9, 12), -1.0)
    logits[0, 1:4, 2:4] = 2.0
    logits[1, 0, 0] = 3.0
    return logits, truth


def test_scores_count_annotated_frames_with_a_nodule() -> None:
    logits, truth = case()
    found = localise(logits, truth, torch.tensor([True, True, True]))
    assert found.dice == pytest.approx(2 * 6 / (7 + 24))
    assert found.pointing == 0.5
    assert found.centre_pointing == 0.5  # the centre lies on the nodule of the second frame
    assert found.centre_dice == pytest.approx(
        2 * int((centre_discs(truth[:2]) & truth[:2]).sum()) / 48
    )
    alone = localise(logits, truth, torch.tensor([True, False, False]))
    assert (alone.pointing, alone.centre_pointing) == (1.0, 0.0)


def test_discs_lie_at_the_centre_and_are_as_large_as_the_masks() -> None:
    _, truth = case()
    discs = centre_discs(truth)
    assert discs.flatten(1).sum(1).tolist() == truth.flatten(1).sum(1).tolist()
    y, x = discs[1].nonzero().double().mean(0).tolist()
    assert (y, x) == (pytest.approx(4.0, abs=0.5), pytest.approx(5.5, abs=0.5))


def test_without_annotation_or_nodule_there_is_no_score() -> None:
    logits, truth = case()
    assert all(map(math.isnan, localise(logits, truth, torch.zeros(3, dtype=torch.bool))))
    empty = localise(logits, truth, torch.tensor([False, False, True]))
    assert empty.dice == 1.0 and math.isnan(empty.pointing)
    assert NOWHERE._fields == empty._fields
