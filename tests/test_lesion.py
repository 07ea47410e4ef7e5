"""The region that stands for the lesion: the best source, honestly named, in every frame."""

import numpy as np
import pytest

from asycmst.analysis.lesion import find_lesion, token_areas

SIZE = (4, 12, 16)


def square(top: int, left: int, side: int = 4) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[:, top : top + side, left : left + side] = True
    return mask


def test_sources_in_their_order() -> None:
    relevance = square(0, 0).astype(np.float32)
    known = {
        "given": square(2, 2),
        "predicted": square(4, 4),
        "annotated": square(6, 6),
        "relevance": relevance,
    }
    for source in ("given", "predicted", "annotated", "relevance"):
        found = find_lesion(SIZE, **known)
        assert found.source == source
        assert np.array_equal(found.mask, known[source] > 0)
        expected = () if source in ("given", "predicted") else ("the model has no segmentation",)
        assert tuple(note.split(":")[0] for note in found.notes) == expected
        known.pop(source)
    assert find_lesion(SIZE).source == "centre"


def test_a_segmentation_that_marks_nothing_is_said() -> None:
    nothing = np.zeros(SIZE, bool)
    found = find_lesion(SIZE, predicted=nothing, annotated=nothing)
    assert found.source == "centre"
    assert found.notes == (
        "the model's segmentation marks nothing: the centre of the frame stands in for the lesion",
    )
    y, x = np.nonzero(found.mask[0])
    assert (y.mean(), x.mean()) == (5.5, 7.5)
    assert found.mask.mean() == pytest.approx(np.pi / 16, abs=0.03)
    assert find_lesion((1, 1, 1)).mask.all(), "never empty"


def test_a_frame_without_a_mark_takes_the_nearest() -> None:
    mask = np.zeros((5, 12, 16), bool)
    mask[1, 2, 2] = mask[4, 3, 3] = True
    found = find_lesion((5, 12, 16), predicted=mask)
    assert [tuple(map(int, np.argwhere(frame)[0])) for frame in found.mask] == [
        (2, 2), (2, 2), (2, 2), (3, 3), (3, 3),
    ]  # fmt: skip
    assert found.notes == (
        "3 of 5 frames have no mark of their own and take that of the nearest frame",
    )


def test_relevance_is_cut_at_half_and_to_one_piece() -> None:
    relevance = np.zeros(SIZE)
    relevance[:, 2:5, 2:5] = 0.6
    relevance[0, 3, 3] = 1.0  # the mean over frames is 0.7 there
    relevance[:, 8:10, 10:12] = 0.5  # above half, but elsewhere
    relevance[:, 2, 6] = 0.3
    found = find_lesion(SIZE, relevance=relevance)
    expected = np.zeros(SIZE, bool)
    expected[:, 2:5, 2:5] = True
    assert np.array_equal(found.mask, expected)
    assert find_lesion(SIZE, relevance=np.zeros(SIZE)).source == "centre"


def test_an_empty_given_mask_is_an_error() -> None:
    with pytest.raises(ValueError, match="marks nothing"):
        find_lesion(SIZE, given=np.zeros(SIZE, bool))


def test_token_areas_by_hand() -> None:
    """A 4 x 4 square over tokens of 4 x 4 pixels, two pixels too far right."""
    areas = token_areas(square(4, 6), (3, 4))
    expected = np.zeros((3, 4))
    expected[1, 1] = expected[1, 2] = 0.5
    assert areas.shape == (4, 12)
    assert np.array_equal(areas[0].numpy().reshape(3, 4), expected)
