"""Output files appear whole or not at all."""

from pathlib import Path

import pytest

from asycmst.files import replacing, write_text


def test_a_failed_write_changes_nothing(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "before")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert (tmp_path / "a.txt").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_write_replaces(tmp_path: Path) -> None:
    for text in ("before", "after ü"):
        write_text(tmp_path / "a.txt", text)
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "after ü"
    with pytest.raises(FileNotFoundError, match="does not exist; create it first"):
        write_text(tmp_path / "none" / "a.txt", "x")
