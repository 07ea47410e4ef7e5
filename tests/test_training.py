"""Training: it learns, it repeats itself bit for bit, and it keeps quiet."""

import logging
import os
import random
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from asycmst.config import AsyCMSTConfig
from asycmst.data.phantom import PhantomConfig
from asycmst.data.samples import Item, PhantomDataset
from asycmst.losses import AsyCMSTLoss
from asycmst.model import AsyCMST
from asycmst.training.augmentation import Augmentation
from asycmst.training.fit import Fitted, fit
from asycmst.training.module import Progress, Report
from asycmst.training.recipe import Recipe
from asycmst.training.start import start_at_base_rate

CONFIG = replace(
    AsyCMSTConfig.demo(), frames=2, image_size=32, dim=16, ffn_dim=16, decoder_channels=(8, 8)
)
DATA = PhantomConfig(frames=2, size=32)


@pytest.fixture(scope="module")
def train() -> PhantomDataset:
    return PhantomDataset(DATA, 0, 12)


@pytest.fixture(scope="module")
def validation() -> PhantomDataset:
    return PhantomDataset(DATA, 1, 8)


def run(
    train: PhantomDataset,
    validation: PhantomDataset,
    *,
    seed: int = 0,
    report: Report = lambda progress: None,
    **recipe: object,
) -> Fitted[AsyCMST]:
    return fit(
        lambda: AsyCMST(CONFIG),
        AsyCMSTLoss(CONFIG),
        train,
        validation,
        replace(Recipe.demo(), **{"epochs": 2, "batch_size": 4, **recipe}),  # type: ignore[arg-type]
        seed=seed,
        report=report,
    )


def test_the_loss_falls_on_a_tiny_set(train: PhantomDataset, validation: PhantomDataset) -> None:
    steps: list[Progress] = []
    run(train, validation, report=steps.append, epochs=12, augmentation=None)
    losses = [step.loss for step in steps if not step.epoch_done]
    assert np.mean(losses[-3:]) < 0.75 * np.mean(losses[:3])


def test_a_seed_repeats_bit_for_bit(train: PhantomDataset, validation: PhantomDataset) -> None:
    def losses(seed: int) -> list[Progress]:
        steps: list[Progress] = []
        weights.append(run(train, validation, seed=seed, report=steps.append).model.state_dict())
        return steps

    weights: list[dict[str, torch.Tensor]] = []
    first, again, other = losses(1), losses(1), losses(2)
    assert first == again
    for key, value in weights[0].items():
        assert torch.equal(value, weights[1][key]), key
    assert first[0].loss != other[0].loss


def test_the_callers_generators_are_left_alone(
    train: PhantomDataset, validation: PhantomDataset
) -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    run(train, validation, epochs=1)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]


def test_the_best_epoch_by_validation_loss_comes_back(
    train: PhantomDataset, validation: PhantomDataset
) -> None:
    fitted = run(train, validation, epochs=5, learning_rate=0.05)
    losses = [epoch.validation_loss for epoch in fitted.history]
    assert len(losses) == 5
    assert fitted.validation_loss == min(losses)
    assert fitted.best_epoch == 1 + losses.index(min(losses))
    assert fitted.validation_auc == fitted.history[fitted.best_epoch - 1].validation_auc
    assert not fitted.model.training
    batch = torch.utils.data.default_collate(list(validation))
    with torch.no_grad():
        output = fitted.model(batch["bus"], batch["ceus"])
        loss = AsyCMSTLoss(CONFIG)(output, batch["label"], batch["mask"]).total
    assert float(loss) == pytest.approx(fitted.validation_loss, rel=1e-4)


def test_progress_counts_every_step_and_epoch(
    train: PhantomDataset, validation: PhantomDataset
) -> None:
    steps: list[Progress] = []
    run(train, validation, report=steps.append, batch_size=5)
    assert [(p.epoch, p.step, p.epoch_done) for p in steps] == [
        *((1, step, False) for step in (1, 2, 3)),
        (1, 3, True),
        *((2, step, False) for step in (4, 5, 6)),
        (2, 6, True),
    ]
    assert {(p.epochs, p.total_steps) for p in steps} == {(2, 6)}
    assert steps[0].validation_loss is None and steps[0].validation_auc is None
    assert steps[4].validation_loss == steps[3].validation_loss
    weighted = steps[0].diagnosis + 0.4 * steps[0].fss + 0.4 * steps[0].segmentation
    assert steps[0].loss == pytest.approx(weighted, rel=1e-5)


def test_nothing_is_printed_or_left_behind(
    train: PhantomDataset,
    validation: PhantomDataset,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    levels = {name: logging.getLogger(name).level for name in ("lightning.pytorch",)}
    run(train, validation, epochs=1)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())
    assert {name: logging.getLogger(name).level for name in levels} == levels


def test_an_interrupt_is_an_interrupt(train: PhantomDataset, validation: PhantomDataset) -> None:
    def interrupt(progress: Progress) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(train, validation, report=interrupt)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_diverged_run_is_named(train: PhantomDataset, validation: PhantomDataset) -> None:
    with pytest.raises(
        FloatingPointError,
        match=r"loss is nan in epoch 1, step 2 of 3; lower learning_rate=1e.30 or",
    ):
        run(train, validation, epochs=1, learning_rate=1e30)


def test_the_decoder_starts_at_the_share_of_nodule_pixels(train: PhantomDataset) -> None:
    decoder = AsyCMST(CONFIG).mask_decoder
    assert decoder is not None
    start_at_base_rate(decoder, train)
    with torch.no_grad():
        decoder.logit.weight.zero_()
        answers = decoder(torch.zeros(1, 1, 2, 2, 16), (32, 32)).sigmoid()
    torch.testing.assert_close(answers, torch.full_like(answers, train.nodule_share()))
    empty = PhantomDataset(DATA, 0, 1)
    empty.sample(0).mask[:] = False
    with pytest.raises(ValueError, match="covers 0% of all training frames"):
        start_at_base_rate(decoder, empty)


def test_gradients_are_clipped_only_when_asked(
    train: PhantomDataset, validation: PhantomDataset
) -> None:
    def final_loss(clip: float | None) -> float:
        return run(train, validation, epochs=1, gradient_clip=clip).validation_loss

    free, loose, tight = final_loss(None), final_loss(1e6), final_loss(1e-6)
    assert free == loose
    assert free != tight


def batch_of(frames: torch.Tensor) -> Item:
    """Every channel, modality and the mask show the same picture."""
    clip = frames[:, None].expand(-1, 3, -1, -1, -1)
    label = torch.zeros(len(frames), dtype=torch.int64)
    valid = torch.ones(frames.shape[:2], dtype=torch.bool)
    return Item(bus=clip, ceus=clip, mask=frames > 0, mask_valid=valid, label=label, id="")


def test_frames_without_a_mask_take_no_part(
    train: PhantomDataset, validation: PhantomDataset
) -> None:
    """Eq 5 runs over annotated frames; unannotated ones leave loss and weights alone."""

    class Spoiled(torch.utils.data.Dataset[Item]):
        def __len__(self) -> int:
            return len(train)

        def __getitem__(self, index: int) -> Item:
            item = train[index]
            item["mask_valid"][1] = False
            item["mask"][1] = spoil[index]
            return item

    weights, losses = [], []
    for value in (False, True):
        spoil = torch.full((len(train), 32, 32), value)
        fitted = run(Spoiled(), Spoiled(), epochs=1)  # type: ignore[arg-type]
        weights.append(fitted.model.state_dict())
        losses.append(fitted.validation_loss)
    assert losses[0] == losses[1]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


def test_both_modalities_all_frames_and_the_mask_move_alike() -> None:
    picture = (torch.rand(1, 1, 16, 16) > 0.5).float().expand(8, 3, -1, -1)
    result = Augmentation(shift=0.3)(batch_of(picture))
    assert result["mask"].dtype == torch.bool
    for clip, other, mask in zip(result["bus"], result["ceus"], result["mask"], strict=True):
        assert torch.equal(clip, other)
        assert torch.equal(clip, clip[:1, :1].expand_as(clip))
        assert torch.equal(clip[0] > 0, mask)
    assert len({tuple(clip.flatten().tolist()) for clip in result["bus"]}) > 1


def test_augmentation_keeps_the_order_of_the_frames() -> None:
    """Frame self-sorting learns from it (Section 3.2)."""
    frames = torch.arange(1.0, 6.0)[:, None, None].expand(8, 5, 12, 12)
    moved = Augmentation(0.5, 0.5, shift=0.3)(batch_of(frames))
    for clip in (moved["bus"], moved["ceus"]):
        assert torch.equal(clip, frames[:, None].expand(-1, 3, -1, -1, -1))


def test_flips_follow_their_probabilities() -> None:
    picture = torch.arange(16.0).reshape(1, 1, 4, 4)
    for probabilities, axes in (((0, 0), []), ((1, 0), [-1]), ((0, 1), [-2]), ((1, 1), [-1, -2])):
        augmentation = Augmentation(*map(float, probabilities), shift=0.0)
        moved = augmentation(batch_of(picture))["ceus"][:, 0]
        assert torch.equal(moved, picture.flip(axes))


def test_a_shift_moves_whole_pixels_and_stays_within_its_limit() -> None:
    picture = torch.zeros(1, 1, 16, 16)
    picture[..., 8, 8] = 1
    places = set()
    for _ in range(200):
        moved = Augmentation(0.0, 0.0, shift=0.125)(batch_of(picture))["bus"][0, 0, 0]
        assert moved.sum() == 1
        places.add(tuple(moved.nonzero()[0].tolist()))
    assert places == {(row, column) for row in range(6, 11) for column in range(6, 11)}


@pytest.mark.parametrize(
    "fields", [{"horizontal_flip": 1.5}, {"vertical_flip": -0.1}, {"shift": 0.5}], ids=str
)
def test_a_wrong_augmentation_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(fields))}=.* is not allowed"):
        Augmentation(**fields)
