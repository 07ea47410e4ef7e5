"""Who is trained on, watched and tested: parts that share no patient, and their files.

A folder of splits holds, for each split k from 1 on, train_k.csv, valid_k.csv and test_k.csv with
the columns id, label and patient, the last a number that stands in for the identifier, and
splits.json with how they were drawn, what they count and the SHA-256 of each file.
"""

import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple, Protocol

_INDEX = "splits.json"
_FORMAT = 1
_FILES = {"train": "train", "validation": "valid", "test": "test"}
_HEADER = ["id", "label", "patient"]
_COLUMN = {"train": "train", "valid": "validation", "validation": "validation", "test": "test"}


class LabelledCase(Protocol):
    """What a split needs to know of a case."""

    @property
    def id(self) -> str:
        """Names the case; no two cases share one."""

    @property
    def label(self) -> int:
        """0 = benign, 1 = malignant."""

    @property
    def patient(self) -> str | None:
        """Whose case it is; None where every such case is a patient of its own."""


class MarkedCase(LabelledCase, Protocol):
    """A case whose data set says where it belongs."""

    @property
    def split(self) -> str | None:
        """ "train", "valid" or "validation", "test"; None where nothing is said."""


class Split(NamedTuple):
    """The ids of three parts that share no patient, each in the order of the data set."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Names the split: equal for equal parts, whatever their order."""
        return ids_sha256(f"{part}:{ids_sha256(ids)}" for part, ids in self._asdict().items())


def ids_sha256(ids: Iterable[str]) -> str:
    """SHA-256 of a set of ids in hexadecimal; their order does not matter."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def patients(cases: Sequence[LabelledCase]) -> tuple[int, ...]:
    """The patient of each case as a number from 1, in order of first appearance.

    Numbers stand in for the identifiers wherever something is written.
    """
    numbers: dict[tuple[str, str], int] = {}
    return tuple(numbers.setdefault(patient_key(case), len(numbers) + 1) for case in cases)


def split_of_column(cases: Sequence[MarkedCase]) -> Split:
    """The split that the data set's own split column makes; a part may be empty.

    Raises:
        ValueError: a case says nothing or something else than train, valid, validation or test, an
            id occurs twice, or a patient is in two parts.
    """
    silent = sum(case.split is None for case in cases)
    if silent:
        raise ValueError(
            f"{silent} of {len(cases)} cases have no entry in the split column: fill it with "
            "train, valid or test, or draw splits by `asycmst split`"
        )
    ids: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for case in cases:
        part = _COLUMN.get(str(case.split))
        if part is None:
            raise ValueError(
                f"case {case.id} has split {case.split!r}: allowed are {', '.join(_COLUMN)}"
            )
        ids[part].append(case.id)
    split = Split(**{part: tuple(found) for part, found in ids.items()})
    check_split(split, cases, "the split column")
    return split


def check_split(split: Split, cases: Sequence[LabelledCase], name: str) -> None:
    """Refuse a split that shares a case or a patient between parts, or names unknown cases.

    Args:
        split: what to check.
        cases: the data set.
        name: what to call the split in the error.

    Raises:
        ValueError: saying which two parts share how many patients, without naming them.
    """
    check_ids([case.id for case in cases])
    number = dict(zip((case.id for case in cases), patients(cases), strict=True))
    unknown = [id_ for part in split for id_ in part if id_ not in number]
    if unknown:
        raise ValueError(
            f"{name} names {len(unknown)} cases that the data set lacks, such as {unknown[0]}: "
            "the split was made for other data, draw it again by `asycmst split`"
        )
    _check_leakage(
        {part: [(i, str(number[i])) for i in ids] for part, ids in split._asdict().items()}, name
    )


def count(ids: Iterable[str], cases: Sequence[LabelledCase]) -> dict[str, int]:
    """Cases, patients and classes among some ids of a data set."""
    wanted = set(ids)
    rows = [
        (case.label, number)
        for case, number in zip(cases, patients(cases), strict=True)
        if case.id in wanted
    ]
    return {
        "cases": len(rows),
        "patients": len({number for _, number in rows}),
        "benign": sum(label == 0 for label, _ in rows),
        "malignant": sum(label == 1 for label, _ in rows),
    }


def patient_key(case: LabelledCase) -> tuple[str, str]:
    """What cases of one patient share; a case without patient is a patient of its own."""
    return ("case", case.id) if case.patient is None else ("patient", case.patient)


def check_ids(ids: Iterable[str]) -> None:
    """Refuse an id that occurs twice.

    Raises:
        ValueError: naming the first such id.
    """
    seen: set[str] = set()
    for id_ in ids:
        if id_ in seen:
            raise ValueError(f"case {id_} occurs twice: give every case an id of its own")
        seen.add(id_)


def write_splits(
    folder: str | os.PathLike[str],
    splits: Sequence[Split],
    cases: Sequence[LabelledCase],
    protocol: Mapping[str, str | int | bool],
) -> None:
    """Write splits to a new folder, which appears whole or not at all.

    Args:
        folder: made here, with its parents; an empty one is filled.
        splits: written as split 1, 2 and so on.
        cases: the data set.
        protocol: how the splits were drawn; kept in splits.json.

    Raises:
        ValueError: `folder` is a file or holds something, or a split leaks or does not fit
            `cases`.
    """
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(
            f"{target} exists and is not an empty folder: give --out a new folder, so that runs "
            "which refer to earlier splits keep them"
        )
    label = {case.id: case.label for case in cases}
    number = dict(zip((case.id for case in cases), patients(cases), strict=True))
    texts, counts = {}, []
    for k, split in enumerate(splits, 1):
        check_split(split, cases, f"split {k}")
        parts = split._asdict()
        counts.append({part: count(ids, cases) for part, ids in parts.items()})
        for part, ids in parts.items():
            text = io.StringIO()
            rows = csv.writer(text, lineterminator="\n")
            rows.writerow(_HEADER)
            rows.writerows((id_, label[id_], number[id_]) for id_ in ids)
            texts[_file(part, k)] = text.getvalue().encode()
    index = {
        "format": _FORMAT,
        **protocol,
        "splits": [
            {"number": k, "sha256": split.sha256, **parts}
            for k, (split, parts) in enumerate(zip(splits, counts, strict=True), 1)
        ],
        "files_sha256": {name: _sha256(text) for name, text in texts.items()},
    }
    texts[_INDEX] = (json.dumps(index, indent=1) + "\n").encode()
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".{target.name}.{os.getpid()}.part")
    staging.mkdir()
    try:
        for name, content in texts.items():
            (staging / name).write_bytes(content)
        if target.exists():
            target.rmdir()
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def number_of_splits(folder: str | os.PathLike[str]) -> int:
    """How many splits a folder of :func:`write_splits` holds.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_split`.
    """
    return len(_index(Path(folder))["splits"])


def read_split(folder: str | os.PathLike[str], number: int) -> Split:
    """Read a split of :func:`write_splits`.

    Args:
        folder: with splits.json.
        number: of the split, from 1.

    Raises:
        FileNotFoundError: the folder holds no splits.json, or lacks a file of the split.
        ValueError: there is no split of that number, a file was changed after it was written, or a
            patient is in two parts.
    """
    source = Path(folder)
    index = _index(source)
    if not 1 <= number <= len(index["splits"]):
        raise ValueError(f"fold {number}: {source} holds the splits 1 to {len(index['splits'])}")
    parts: dict[str, list[tuple[str, str]]] = {}
    for part in _FILES:
        name = _file(part, number)
        content = (source / name).read_bytes()
        if _sha256(content) != index["files_sha256"].get(name):
            raise ValueError(
                f"{source / name} was changed after it was written, its SHA-256 is not that in "
                f"{_INDEX}: restore it, or draw new splits by `asycmst split`"
            )
        _, *rows = csv.reader(io.StringIO(content.decode()))
        parts[part] = [(id_, patient) for id_, _, patient in rows]
    _check_leakage(parts, f"split {number} of {source}")
    return Split(**{part: tuple(id_ for id_, _ in rows) for part, rows in parts.items()})


def _check_leakage(parts: Mapping[str, Sequence[tuple[str, str]]], name: str) -> None:
    """Per part the cases as (id, patient)."""
    check_ids(id_ for members in parts.values() for id_, _ in members)
    found = {part: {patient for _, patient in members} for part, members in parts.items()}
    for first, second in combinations(found, 2):
        shared = len(found[first] & found[second])
        if shared:
            raise ValueError(
                f"{name} leaks: {shared} patient(s) are in both its {first} and its {second} "
                "part; keep all cases of a patient in one part"
            )


def _file(part: str, number: int) -> str:
    return f"{_FILES[part]}_{number}.csv"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _index(folder: Path) -> dict[str, Any]:
    file = folder / _INDEX
    if not file.is_file():
        raise FileNotFoundError(f"no {_INDEX} in {folder}; give a folder of `asycmst split`")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise ValueError(f"it has format {content['format']!r}, this version reads {_FORMAT}")
        _ = len(content["splits"]), content["files_sha256"].keys()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file} is damaged or of another version: draw new splits by `asycmst split`"
        ) from error
    return dict(content)
