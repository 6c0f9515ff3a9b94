"""Plain data: what every text format has in common, without knowing any format's fields.

Plain data is null, booleans, integers of 64 bits, finite numbers, text, lists and objects with
text keys. Values become plain data field by field; a share becomes ``"1/2"``, an enum its value.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from fractions import Fraction

from penstock.formats.sources import Source, inside, show

SHARE_PATTERN = "^1/[1-9][0-9]{0,3}$"
MOST_LEVELS = 40
A_SHARE = 'a share of one GPU such as "1/1" or "1/2"'

_INT64 = range(-(1 << 63), 1 << 63)


def digest(content: str | bytes) -> str:
    """Return the SHA-256 of a file's content as hex; text counts as UTF-8."""
    raw = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(raw).hexdigest()


def plain(value: object) -> object:
    """Return a domain value as plain data."""
    match value:
        case Enum():
            return value.value
        case str() | int() | float() | None:
            return value
        case tuple() | list():
            return [plain(each) for each in value]
        case dict():
            return {key: plain(each) for key, each in value.items()}
        case Fraction():
            return write_share(value)
        case _:
            return plain_fields(value)


def plain_fields(value: object) -> dict[str, object]:
    """Return the fields of a dataclass as plain data, by name."""
    if not is_dataclass(value) or isinstance(value, type):
        raise TypeError(f"{type(value).__name__} has no plain form")
    return {field.name: plain(getattr(value, field.name)) for field in fields(value)}


def canonical_json(value: object) -> str:
    """Write plain data so that equal values give equal bytes.

    Raises:
        ValueError: a number in it is infinite or not a number.
    """
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return text + "\n"


def json_line(value: object) -> str:
    """Write plain data as one line of JSON, in the order of its fields.

    Raises:
        ValueError: a number in it is infinite or not a number.
    """
    return json.dumps(value, separators=(",", ":"), allow_nan=False) + "\n"


def write_share(share: Fraction) -> str:
    """Return a share as files spell it: ``1/2``, and ``1/1`` for a whole GPU."""
    return f"{share.numerator}/{share.denominator}"


def is_share(text: object) -> bool:
    """Say whether text spells a share: one m-th of a GPU, in exactly one way."""
    return isinstance(text, str) and re.fullmatch(SHARE_PATTERN, text) is not None


def parse_json(text: str, source: Source) -> object:
    """Read JSON into plain data.

    Raises:
        InvalidInput: it is not JSON, repeats a key, or holds what plain data may not.
    """
    text = text.removeprefix("\ufeff")
    try:
        value = json.loads(text, object_pairs_hook=_mapping)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        rest = text[error.pos :].splitlines()
        found = show(rest[0][:20]) if rest else "the end of the text"
        raise source.invalid(place, "JSON", f"{found} ({error.msg})") from None
    except RecursionError:
        raise _too_deep(source) from None
    except ValueError:
        raise source.invalid("", "integers of at most 64 bits", "a far longer one") from None
    check_plain(value, source)
    return value


@dataclass(frozen=True, slots=True)
class RepeatedKey:
    """Stands where an object was that has a key twice, until `check_plain` finds it."""

    key: object


def _mapping(pairs: list[tuple[str, object]]) -> object:
    mapping = dict(pairs)
    if len(mapping) == len(pairs):
        return mapping
    keys = [key for key, _ in pairs]
    return RepeatedKey(next(key for key in mapping if keys.count(key) > 1))


def check_plain(value: object, source: Source, place: str = "", depth: int = 0) -> None:
    """Refuse what plain data may not hold, before anything is built from it.

    Raises:
        InvalidInput: a repeated key, a key that is not text, a number beyond 64 bits or not
            finite, text that is not Unicode, a share not spelled ``1/m``, nesting too deep.
    """
    if depth > MOST_LEVELS:
        raise _too_deep(source)
    match value:
        case None | bool():
            pass
        case str():
            _check_text(value, source, place)
        case int() | float():
            _check_number(value, source, place)
        case list():
            for index, each in enumerate(value):
                check_plain(each, source, inside(place, index), depth + 1)
        case dict():
            _check_mapping(value, source, place, depth)
        case RepeatedKey(key=key):
            raise source.invalid(place, "every key once", f"{show(key)} twice")
        case _:
            raise source.invalid(place, "plain data", f"a {type(value).__name__}")


def _check_mapping(value: Mapping[object, object], source: Source, place: str, depth: int) -> None:
    for key, each in value.items():
        if not isinstance(key, str):
            raise source.invalid(place, "text as keys", show(key))
        within = inside(place, key)
        if key == "share" and not is_share(each):
            raise source.invalid(within, A_SHARE, show(each))
        check_plain(each, source, within, depth + 1)


def _check_text(value: str, source: Source, place: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise source.invalid(place, "Unicode text", show(value)) from None


def _check_number(value: float, source: Source, place: str) -> None:
    if isinstance(value, int):
        if value not in _INT64:
            raise source.invalid(place, "an integer of at most 64 bits", show(value))
    elif not math.isfinite(value):
        raise source.invalid(place, "a finite number", show(value))


def _too_deep(source: Source) -> Exception:
    return source.invalid("", f"at most {MOST_LEVELS} levels of nesting", "more")
