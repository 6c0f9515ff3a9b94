"""CSV tables with a header row. Knows no format's columns."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from penstock.formats.sources import Source, show

_INTEGER = re.compile(r"[0-9]{1,19}", re.ASCII)
_LARGEST = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Row:
    """One row, with where it stands.

    Attributes:
        line: counted from 1, the header's.
        cells: text by column name.
    """

    source: Source
    line: int
    cells: dict[str, str]

    def place(self, column: str) -> str:
        """Return how errors name a cell of this row."""
        return f"line {self.line}, {column}"

    def integer(self, column: str, minimum: int = 0) -> int:
        """Return a cell as an integer.

        Raises:
            InvalidInput: it is not one, or less than `minimum`.
        """
        text = self.cells[column]
        if not _INTEGER.fullmatch(text) or not minimum <= int(text) <= _LARGEST:
            expected = f"an integer of at least {minimum}, at most 64 bits"
            raise self.source.invalid(self.place(column), expected, show(text))
        return int(text)


def read_rows(text: str, source: Source, *headers: Sequence[str]) -> Iterator[Row]:
    """Read a table row by row; blank lines are passed over.

    Args:
        headers: the headers allowed, each a list of column names.

    Raises:
        InvalidInput: the header is none of those, or a row has more or fewer cells than it.
    """
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    try:
        header = next(reader, [])
        if header not in [list(each) for each in headers]:
            expected = " or ".join(repr(",".join(each)) for each in headers)
            raise source.invalid("line 1", f"the header {expected}", show(",".join(header)))
        for cells in reader:
            if len(cells) == len(header):
                yield Row(source, reader.line_num, dict(zip(header, cells, strict=True)))
            elif cells:
                place = f"line {reader.line_num}"
                raise source.invalid(place, f"{len(header)} cells", str(len(cells)))
    except csv.Error as error:
        raise source.invalid(f"line {reader.line_num}", "CSV", str(error)) from None


def write_rows(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a table with a header row; lines end in a newline alone."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
