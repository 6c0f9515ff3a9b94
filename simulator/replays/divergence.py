"""A divergence taken apart: which effects belong together, and which fields of them differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import NamedTuple

from penstock.formats.runlog import LogEntry, tagged
from penstock.formats.sources import inside
from penstock.scheduling.effects import Effect


class Pair(NamedTuple):
    """Two effects that stand for each other; one may be missing.

    Attributes:
        place: where, in the log, or in the other where only that has it.
    """

    place: str
    expected: Effect | None
    found: Effect | None


class Difference(NamedTuple):
    """One value that differs, as plain data; None where it is missing."""

    place: str
    expected: object
    found: object


def paired(expected: Sequence[Effect], found: Sequence[Effect]) -> Iterator[Pair]:
    """Lay two lists of effects side by side, so that an effect too many shifts no others."""
    matcher = SequenceMatcher(None, expected, found, autojunk=False)
    for _, first, end, other_first, other_end in matcher.get_opcodes():
        places = zip_longest(range(first, end), range(other_first, other_end))
        for mine, other in places:
            yield Pair(
                inside("effects", other if mine is None else mine),
                None if mine is None else expected[mine],
                None if other is None else found[other],
            )


def differences(expected: LogEntry | None, found: LogEntry | None) -> list[Difference]:
    """Return every value that differs, and where; an entry or effect too many is one."""
    if expected is None or found is None:
        return [Difference("", _plain(expected), _plain(found))]
    differ = list(_differ("now_us", expected.now_us, found.now_us))
    differ += _differ("event", tagged(expected.event), tagged(found.event))
    for each in paired(expected.effects, found.effects):
        differ += _differ(each.place, _effect(each.expected), _effect(each.found))
    return differ


def _plain(entry: LogEntry | None) -> object:
    return None if entry is None else plain_entry(entry)


def plain_entry(entry: LogEntry) -> dict[str, object]:
    """Return an entry as the log has it."""
    effects = [tagged(each) for each in entry.effects]
    return {"now_us": entry.now_us, "event": tagged(entry.event), "effects": effects}


def _effect(effect: Effect | None) -> object:
    return None if effect is None else tagged(effect)


def _differ(place: str, expected: object, found: object) -> Iterator[Difference]:
    if expected == found:
        return
    match expected, found:
        case dict(), dict() if expected.get("kind") == found.get("kind"):
            for key in expected:
                yield from _differ(inside(place, key), expected[key], found[key])
        case list(), list():
            for index, (one, other) in enumerate(zip_longest(expected, found)):
                yield from _differ(inside(place, index), one, other)
        case _:
            yield Difference(place, expected, found)
