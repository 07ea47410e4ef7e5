"""One run of a study: draw phantoms, train one model, test it once."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from asycmst.analysis.predict_dataset import Predictions, predict_dataset
from asycmst.baselines.early_fusion import parameter_count
from asycmst.config import AsyCMSTConfig
from asycmst.data.phantom import PhantomConfig
from asycmst.data.samples import PhantomDataset, split_seed
from asycmst.losses import AsyCMSTLoss
from asycmst.model import AsyCMST
from asycmst.training.checkpoint import save_checkpoint
from asycmst.training.fit import fit
from asycmst.training.module import Progress
from asycmst.training.recipe import Recipe
from asycmst.training.start import start_at_base_rate

Design = Literal["full", "no cross-attention"]
Send = Callable[[Progress | str], None]


@dataclass(frozen=True)
class Sizes:
    """Samples for training, validation and test."""

    train: int = 1600
    validation: int = 200
    test: int = 400

    @classmethod
    def fast(cls) -> "Sizes":
        """Enough for a look, not for a claim."""
        return cls(train=120, validation=40, test=40)


@dataclass(frozen=True)
class Run:
    """A design, its data and its seed.

    Attributes:
        design: which model; all have the auxiliary tasks of `config`.
        config: the full model; the other designs derive theirs from it.
        phantom: the data's physics; its sizes must be those of `config`.
        sizes: of the three splits.
        recipe: of the optimisation.
        seed: of the data, the initial weights and the order of samples.
        checkpoint: where the trained model goes, None for nowhere.
    """

    design: Design
    config: AsyCMSTConfig
    phantom: PhantomConfig
    sizes: Sizes
    recipe: Recipe
    seed: int
    checkpoint: Path | None = None


class Outcome(NamedTuple):
    """A finished run; `seconds` is the training alone, `total_seconds` everything."""

    design: Design
    parameters: int
    best_epoch: int
    validation_loss: float
    validation_auc: float
    seconds: float
    total_seconds: float
    test: Predictions


def build_model(design: Design, config: AsyCMSTConfig) -> AsyCMST:
    """The model of a design, with fresh weights."""
    if design == "no cross-attention":
        config = replace(config, cross_attention=None, acmst_layers=None)
    return AsyCMST(config)


def execute(run: Run, send: Send) -> Outcome:
    """Draw the data, train, restore the best epoch, test; `send` hears of every step."""
    start = time.perf_counter()
    send("drawing phantoms")
    train = PhantomDataset(run.phantom, split_seed(run.seed, "train"), run.sizes.train)
    validation = PhantomDataset(
        run.phantom, split_seed(run.seed, "validation"), run.sizes.validation
    )

    def build() -> AsyCMST:
        model = build_model(run.design, run.config)
        if model.mask_decoder is not None and run.config.learns_masks:
            start_at_base_rate(model.mask_decoder, train)
        return model

    fitted = fit(
        build,
        AsyCMSTLoss(run.config),
        train,
        validation,
        run.recipe,
        seed=run.seed,
        report=send,
    )
    send("testing")
    test = PhantomDataset(run.phantom, split_seed(run.seed, "test"), run.sizes.test)
    predictions = predict_dataset(fitted.model, test)
    if run.checkpoint is not None:
        meta = {
            "design": run.design,
            "seed": run.seed,
            "best_epoch": fitted.best_epoch,
            "validation_loss": fitted.validation_loss,
            "validation_auc": fitted.validation_auc,
            "trained_on": f"synthetic {run.phantom.domain} phantom",
        }
        save_checkpoint(run.checkpoint, fitted.model, meta)
    return Outcome(
        design=run.design,
        parameters=parameter_count(fitted.model),
        best_epoch=fitted.best_epoch,
        validation_loss=fitted.validation_loss,
        validation_auc=fitted.validation_auc,
        seconds=fitted.seconds,
        total_seconds=time.perf_counter() - start,
        test=predictions,
    )
