"""Things under numbers that only grow, most of which are soon gone. Knows nothing of the things."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Generic, TypeVar

from penstock.domain.errors import InvariantViolation

T = TypeVar("T")

_FEW: Final = 64  # places that may be left empty in front


class Numbered(Generic[T]):
    """What is open under its number, in order of number.

    A list with gaps. With thousands of batches on their way each entry of a dict, its number and
    its place in the table of hashes are seen so seldom that no cache keeps them; here is one
    pointer in a row of pointers.
    """

    __slots__ = ("_count", "_empty", "_first", "_things")

    def __init__(self) -> None:
        self._things: list[T | None] = []
        self._first = 0  # number of the first place
        self._empty = 0  # places in front of the first that is taken
        self._count = 0

    def __len__(self) -> int:
        """Return how many there are."""
        return self._count

    def add(self, number: int, thing: T) -> None:
        """Add one under a number above all before.

        Raises:
            InvariantViolation: it is not above.
        """
        next_number = self._first + len(self._things)
        if number < next_number:
            raise InvariantViolation(f"number {number} is given after {next_number - 1}")
        while next_number < number:
            self._things.append(None)
            next_number += 1
        self._things.append(thing)
        self._count += 1

    def get(self, number: int) -> T | None:
        """Return what is under a number, or None."""
        place = number - self._first
        return self._things[place] if 0 <= place < len(self._things) else None

    def __getitem__(self, number: int) -> T:
        """Return what is under a number.

        Raises:
            KeyError: nothing is.
        """
        thing = self.get(number)
        if thing is None:
            raise KeyError(number)
        return thing

    def pop(self, number: int) -> T | None:
        """Take out what is under a number, and return it; None if nothing is."""
        thing = self.get(number)
        if thing is None:
            return None
        things = self._things
        things[number - self._first] = None
        self._count -= 1
        while self._empty < len(things) and things[self._empty] is None:
            self._empty += 1
        if self._empty > _FEW and 2 * self._empty > len(things):
            del things[: self._empty]
            self._first += self._empty
            self._empty = 0
        return thing

    def items(self) -> Iterator[tuple[int, T]]:
        """Yield numbers and things; nothing may be added or taken out meanwhile."""
        for place, thing in enumerate(self._things):
            if thing is not None:
                yield self._first + place, thing

    def values(self) -> list[T]:
        """Return the things."""
        return [thing for thing in self._things if thing is not None]
