"""What a run has measured so far, on disk: one that was stopped goes on from there.

Knows cells and lines. Knows nothing of how a cell is measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from penstock.domain.units import Micros
from profiler.files import write_atomically

Cell: TypeAlias = tuple[int, int]  # block, batch

_COLUMNS = 7
_COMPILED, _EAGER = "inductor", "eager"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What is known of one cell.

    Attributes:
        samples: timed calls.
        compiled: whether it ran compiled.
        remark: why it was not computed as asked; empty if it was.
    """

    mean_us: Micros
    p99_us: Micros
    samples: int
    compiled: bool = False
    remark: str = ""


class Journal:
    """Cells measured so far, on disk as soon as they are known.

    Args:
        path: of the file; an earlier one is read if its first line is the same identity.
        identity: one line that says what the cells are of.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        self.rows: dict[Cell, Measured] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        if lines and lines[0] == identity:
            self.rows = dict(_cells(lines[1:]))
        # Written anew, so that a line that a crash cut short is gone.
        write_atomically(path, f"{identity}\n".encode())
        for cell, measured in self.rows.items():
            self._append(cell, measured)

    def add(self, cell: Cell, measured: Measured) -> None:
        """Keep a cell."""
        self.rows[cell] = measured
        self._append(cell, measured)

    def remove(self) -> None:
        """Delete the file: the profile is written."""
        self.path.unlink()

    def _append(self, cell: Cell, measured: Measured) -> None:
        numbers = *cell, measured.mean_us, measured.p99_us, measured.samples
        word = _COMPILED if measured.compiled else _EAGER
        line = ",".join((*map(str, numbers), word, " ".join(measured.remark.split())))
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def _cells(lines: Sequence[str]) -> Iterator[tuple[Cell, Measured]]:
    for line in lines:
        columns = line.split(",", _COLUMNS - 1)
        if len(columns) < _COLUMNS or not all(each.isdecimal() for each in columns[:-2]):
            continue
        *numbers, word, remark = columns
        block, batch, mean_us, p99_us, samples = map(int, numbers)
        yield (
            (block, batch),
            Measured(
                mean_us=mean_us,
                p99_us=p99_us,
                samples=samples,
                compiled=word == _COMPILED,
                remark=remark,
            ),
        )
