"""What a person asks of a sweep, in words: loads, names of plans, lists without repetition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

from penstock.domain.errors import InvalidSettings

LEAST_LOAD, MOST_LOAD = Decimal("0.001"), Decimal(1_000)
MOST_LOADS = 1_000

_OPTION = "--loads"
_SHAPE = "FROM:TO:STEP or numbers between commas, such as 0.5:1.2:0.1 or 0.8,0.9,1"


def loads_of(text: str) -> tuple[float, ...]:
    """Return the loads that a text such as ``0.5:1.2:0.1`` or ``0.8,0.9`` lists, ascending.

    Both ends of a range belong to it. Steps are exact decimals: no 0.7000000000000001.

    Raises:
        InvalidSettings: it is not such a text, a number is out of range, or there are too many.
    """
    found: set[Decimal] = set()
    for part in text.split(","):
        found.update(_part(part.strip()))
    if len(found) > MOST_LOADS:
        raise InvalidSettings(_OPTION, "", f"at most {MOST_LOADS:,} loads", f"{len(found):,}")
    return tuple(float(each) for each in sorted(found))


def _part(text: str) -> list[Decimal]:
    match [_number(each, text) for each in text.split(":")]:
        case [load]:
            return [_within(load, "load")]
        case [first, last, step]:
            return _range(_within(first, "FROM"), _within(last, "TO"), _within(step, "STEP"))
        case _:
            raise InvalidSettings(_OPTION, "", _SHAPE, repr(text))


def _range(first: Decimal, last: Decimal, step: Decimal) -> list[Decimal]:
    if first > last:
        raise InvalidSettings(_OPTION, "TO", f"at least FROM, {first}", str(last))
    count = int((last - first) / step) + 1
    if count > MOST_LOADS:
        raise InvalidSettings(_OPTION, "STEP", f"at most {MOST_LOADS:,} loads", f"{count:,}")
    return [first + number * step for number in range(count)]


def _number(text: str, part: str) -> Decimal:
    try:
        return Decimal(text.strip())
    except InvalidOperation:
        raise InvalidSettings(_OPTION, "", _SHAPE, repr(part)) from None


def _within(number: Decimal, place: str) -> Decimal:
    if not number.is_finite() or not LEAST_LOAD <= number <= MOST_LOAD:
        expected = f"a number from {LEAST_LOAD} to {MOST_LOAD:,}"
        raise InvalidSettings(_OPTION, place, expected, str(number))
    return number


def names_of(paths: Sequence[Path]) -> dict[str, Path]:
    """Return plans by the names of their files, or by their paths where those are the same.

    Raises:
        InvalidSettings: one comes twice.
    """
    once("PLAN", [str(path) for path in paths])
    stems = Counter(path.stem for path in paths)
    return {path.stem if stems[path.stem] == 1 else str(path): path for path in paths}


def once(option: str, given: Sequence[str]) -> tuple[str, ...]:
    """Refuse an option that was given twice with the same value.

    Raises:
        InvalidSettings: it was.
    """
    for each, count in Counter(given).items():
        if count > 1:
            raise InvalidSettings(option, "", "each one once", f"{each} {count} times")
    return tuple(given)
