"""Labels that are wrong on purpose: how many, which, and that nothing else changes (Fig 11a)."""

import math

import pytest
import torch

from asycmst.data.label_noise import InvertedLabels, inverted_cases
from asycmst.data.phantom import PhantomConfig
from asycmst.data.samples import PhantomDataset

LABELS = {f"case{n}": int(n % 3 == 0) for n in range(100)}  # 34 malignant, 66 benign


@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 1.0])
def test_the_same_share_of_each_class_is_inverted(fraction: float) -> None:
    chosen = inverted_cases(LABELS, fraction, seed=3)
    assert len(set(chosen)) == len(chosen)
    for label, size in ((0, 66), (1, 34)):
        count = sum(LABELS[id_] == label for id_ in chosen)
        assert count == math.floor(fraction * size + 0.5)


def test_a_half_is_rounded_up_whatever_the_last_bit() -> None:
    ten = {f"{n}": 0 for n in range(10)}
    assert 0.35 * 10 == 3.5 and len(inverted_cases(ten, 0.35, 0)) == 4
    assert 0.145 * 100 < 14.5
    assert len(inverted_cases({f"{n}": 0 for n in range(100)}, 0.145, 0)) == 15


def test_the_choice_is_that_of_seed_and_ids_alone() -> None:
    chosen = inverted_cases(LABELS, 0.2, seed=3)
    backwards = dict(reversed(LABELS.items()))
    assert set(inverted_cases(backwards, 0.2, seed=3)) == set(chosen)
    assert set(inverted_cases(LABELS, 0.2, seed=4)) != set(chosen)
    assert set(chosen) < set(inverted_cases(LABELS, 0.3, seed=3))


def test_inverted_samples_differ_by_their_label_alone() -> None:
    clean = PhantomDataset(PhantomConfig(frames=2, size=32), 0, 6)
    ids = clean.ids()
    noisy = InvertedLabels(clean, ids, [ids[1], ids[4]])
    assert len(noisy) == 6 and noisy.nodule_share() == clean.nodule_share()
    for index, (one, other) in enumerate(zip(noisy, clean, strict=True)):
        wrong = index in (1, 4)
        assert int(one["label"]) == (1 - int(other["label"]) if wrong else int(other["label"]))
        assert one["label"].dtype == torch.int64 and one["id"] == other["id"]
        for name in ("bus", "ceus", "mask", "mask_valid"):
            assert torch.equal(one[name], other[name])  # type: ignore[literal-required]
        assert torch.equal(noisy.masks(index)[0], clean.masks(index)[0])
    assert [int(item["label"]) for item in noisy] == noisy.labels().tolist()
