"""How splits are drawn: by patient, 5:2:3, with disjoint test sets (Section 4.1.2).

The paper asks for 5:2:3 and for every sample to be in exactly one of three test sets, which cannot
both hold. `cover="disjoint"` keeps 5:2:3: three disjoint test sets of 30 %, 10 % are never tested.
`cover="exact"` keeps the other: the test sets are all cases once, the rest is divided 5:2.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asycmst.data.splits import LabelledCase, Split, check_ids, check_split, count, patient_key

Cover = Literal["disjoint", "exact"]
Rows = NDArray[np.int64]

_TEST_SHARE = 0.3
_VALIDATION_SHARE = 2 / 7  # of what is not tested
_MOST_DISJOINT = 3
_CLASSES = ("benign", "malignant")


def make_splits(
    cases: Sequence[LabelledCase],
    *,
    seed: int,
    cover: Cover = "disjoint",
    stratified: bool = False,
    folds: int = 3,
) -> tuple[Split, ...]:
    """Draw splits by patient; all cases of a patient are in one part.

    Shares are of patients. A patient with cases of both classes counts as malignant where classes
    are balanced.

    Args:
        cases: in any order; the same cases in another order are drawn alike.
        seed: of the draw, at least 0.
        cover: "disjoint" for test sets of 30 %, "exact" for test sets that hold every case once.
        stratified: give every part the same share of malignant patients; plain random otherwise,
            as the paper has it.
        folds: number of splits: 1 to 3 for "disjoint", at least 2 for "exact".

    Returns:
        The splits, numbered from 1 where they are written.

    Raises:
        ValueError: an id occurs twice, `folds` is out of range, or there are too few patients for
            every part of every split to hold both classes.
    """
    if cover not in ("disjoint", "exact"):
        raise ValueError(f"cover={cover!r}: allowed are 'disjoint' and 'exact'")
    low, high = (1, _MOST_DISJOINT) if cover == "disjoint" else (2, len(cases))
    if not low <= folds <= high:
        raise ValueError(
            f"folds={folds} with cover={cover!r} and {len(cases)} cases: allowed are {low} to "
            f"{high}"
        )
    check_ids(case.id for case in cases)
    labels: dict[tuple[str, str], int] = {}
    for case in cases:
        labels[patient_key(case)] = max(labels.get(patient_key(case), 0), case.label)
    keys = sorted(labels)
    truth = np.array([labels[key] for key in keys])
    random = np.random.default_rng(seed)
    try:
        tests = (_thirds if cover == "disjoint" else _all_once)(truth, folds, stratified, random)
        drawn = [_with_validation(truth, test, stratified, random) for test in tests]
    except ValueError as error:  # scikit-learn, of a class with too few members
        raise ValueError(
            f"{len(keys)} patients ({truth.sum()} malignant) are too few for {folds} splits with "
            f"three parts: {error}; add cases or ask for fewer folds"
        ) from error
    splits = []
    for number, parts in enumerate(drawn, 1):
        part_of = {keys[row]: part for part, rows in enumerate(parts) for row in rows}
        ids: tuple[list[str], ...] = ([], [], [])
        for case in cases:
            ids[part_of[patient_key(case)]].append(case.id)
        split = Split(*map(tuple, ids))
        check_split(split, cases, f"split {number}")
        _check_classes(split, cases, number, stratified)
        splits.append(split)
    return tuple(splits)


def _check_classes(
    split: Split, cases: Sequence[LabelledCase], number: int, stratified: bool
) -> None:
    for part, ids in split._asdict().items():
        counts = count(ids, cases)
        for name in _CLASSES:
            if not counts[name]:
                more = "" if stratified else ", stratify the splits, take another seed"
                raise ValueError(
                    f"split {number} has no {name} case among the {counts['cases']} of its {part} "
                    f"part: add cases{more} or ask for fewer folds"
                )


def _thirds(truth: Rows, folds: int, stratified: bool, random: np.random.Generator) -> list[Rows]:
    """Disjoint blocks of 30 %, of each class or of all."""
    everyone = np.arange(len(truth))
    groups = [everyone[truth == label] for label in (0, 1)] if stratified else [everyone]
    blocks: list[list[int]] = [[] for _ in range(folds)]
    for group in groups:
        members = random.permutation(group)
        size = min(round(_TEST_SHARE * len(members)), len(members) // folds)
        for fold, block in enumerate(blocks):
            block.extend(members[fold * size : (fold + 1) * size])
    return [np.array(block, dtype=np.int64) for block in blocks]


def _all_once(
    truth: Rows, folds: int, stratified: bool, random: np.random.Generator
) -> list[Rows]:
    from sklearn.model_selection import KFold, StratifiedKFold

    rarer = int(min(truth.sum(), len(truth) - truth.sum()))
    if stratified and rarer < folds:  # scikit-learn only warns
        raise ValueError(f"the rarer class has {rarer}")
    kind = StratifiedKFold if stratified else KFold
    dealer = kind(folds, shuffle=True, random_state=int(random.integers(2**31)))
    return [test for _, test in dealer.split(truth, truth)]


def _with_validation(
    truth: Rows,
    test: Rows,
    stratified: bool,
    random: np.random.Generator,
) -> tuple[Rows, Rows, Rows]:
    from sklearn.model_selection import train_test_split

    rest = np.setdiff1d(np.arange(len(truth)), test)
    train, validation = train_test_split(
        rest,
        test_size=_VALIDATION_SHARE,
        stratify=truth[rest] if stratified else None,
        random_state=int(random.integers(2**31)),
    )
    return train, validation, test
