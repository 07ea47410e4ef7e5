"""A folder of decoded, sampled and resized clips, from which training reads.

    cache.json   what all entries share: frames, size, sampling
    index.json   the cases, in the manifest's order; written last, so its presence means finished
    cases/       an entry per case, see `asycmst.data.cache_entry`

Everything is plain JSON and uint8 arrays; nothing is unpickled. Patients are numbered by their
first appearance in the manifest, so that no identifier is in the cache, not even as a digest that
could be guessed; of a patient it knows age and sex at most.
"""

import errno
import json
import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import filelock  # comes with torch

from asycmst.data.cache_entry import (
    PART,
    CacheSettings,
    Facts,
    entry_name,
    entry_prefix,
    make_entry,
    read_facts,
    write_entry,
)
from asycmst.data.manifest import Case, Problem, Sex, Split
from asycmst.data.pairs import Sampling
from asycmst.data.privacy import without_names
from asycmst.data.sampling import FrameSize
from asycmst.files import write_text
from asycmst.jobs import run_jobs

_SETTINGS, _INDEX, _CASES, _LOCK = "cache.json", "index.json", "cases", ".lock"
_FORMAT = 1
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class CachedCase(NamedTuple):
    """A case of a cache.

    Attributes:
        id: as in the manifest.
        label: 1 malignant, 0 benign.
        patient: the same string for all cases of a patient; a number, never an identifier.
        split: as in the manifest, None where it does not say.
        age: of the patient in whole years, None where the manifest does not say.
        sex: of the patient, None where the manifest does not say.
    """

    id: str
    label: int
    patient: str
    split: Split | None
    age: int | None = None
    sex: Sex | None = None


class Cache(NamedTuple):
    """What a finished cache holds.

    Attributes:
        folder: where it is.
        cases: in the manifest's order.
        settings: frames, size and sampling.
        entries: the folder of each case, beside `cases`.
        facts: what is known of each case's clips, beside `cases`.
    """

    folder: Path
    cases: tuple[CachedCase, ...]
    settings: CacheSettings
    entries: tuple[Path, ...]
    facts: tuple[Facts, ...]

    @property
    def frames(self) -> int:
        """T, the frames of every clip."""
        return self.settings.frames

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) of every frame in pixels."""
        return self.settings.size


class Step(NamedTuple):
    """Another case was dealt with: how many are, of how many, and what was wrong with it."""

    done: int
    total: int
    problem: Problem | None


class Prepared(NamedTuple):
    """What `prepare` did.

    Attributes:
        made: cases that were read and written.
        kept: cases that were there already.
        problems: the cases that could not be read (errors), and notes on others.
        bytes: size of the cache's arrays.
    """

    made: int
    kept: int
    problems: tuple[Problem, ...]
    bytes: int


def prepare(
    cases: Sequence[Case],
    folder: str | os.PathLike[str],
    *,
    frames: int,
    size: FrameSize,
    sampling: Sampling = "time",
    workers: int = 1,
    report: Callable[[Step | str], None] = lambda step: None,
) -> Prepared:
    """Fill a cache with cases; what an earlier or interrupted call left is used.

    A case is read again when the size or the time of change of one of its sources differs. Each
    case appears whole or not at all. A case that cannot be read is reported and left out, the
    others go on. Two calls on one folder take turns.

    Args:
        cases: as `asycmst.data.manifest.read_manifest` returns them, ids unique.
        folder: made when missing; else a cache of the same settings.
        frames: T of every clip.
        size: side of every frame in pixels, or (height, width).
        sampling: as for `asycmst.data.pairs.load_pair`.
        workers: processes that read side by side; 1 reads in this one.
        report: called after every case, and with one line before a longer wait.

    Raises:
        ValueError: the folder holds something else or a cache of other settings; no case.
        ImportError: a library that reads one of the kinds of clip is missing.
        OSError: the cache cannot be written; a full disk says how far it got.
        JobError: a worker died.
    """
    if not cases:
        raise ValueError("there is no case to prepare")
    height, width = (size, size) if isinstance(size, int) else size
    if min(frames, height, width, workers) < 1:
        raise ValueError(
            f"frames={frames}, size={size}, workers={workers}: all must be at least 1"
        )
    settings = CacheSettings(frames, (height, width), sampling)
    cache = Path(folder)
    _claim(cache, settings)
    lock = filelock.FileLock(cache / _LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        report("another process prepares this cache: waiting for it")
        lock.acquire()
    try:
        return _Filling(cache, settings, cases, report).run(workers)
    finally:
        lock.release()


class _Outcome(NamedTuple):
    """What became of one case in a worker: all None means written."""

    broken: str | None = None
    missing_library: str | None = None
    unwritten: OSError | None = None


class _Filling:
    def __init__(
        self,
        folder: Path,
        settings: CacheSettings,
        cases: Sequence[Case],
        report: Callable[[Step | str], None],
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.cases = cases
        self.report = report
        self.problems: dict[str, Problem] = {}
        self.done = 0

    def run(self, workers: int) -> Prepared:
        store = self.folder / _CASES
        store.mkdir(exist_ok=True)
        names: dict[str, str] = {}
        pending = []
        for case in self.cases:
            try:
                name = entry_name(case)
            except OSError as error:
                self._step(case, _Outcome(broken=without_names(error, case)))
                continue
            names[case.id] = name
            if read_facts(store / name) is None:
                pending.append((case, name))
            else:
                self._step(case, _Outcome())
        kept = self.done - len(self.problems)
        work = partial(_fill, store, self.settings)
        try:
            self._fill_all(work, pending, workers)
        finally:
            self._sweep(store)
        return self._finish(store, names, kept)

    def _fill_all(self, work: Any, pending: list[tuple[Case, str]], workers: int) -> None:
        if workers == 1 or len(pending) < 2:
            for job in pending:
                self._step(job[0], work(job))
            return
        run_jobs(
            _Silently(work),
            pending,
            processes=workers,
            threads=1,
            on_message=lambda *_: None,
            on_result=lambda index, outcome: self._step(pending[index][0], outcome),
        )

    def _step(self, case: Case, outcome: _Outcome) -> None:
        if outcome.missing_library is not None:
            raise ImportError(outcome.missing_library)
        if outcome.unwritten is not None:
            raise self._explain(outcome.unwritten)
        if outcome.broken is not None:
            self.problems[case.id] = Problem(case.id, outcome.broken)
        self.done += 1
        self.report(Step(self.done, len(self.cases), self.problems.get(case.id)))

    def _explain(self, error: OSError) -> OSError:
        if error.errno not in _NO_SPACE:
            return error
        return OSError(
            f"no space left for {self.folder}: {self.done} of {len(self.cases)} cases are done "
            "and kept; make room and run the same command again"
        )

    def _finish(self, store: Path, names: dict[str, str], kept: int) -> Prepared:
        numbers: dict[str, int] = {}
        rows, problems, size = [], [], 0
        for case in self.cases:
            patient = f"case {case.id}" if case.patient is None else f"patient {case.patient}"
            number = numbers.setdefault(patient, len(numbers) + 1)
            facts = read_facts(store / names[case.id]) if case.id in names else None
            if facts is None:
                problems.append(self.problems[case.id])
                continue
            problems.extend(Problem(case.id, note, error=False) for note in facts["notes"])
            size += sum(file.stat().st_size for file in (store / names[case.id]).iterdir())
            row = CachedCase(case.id, case.label, f"p{number:05d}", case.split, case.age, case.sex)
            rows.append({**row._asdict(), "entry": names[case.id], "facts": facts})
        try:
            write_text(self.folder / _INDEX, json.dumps({"cases": rows}, allow_nan=False))
        except OSError as error:
            raise self._explain(error) from error
        for case in self.cases:
            for other in store.glob(f"{entry_prefix(case.id)}*"):
                if other.name != names.get(case.id):
                    shutil.rmtree(other)
        return Prepared(len(rows) - kept, kept, tuple(problems), size)

    @staticmethod
    def _sweep(store: Path) -> None:
        """Remove what a killed process was writing."""
        for part in store.glob(f"{PART}*"):
            shutil.rmtree(part, ignore_errors=True)


class _Silently:
    """A job without messages, as `run_jobs` takes it."""

    def __init__(self, work: Callable[[Any], _Outcome]) -> None:
        self.work = work

    def __call__(self, job: Any, send: Callable[[Any], None]) -> _Outcome:
        return self.work(job)


def _fill(store: Path, settings: CacheSettings, job: tuple[Case, str]) -> _Outcome:
    case, name = job
    try:
        entry = make_entry(case, settings)
    except ImportError as error:
        return _Outcome(missing_library=str(error))
    except Exception as error:  # one odd file among thousands must not end the others' reading
        return _Outcome(broken=without_names(error, case))
    try:
        write_entry(entry, store, name)
    except OSError as error:
        return _Outcome(unwritten=error)
    return _Outcome()


def _claim(folder: Path, settings: CacheSettings) -> None:
    """Make the folder a cache of these settings, or check that it is one."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: give a folder for the cache")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / _SETTINGS).exists():
        if any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise ValueError(f"{folder} holds files that are no cache: give a new folder")
        content = {"format": _FORMAT, **settings._asdict()}
        write_text(folder / _SETTINGS, json.dumps(content, indent=2) + "\n")
    found = _read_settings(folder)
    if found != settings:
        raise ValueError(
            f"the cache {folder} was made with {_describe(found)}, not with "
            f"{_describe(settings)}: give another folder, or the same settings"
        )


def _read_settings(folder: Path) -> CacheSettings:
    try:
        content = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise ValueError
        height, width = content["size"]
        return CacheSettings(
            int(content["frames"]), (int(height), int(width)), content["sampling"]
        )
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"no cache at {folder}: make one with asycmst prepare MANIFEST --out {folder}"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder / _SETTINGS} is not of this version of asycmst: prepare a new cache"
        ) from error


def _describe(settings: CacheSettings) -> str:
    height, width = settings.size
    return f"{settings.frames} frames of {width} x {height}, sampled by {settings.sampling!r}"


def read_cache(folder: str | os.PathLike[str]) -> Cache:
    """Look at a finished cache; the clips stay on the disk.

    Raises:
        FileNotFoundError: there is no cache.
        ValueError: it is not finished, or damaged, or of another version.
    """
    cache = Path(folder)
    settings = _read_settings(cache)
    try:
        rows = json.loads((cache / _INDEX).read_text(encoding="utf-8"))["cases"]
        cases = tuple(
            CachedCase(**{name: row[name] for name in CachedCase._fields if name in row})
            for row in rows
        )
        entries = tuple(cache / _CASES / row["entry"] for row in rows)
        facts = tuple(cast(Facts, row["facts"]) for row in rows)
    except FileNotFoundError as error:
        raise ValueError(
            f"the cache {cache} is not finished: run the same asycmst prepare again, it goes on "
            "where it stopped"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{cache / _INDEX} is damaged: run the same asycmst prepare again"
        ) from error
    return Cache(cache, cases, settings, entries, facts)
