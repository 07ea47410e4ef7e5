"""What the folder of a run says about its end: the answers on test sets, or why there are none.

trained.json     the training is over; best.ckpt is its best epoch
test-KEY.csv     a test set case by case
test-KEY.json    what was tested; written last, so its presence means tested
failed.json      the training diverged, and why
failed-KEY.json  the best epoch has no answers on a test set, and why
"""

import csv
import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from asycmst.analysis.localisation import NOWHERE, Localisation
from asycmst.analysis.predict_dataset import Predictions
from asycmst.experiments.grid import HeldOut, Task
from asycmst.files import replacing, write_text

_TRAINED, _FAILED = "trained.json", "failed.json"
_COLUMNS = ["id", "patient", "label", "probability", "frame_order", *Localisation._fields]


class Answered(NamedTuple):
    """A trained model's answers on a test set.

    Attributes:
        answers: case by case.
        patients: of the cases; equal names are one patient.
        parameters: number of the model's weights.
        best_epoch: that was tested.
        seconds: of the training, without what an earlier sitting spent.
        folder: of the run.
        features: file with what the classifier saw of each case, float32 (n, D).
    """

    answers: Predictions
    patients: list[str]
    parameters: int
    best_epoch: int
    seconds: float
    folder: Path
    features: Path


class Failed(NamedTuple):
    """A run that came to no result, and why."""

    reason: str


Outcome = Answered | Failed


def is_settled(task: Task) -> bool:
    """Whether nothing is left to do for a run: it is tested on everything, or has failed.

    Raises:
        ValueError: a record is damaged.
    """
    if (task.folder / _FAILED).exists():
        return True
    return all(
        any((task.folder / name).exists() for name in (f"test-{key}.json", _failed(key)))
        for key in task.tests
    )


def outcome(folder: Path, key: str) -> Outcome | None:
    """What a run came to on a test set; None as long as it is open.

    Raises:
        ValueError: a record is damaged.
    """
    record = folder / f"test-{key}.json"
    if not record.exists():
        for file in (folder / _failed(key), folder / _FAILED):
            if file.exists():
                return Failed(_fields(file, ("reason",))["reason"])
        return None
    facts = _fields(record, ("cases_sha256", "parameters", "best_epoch", "seconds"))
    cases = record.with_suffix(".csv")
    try:
        text = cases.read_bytes()
    except FileNotFoundError:
        text = b""
    if hashlib.sha256(text).hexdigest() != facts["cases_sha256"]:
        raise ValueError(f"{cases} is missing or damaged; delete {record} to test that run again")
    answers, patients = _read_cases(text.decode())
    return Answered(
        answers,
        patients,
        facts["parameters"],
        facts["best_epoch"],
        float(facts["seconds"]),
        folder,
        record.with_suffix(".npy"),
    )


def seconds_trained(folder: Path) -> float | None:
    """Seconds that a training took; None as long as it is open.

    Raises:
        ValueError: the record is damaged.
    """
    if not (folder / _TRAINED).exists():
        return None
    return float(_fields(folder / _TRAINED, ("seconds",))["seconds"])


def record_trained(folder: Path, seconds: float) -> None:
    """Say that the training in a folder is over."""
    _write(folder / _TRAINED, {"seconds": round(seconds, 2)})


def record_failed(folder: Path, reason: str, key: str | None = None) -> None:
    """Say that the run in a folder came to nothing, or to nothing on the test set `key`."""
    _write(folder / (_FAILED if key is None else _failed(key)), {"reason": reason})


def record_tested(
    folder: Path,
    test: HeldOut,
    found: Predictions,
    patients: Sequence[str],
    *,
    parameters: int,
    best_epoch: int,
) -> None:
    """Write the answers of the run in `folder` on a test set; see `Answered`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    cases_found = found.localisation or [NOWHERE._replace(dice=value) for value in found.dice]
    columns = (found.ids, patients, found.labels, found.probabilities, found.frame_order)
    writer.writerows((*case, *place) for *case, place in zip(*columns, cases_found, strict=True))
    cases = text.getvalue()
    write_text(folder / f"test-{test.key}.csv", cases)
    with replacing(folder / f"test-{test.key}.npy") as temporary:
        np.save(temporary, np.array(found.features, np.float32))
    content = {
        "test": {"name": test.name, **test.facts()},
        "parameters": parameters,
        "best_epoch": best_epoch,
        "seconds": seconds_trained(folder),
        "cases_sha256": hashlib.sha256(cases.encode()).hexdigest(),
    }
    _write(folder / f"test-{test.key}.json", content)


def _failed(key: str) -> str:
    return f"failed-{key}.json"


def _read_cases(text: str) -> tuple[Predictions, list[str]]:
    places: list[Localisation] = []
    found, patients = Predictions([], [], [], [], [], localisation=places), []
    for row in csv.DictReader(io.StringIO(text)):
        found.ids.append(row["id"])
        found.labels.append(int(row["label"]))
        found.probabilities.append(float(row["probability"]))
        # Older records have the overlap alone.
        place = Localisation(*(float(row.get(name, "nan")) for name in Localisation._fields))
        places.append(place)
        found.dice.append(place.dice)
        found.frame_order.append(float(row["frame_order"]))
        patients.append(row["patient"])
    return found, patients


def _fields(file: Path, names: Sequence[str]) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {name: content[name] for name in names}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is damaged; delete the folder {file.parent.name} to repeat that run"
        ) from error


def _write(file: Path, content: Mapping[str, Any]) -> None:
    write_text(file, json.dumps(content, indent=1) + "\n")


def is_finite(answers: Predictions) -> bool:
    """Whether every case has an answer."""
    return all(map(math.isfinite, answers.probabilities))
