"""Frame scores (Eq 1-2), nodule masks and the diagnosis head (Eq 15)."""

import math

import pytest
import torch
from torch import Tensor, nn

from asycmst.config import AsyCMSTConfig
from asycmst.heads import Classifier, FrameSortingHead, MaskDecoder
from asycmst_ops import fss_ranking_loss

SIX = AsyCMSTConfig(dim=6, heads=1)


def pooling_only() -> FrameSortingHead:
    """Eq 1 without Eq 2, for one channel."""
    head = FrameSortingHead(1)
    head.mlp = nn.Sequential(nn.Identity())
    return head


def test_pooling_a_constant_map_gives_the_constant() -> None:
    features = torch.tensor([3.0, -2.0]).reshape(1, 2, 1, 1, 1).expand(1, 2, 2, 3, 1)
    assert pooling_only()(features).tolist() == [[3.0, -2.0]]


def test_pooling_a_single_peak_gives_half_its_height_plus_half_its_share() -> None:
    features = torch.zeros(1, 1, 2, 4, 1)
    features[0, 0, 1, 2] = 5
    assert pooling_only()(features).item() == pytest.approx(5 * (1 / (2 * 8) + 1 / 2))


def test_the_maximums_gradient_goes_to_the_largest_place() -> None:
    features = torch.randn(1, 1, 2, 4, 1, requires_grad=True)
    pooling_only()(features).sum().backward()
    assert features.grad is not None
    expected = torch.full((8,), 1 / 16)
    expected[features.detach().flatten().argmax()] += 1 / 2
    torch.testing.assert_close(features.grad.flatten(), expected)


def test_scores_are_the_two_layer_network_of_each_frame() -> None:
    head, features = FrameSortingHead(6), torch.randn(2, 4, 3, 3, 6)
    scores = head(features)
    assert scores.shape == (2, 4)
    frame = features[1, 2].flatten(0, 1)
    pooled = (frame.mean(0) + frame.max(0).values) / 2
    hidden = (head.mlp[0].weight @ pooled + head.mlp[0].bias).clamp(min=0)
    assert scores[1, 2].item() == pytest.approx(
        (head.mlp[2].weight @ hidden + head.mlp[2].bias).item(), abs=1e-6
    )
    assert sum(p.numel() for p in head.parameters()) == 6 * 6 + 6 + 6 + 1


def test_permuting_frames_permutes_scores() -> None:
    head, features = FrameSortingHead(6), torch.randn(2, 4, 3, 3, 6)
    order = [3, 1, 0, 2]
    torch.testing.assert_close(head(features[:, order]), head(features)[:, order])


@pytest.mark.parametrize(
    ("grid", "doublings", "size"),
    [((7, 7), 5, (224, 224)), ((4, 4), 4, (64, 64)), ((2, 3), 2, (8, 12)), ((3, 3), 5, (80, 70))],
    ids=str,
)
def test_masks_have_the_size_of_the_frames(
    grid: tuple[int, int], doublings: int, size: tuple[int, int]
) -> None:
    decoder = MaskDecoder(6, (8, 4, 4, 4, 4)[:doublings])
    with torch.no_grad():
        masks = decoder(torch.randn(1, 2, *grid, 6), size)
    assert masks.shape == (1, 2, *size)


def test_each_width_doubles_the_resolution() -> None:
    decoder = MaskDecoder(6, (8, 4, 2))
    x = torch.randn(1, 6, 3, 5)
    for width, doubling in zip((8, 4, 2), decoder.doublings, strict=True):
        rows, columns = x.shape[2:]
        x = doubling(x)
        assert x.shape == (1, width, 2 * rows, 2 * columns)


def test_a_mask_depends_on_its_own_frame_only_in_training_too() -> None:
    decoder = MaskDecoder(6, (8, 4)).train()
    features = torch.randn(2, 3, 2, 2, 6, requires_grad=True)
    weights = torch.randn(8, 8)
    (decoder(features, (8, 8))[1, 0] * weights).sum().backward()
    assert features.grad is not None
    touched = features.grad.abs().amax((2, 3, 4)) > 0
    assert touched.tolist() == [[False] * 3, [True, False, False]]


@pytest.mark.parametrize("size", [(24, 36), (48, 27)], ids=["as decoded", "resized"])
def test_masks_keep_the_places_of_the_grid(size: tuple[int, int]) -> None:
    decoder = MaskDecoder(6, (8, 4)).eval()
    dark = torch.randn(1, 1, 6, 9, 6)
    lit = dark.clone()
    lit[0, 0, 4, 1] += 3
    with torch.no_grad():
        change = (decoder(lit, size) - decoder(dark, size)).abs()[0, 0]
    row, column = divmod(int(change.argmax()), size[1])
    assert abs(row // (size[0] // 6) - 4) <= 1
    assert abs(column // (size[1] // 9) - 1) <= 1


def test_a_decoder_learns_a_disc() -> None:
    features = torch.zeros(1, 1, 2, 2, 4)
    features[0, 0] = torch.eye(4).reshape(2, 2, 4)
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    disc = ((rows - 6) ** 2 + (columns - 9) ** 2 < 20).float()[None, None]
    decoder = MaskDecoder(4, (8, 8, 8))
    optimiser = torch.optim.Adam(decoder.parameters(), 0.02)
    for _ in range(60):
        optimiser.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(decoder(features, (16, 16)), disc)
        loss.backward()
        optimiser.step()
    assert ((decoder(features, (16, 16)) > 0) == disc.bool()).float().mean() > 0.98


def test_classifier_averages_the_summed_streams() -> None:
    bus, ceus = torch.randn(2, 2, 3, 4, 6)
    classifier = Classifier(SIX)
    logits, features = classifier(bus, ceus, None)
    expected = torch.stack([(bus[b] + ceus[b]).reshape(12, 6).mean(0) for b in range(2)])
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(logits, expected @ classifier.fc.weight.T + classifier.fc.bias)
    assert logits.shape == (2, 2)


def padding(value: float) -> tuple[Tensor, Tensor]:
    streams = torch.randn(2, 2, 5, 4, 6)
    streams[:, 0, 2:] = value
    return streams[0], streams[1]


@pytest.mark.parametrize("value", [0.0, 1e6, float("nan")])
def test_classifier_leaves_padding_out_of_the_mean(value: float) -> None:
    bus, ceus = padding(value)
    classifier = Classifier(SIX)
    valid = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)[..., None]
    logits, features = classifier(bus, ceus, valid)
    for row, frames in ((0, 2), (1, 5)):
        alone = classifier(bus[row : row + 1, :frames], ceus[row : row + 1, :frames], None)
        torch.testing.assert_close(logits[row : row + 1], alone[0])
        torch.testing.assert_close(features[row : row + 1], alone[1])


@torch.no_grad()
def test_the_papers_decoder_makes_probabilities_of_7_by_7_cells() -> None:
    paper = AsyCMSTConfig.paper()
    assert 7 * 2 ** len(paper.decoder_channels) == 224  # by doublings alone
    decoder = MaskDecoder(paper.dim, paper.decoder_channels).eval()
    probabilities = decoder(torch.randn(1, 2, 7, 7, paper.dim), (224, 224)).sigmoid()
    assert probabilities.shape == (1, 2, 224, 224)
    assert 0 < probabilities.min() < probabilities.max() < 1


def test_a_learned_order_makes_a_reversed_clip_expensive() -> None:
    """The places of the frames are the only labels that frame self-sorting has (Section 3.2)."""
    features = 0.1 * torch.randn(4, 6, 2, 2, 3)
    features[..., 0] += torch.linspace(0, 1, 6)[:, None, None]  # one channel rises with time
    head = FrameSortingHead(3, hidden=8)
    optimiser = torch.optim.Adam(head.parameters(), 0.05)
    for _ in range(100):
        optimiser.zero_grad()
        fss_ranking_loss(head(features)).backward()
        optimiser.step()
    with torch.no_grad():
        assert (head(features).diff(dim=1) > 0).all()
        in_order = fss_ranking_loss(head(features)).item()
        reversed_order = fss_ranking_loss(head(features.flip(1))).item()
    assert in_order < -math.log(0.9) + 0.02
    assert reversed_order > math.log(10)  # what a pair costs at the gap that it should have
