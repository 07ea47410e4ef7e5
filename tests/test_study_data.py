"""A study's data as the commands are given them."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from asycmst.commands.study_data import open_cache, read_cases


@pytest.fixture(autouse=True)
def _rooms(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_cache(folder: Path) -> Any:
        if not (folder / "cache.json").exists():
            raise FileNotFoundError(f"no cache at {folder}")
        return SimpleNamespace(cases=("cached",))

    for name, content in (
        ("cache", {"read_cache": read_cache}),
        ("manifest", {"read_manifest": lambda path: (f"listed in {path.name}",)}),
        ("cached", {"CachedDataset": lambda folder, ids: (folder, ids)}),
    ):
        module = ModuleType(f"asycmst.data.{name}")
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, module.__name__, module)


def test_a_cache_is_told_from_a_manifest_and_from_a_folder_of_data(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("id")
    (tmp_path / "released").mkdir()
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "cache.json").write_text("{}")
    assert read_cases(tmp_path / "data.csv") == ("listed in data.csv",)
    assert read_cases(tmp_path / "released") == ("listed in released",)
    assert read_cases(tmp_path / "cache") == ("cached",)
    cases, open_cases = open_cache(tmp_path / "cache")
    assert cases == ("cached",) and open_cases(["b", "a"]) == (tmp_path / "cache", ["b", "a"])
    with pytest.raises(FileNotFoundError, match="no cache at"):
        open_cache(tmp_path / "released")
