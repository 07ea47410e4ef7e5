"""Flattening and positions (Section 3.1)."""

import pytest
import torch

from asycmst.tokens import TokenEmbedding


def test_time_first_then_rows_then_columns() -> None:
    frames, rows, columns, dim = 3, 2, 4, 5
    t, h, w, d = torch.meshgrid(
        *(torch.arange(n) for n in (frames, rows, columns, dim)), indexing="ij"
    )
    coded = (1000 * t + 100 * h + 10 * w + d).double()[None]
    embedding = TokenEmbedding(frames, rows * columns, dim)
    with torch.no_grad():
        embedding.positions.table.zero_()
        tokens = embedding(coded)
    assert tokens.shape == (1, frames, rows * columns, dim)
    for row in range(rows):
        for column in range(columns):
            place = tokens[0, 2, row * columns + column]
            assert place.tolist() == [2000 + 100 * row + 10 * column + k for k in range(dim)]


def test_positions_are_added_to_every_clip() -> None:
    embedding = TokenEmbedding(4, 6, 8)
    features = torch.rand(3, 4, 2, 3, 8)
    expected = features.reshape(3, 4, 6, 8) + embedding.positions.table
    assert torch.equal(embedding(features), expected)


@pytest.mark.parametrize("frames", [1, 3])
def test_a_shorter_clip_uses_the_first_rows(frames: int) -> None:
    embedding = TokenEmbedding(4, 6, 8)
    features = torch.zeros(1, frames, 2, 3, 8)
    tokens = embedding(features)
    assert torch.equal(tokens, embedding.positions.table[:, :frames])
    tokens.sum().backward()
    assert embedding.positions.table.grad is not None
    used = embedding.positions.table.grad.abs().amax((0, 2, 3)) > 0
    assert used.tolist() == [True] * frames + [False] * (4 - frames)


@pytest.mark.parametrize("std", [0.02, 0.5])
def test_positions_start_as_a_truncated_normal(std: float) -> None:
    positions = TokenEmbedding(16, 49, 64, std).positions.table
    assert positions.shape == (1, 16, 49, 64)
    assert positions.abs().max() <= 2 * std
    # Cut at two standard deviations, a normal keeps 0.8796 of its spread.
    assert positions.std().item() == pytest.approx(0.8796 * std, rel=0.02)
    assert positions.mean().item() == pytest.approx(0, abs=0.025 * std)


def test_factorised_positions_are_a_row_for_the_frame_plus_one_for_the_place() -> None:
    embedding = TokenEmbedding(4, 6, 8, kind="factorised")
    assert sum(p.numel() for p in embedding.parameters()) == (4 + 6) * 8
    assert sum(p.numel() for p in TokenEmbedding(4, 6, 8).parameters()) == 4 * 6 * 8
    tokens = embedding(torch.zeros(2, 3, 2, 3, 8))  # a frame shorter than the table
    time, space = embedding.positions.time[0, :, 0], embedding.positions.space[0, 0]
    for frame in range(3):
        for place in range(6):
            expected = (time[frame] + space[place]).expand(2, 8)
            assert torch.equal(tokens[:, frame, place], expected)
