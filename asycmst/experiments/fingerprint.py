"""Own data by their content, so that a run on them is found wherever their folders lie."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Literal

from asycmst.data.cache import Cache, read_cache
from asycmst.data.splits import check_split, read_split

Part = Literal["train", "validation", "test"]


def part_sha256(cache: Path, splits: Path, fold: int, part: Part) -> str:
    """Names the cases of a part of a split: equal for equal cases, whatever their order.

    A case is its id, label and patient, and the entry of the cache, which is another one for
    clips that were prepared otherwise or from changed files. Cases that the part does not name
    take no part.

    Args:
        cache: folder of `asycmst prepare`.
        splits: folder of `asycmst split`.
        fold: which of these splits, from 1.
        part: of the split.

    Raises:
        OSError, ValueError: the cache or its splits are missing, damaged or do not fit.
    """
    return _parts(cache, splits, fold, _state(cache), _state(splits))[part]


def _state(folder: Path) -> tuple[int, int]:
    """Changes with what is in a folder: both kinds get their files by renaming."""
    found = folder.stat()
    return found.st_mtime_ns, found.st_ino


@lru_cache(maxsize=64)
def _parts(cache: Path, splits: Path, fold: int, *_: tuple[int, int]) -> dict[str, str]:
    found = read_cache(cache)
    split = read_split(splits, fold)
    check_split(split, found.cases, f"fold {fold} of {splits}")
    return {part: _digest(found, set(ids)) for part, ids in split._asdict().items()}


def _digest(cache: Cache, ids: set[str]) -> str:
    chosen = [both for both in zip(cache.cases, cache.entries, strict=True) if both[0].id in ids]
    owners: dict[str, int] = {}  # a patient's number in the cache depends on the other cases
    rows = [
        (case.id, case.label, owners.setdefault(case.patient, len(owners)), entry.name)
        for case, entry in sorted(chosen)
    ]
    return hashlib.sha256(json.dumps([cache.settings, rows]).encode()).hexdigest()
