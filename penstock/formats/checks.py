"""Checks that several formats share: what a type cannot say of one value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from penstock.formats.sources import Source, inside, show

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@-]{0,127}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


def check_at_least(source: Source, place: str, value: object, /, **least: int) -> None:
    """Check that the named fields of `value` reach the given numbers.

    Raises:
        InvalidInput: the first one that does not.
    """
    for name, minimum in least.items():
        number = getattr(value, name)
        if number < minimum:
            raise source.invalid(inside(place, name), f"at least {minimum}", show(number))


def check_each_at_least(source: Source, place: str, numbers: Iterable[int], minimum: int) -> None:
    """Check that every number of a list reaches `minimum`.

    Raises:
        InvalidInput: the first one that does not.
    """
    for index, number in enumerate(numbers):
        if number < minimum:
            raise source.invalid(inside(place, index), f"at least {minimum}", show(number))


def check_positive(source: Source, place: str, value: object, *names: str) -> None:
    """Check that the named fields of `value` are more than 0.

    Raises:
        InvalidInput: the first one that is not.
    """
    for name in names:
        number = getattr(value, name)
        if number <= 0:
            raise source.invalid(inside(place, name), "more than 0", show(number))


def check_length(
    source: Source, place: str, values: Sequence[object], length: int, reason: str
) -> None:
    """Check how many values a list has.

    Raises:
        InvalidInput: it has more or fewer; `reason` says what there is one of for each.
    """
    if len(values) != length:
        raise source.invalid(place, f"{length} values, {reason}", str(len(values)))


def check_any(source: Source, place: str, values: Sequence[object]) -> None:
    """Check that a list is not empty.

    Raises:
        InvalidInput: it is.
    """
    if not values:
        raise source.invalid(place, "at least one", "an empty list")


def check_unique(source: Source, names: Iterable[tuple[str, str]]) -> None:
    """Check that no name comes twice.

    Args:
        names: pairs of place and name.

    Raises:
        InvalidInput: a name was there before.
    """
    first: dict[str, str] = {}
    for place, name in names:
        if name in first:
            expected = f"another name than that of {first[name]}"
            raise source.invalid(place, expected, show(name))
        first[name] = place


def check_name(source: Source, place: str, name: str) -> None:
    """Check that text can be a directory and a label: no spaces, no slashes.

    Raises:
        InvalidInput: it cannot.
    """
    if not _NAME.match(name):
        expected = "a name of letters, digits and . _ + @ -, starting with a letter or digit"
        raise source.invalid(place, expected, show(name))


def check_text(source: Source, place: str, text: str) -> None:
    """Check that text is neither empty nor holds control characters.

    Raises:
        InvalidInput: it is or does.
    """
    if not text or not text.isprintable():
        raise source.invalid(place, "text on one line", show(text))


def check_sha256(source: Source, place: str, text: str) -> None:
    """Check that text is a SHA-256 in lower-case hex.

    Raises:
        InvalidInput: it is not.
    """
    if not _SHA256.match(text):
        raise source.invalid(place, "a SHA-256 of 64 hex digits", show(text))
