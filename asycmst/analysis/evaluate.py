"""Trained models over the test parts of splits, with thresholds from the validation parts.

A model is never scored on a case of a patient that it was trained on.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from asycmst.analysis.predict_dataset import (
    Predictions,
    localisation_scores,
    predict_dataset,
)
from asycmst.analysis.statistics import Scored
from asycmst.analysis.thresholds import RULES, Rule, choose_threshold
from asycmst.data.samples import Item
from asycmst.data.splits import (
    LabelledCase,
    Split,
    check_split,
    count,
    patients,
)
from asycmst.network_config import NetworkConfig
from asycmst.training.checkpoint import load_checkpoint
from asycmst.training.networks import BUILT_IN, Network, config_of

OpenCases = Callable[[Sequence[str]], Dataset[Item]]


class Study(NamedTuple):
    """One model to evaluate: a name and a checkpoint for each split."""

    name: str
    checkpoints: tuple[Path, ...]


class Fold(NamedTuple):
    """A trained model on one split.

    Attributes:
        checkpoint_sha256: of the file.
        config: of the model.
        parameters: number of the model's weights.
        meta: what the checkpoint says about its training.
        validation: answers on the validation part; no case where the split has none.
        test: answers on the test part.
        scored: the test part as the statistics take it.
        thresholds: by rule, chosen on the validation part; empty where it lacks a class.
    """

    checkpoint_sha256: str
    config: NetworkConfig
    parameters: int
    meta: dict[str, Any]
    validation: Predictions
    test: Predictions
    scored: Scored
    thresholds: dict[Rule, float]


class Evaluated(NamedTuple):
    """Everything that was predicted.

    Attributes:
        folds: per study one per split.
        splits: what was trained on, watched and tested.
        counts: per split and part the cases, patients and classes.
        wanted_sensitivity: of the rule "sensitivity".
    """

    folds: dict[str, list[Fold]]
    splits: tuple[Split, ...]
    counts: list[dict[str, dict[str, int]]]
    wanted_sensitivity: float


def evaluate(
    studies: Sequence[Study],
    splits: Sequence[Split],
    cases: Sequence[LabelledCase],
    open_cases: OpenCases,
    *,
    sensitivity: float = 0.9,
    transfer: bool = False,
    device: str | torch.device = "cpu",
    networks: Mapping[str, Network] = BUILT_IN,
    report: Callable[[str, int, int], None] | None = None,
) -> Evaluated:
    """Predict the validation and test parts of splits.

    Args:
        studies: at least one; the names differ.
        splits: one for each checkpoint of a study, in order; a study with several checkpoints on
            one split repeats it.
        cases: the data set.
        open_cases: opens the clips of some ids, in that order.
        sensitivity: the least sensitivity of the operating point "sensitivity".
        transfer: the models were trained on another data set (Table 3), so that equal ids are
            different cases; otherwise what a model was trained on is never scored.
        device: where the models run.
        networks: those that the checkpoints may hold.
        report: hears what is predicted, the cases done and their number.

    Raises:
        FileNotFoundError: a checkpoint does not exist.
        ValueError: a checkpoint is damaged or was trained on a patient of its test part, numbers
            of checkpoints and splits differ, a split does not fit the data, or a test part lacks
            a class.
    """
    _check_studies(studies, splits)
    counts = []
    for number, split in enumerate(splits, 1):
        check_split(split, cases, f"split {number}")
        counts.append({part: count(ids, cases) for part, ids in split._asdict().items()})
        for name in ("benign", "malignant"):
            if not counts[-1]["test"][name]:
                raise ValueError(
                    f"split {number}: no {name} case among the {len(split.test)} of its test "
                    "part, so there is no AUC: test on both classes"
                )
    owner = dict(zip((case.id for case in cases), patients(cases), strict=True))
    for study in studies:  # all of them before the first long run
        for checkpoint, split in zip(study.checkpoints, splits, strict=True):
            _, meta = load_checkpoint(checkpoint, networks)
            if not transfer:
                check_unseen(checkpoint, meta, split, owner)
    folds: dict[str, list[Fold]] = {}
    for study in studies:
        pairs = zip(study.checkpoints, splits, strict=True)
        folds[study.name] = [
            _fold(study.name, k, *pair, owner, open_cases, sensitivity, device, networks, report)
            for k, pair in enumerate(pairs, 1)
        ]
    return Evaluated(folds, tuple(splits), counts, sensitivity)


def check_unseen(
    checkpoint: str | os.PathLike[str],
    meta: Mapping[str, Any],
    split: Split,
    owner: Mapping[str, int],
) -> None:
    """Refuse to score a model on patients that it was trained on or chosen by.

    The checkpoint's meta data say what it saw: "train_ids" and "validation_ids" are lists of case
    ids. A checkpoint without them, as that of the demo, was trained on no cases of a data set.

    Args:
        checkpoint: named in the error.
        meta: of the checkpoint.
        split: whose test part is to be scored.
        owner: the patient of each case id.

    Raises:
        ValueError: the model saw such a patient.
    """
    tested = {owner[id_] for id_ in split.test}
    for key, how in (("train_ids", "trained on"), ("validation_ids", "chosen by")):
        shared = tested & {owner[id_] for id_ in meta.get(key, ()) if id_ in owner}
        if shared:
            raise ValueError(
                f"{checkpoint} was {how} {len(shared)} of the {len(tested)} patients of this test "
                "part: give the splits and the fold of its training"
            )


def _check_studies(studies: Sequence[Study], splits: Sequence[Split]) -> None:
    names = [study.name for study in studies]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"models {', '.join(names) or 'none'}: give at least one, each with a name of its own"
        )
    for study in studies:
        if len(study.checkpoints) != len(splits):
            raise ValueError(
                f"{study.name} has {len(study.checkpoints)} checkpoint(s) for {len(splits)} "
                "split(s): give one for each split, in order"
            )


def _fold(
    name: str,
    number: int,
    checkpoint: Path,
    split: Split,
    owner: Mapping[str, int],
    open_cases: OpenCases,
    sensitivity: float,
    device: str | torch.device,
    networks: Mapping[str, Network],
    report: Callable[[str, int, int], None] | None,
) -> Fold:
    model, meta = load_checkpoint(checkpoint, networks)
    model.to(device)

    def answers(part: str, ids: Sequence[str]) -> Predictions:
        if not ids:
            return Predictions([], [], [], [], [])
        what = f"{name}, split {number}, {part}"

        def tell(done: int) -> None:
            if report is not None:
                report(what, done, len(ids))

        return predict_dataset(model, open_cases(ids), report=tell)

    validation, test = answers("validation", split.validation), answers("test", split.test)
    for found in (validation, test):
        if np.isnan(found.probabilities).any():
            raise ValueError(
                f"the model of {checkpoint} answers NaN: its training diverged, use another "
                "checkpoint"
            )
    return Fold(
        checkpoint_sha256=hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        config=config_of(model),
        parameters=sum(weight.numel() for weight in model.parameters()),
        meta=meta,
        validation=validation,
        test=test,
        scored=Scored(
            labels=np.array(test.labels, dtype=np.int64),
            probabilities=np.array(test.probabilities),
            patients=np.array([owner[id_] for id_ in test.ids], dtype=np.int64),
            dice=np.array(test.dice),
            frame_order=np.array(test.frame_order),
            **localisation_scores(test),
        ),
        thresholds=_thresholds(validation, sensitivity),
    )


def _thresholds(validation: Predictions, sensitivity: float) -> dict[Rule, float]:
    if len(set(validation.labels)) < 2:
        return {}
    return {
        rule: choose_threshold(validation.labels, validation.probabilities, rule, sensitivity)
        for rule in RULES
    }
