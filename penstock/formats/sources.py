"""Where text came from, and the one line that says what is wrong in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstock.domain.errors import InvalidInput

_LONGEST = 60


@dataclass(frozen=True, slots=True)
class Source:
    """A file being read.

    Attributes:
        name: how the user knows the file, such as its path.
        error: what to raise when its content is wrong.
    """

    name: str
    error: type[InvalidInput]

    def invalid(self, place: str, expected: str, found: str) -> InvalidInput:
        """Return the error for `place` in this file; the caller raises it."""
        return self.error(self.name, place, expected, found)


def inside(place: str, *parts: str | int) -> str:
    """Return the place one or more steps further in, such as ``models[0].slo_ms``."""
    for part in parts:
        if isinstance(part, int):
            place = f"{place}[{part}]"
        else:
            name = part if part.isidentifier() else show(part)
            place = f"{place}.{name}" if place else name
    return place


def show(value: object) -> str:
    """Say in a few words what was found; never a line break."""
    match value:
        case None | bool():
            words = {None: "null", True: "true", False: "false"}[value]
        case Mapping():
            words = "an object" if value else "an empty object"
        case str():
            words = _quoted(value)
        case Sequence():
            words = f"a list of {len(value)}" if value else "an empty list"
        case int() if value.bit_length() > _LONGEST * 3:
            words = f"an integer of {value.bit_length()} bits"
        case _:
            words = repr(value)
    return words


def _quoted(text: str) -> str:
    return repr(text) if len(text) <= _LONGEST else f"{text[:_LONGEST]!r}… ({len(text)} characters)"
