"""Cells on disk: read again by the same run only, whole lines only."""

from __future__ import annotations

from pathlib import Path

from profiler.journal import Journal, Measured

CELL = Measured(mean_us=5, p99_us=6, samples=7)
EAGER = Measured(mean_us=5, p99_us=6, samples=7, remark="not compiled: no, and\nno again")


def test_a_journal_of_something_else_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "cells"
    Journal(path, "# one").add((0, 1), CELL)
    assert Journal(path, "# one").rows == {(0, 1): CELL}
    assert Journal(path, "# two").rows == {}
    assert path.read_text() == "# two\n"


def test_how_a_cell_was_computed_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "cells"
    compiled = Measured(mean_us=5, p99_us=6, samples=7, compiled=True)
    journal = Journal(path, "# one")
    journal.add((0, 1), compiled)
    journal.add((1, 1), EAGER)
    found = Journal(path, "# one").rows
    assert found[0, 1] == compiled
    assert not found[1, 1].compiled
    assert found[1, 1].remark == "not compiled: no, and no again"


def test_a_line_cut_short_by_a_crash_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "cells"
    path.write_text("# one\n0,1,5,6,7,eager,\n0,2,5,6,70,eag")
    assert Journal(path, "# one").rows == {(0, 1): CELL}
    assert path.read_text() == "# one\n0,1,5,6,7,eager,\n"
