"""The run log: what a dispatcher was told and what it answered, one JSON object per line.

The first line is a header (`penstock.formats.runlog_header`), which older logs lack. Then
``{"now_us": …, "event": {"kind": "RequestArrived", …}, "effects": [{"kind": …}, …]}``. Fed to a
fresh dispatcher, the events must give the same effects. Knows no event by name: the types in
`penstock.scheduling` are the format.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from itertools import chain
from types import MappingProxyType
from typing import Any, TypeVar, get_args

from penstock.domain.errors import InvalidTrace
from penstock.domain.units import Micros
from penstock.formats.codec import parse_json, plain
from penstock.formats.documents import type_schema, validate
from penstock.formats.runlog_header import HEADER, LogHeader, write_header
from penstock.formats.sources import Source, inside, show
from penstock.scheduling.effects import Effect
from penstock.scheduling.events import Event

T = TypeVar("T", bound=Hashable)

EVENTS: Mapping[str, type[Event]] = MappingProxyType({e.__name__: e for e in get_args(Event)})
EFFECTS: Mapping[str, type[Effect]] = MappingProxyType({e.__name__: e for e in get_args(Effect)})

_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_ATOMS = frozenset({int, str, bool, float, type(None)})


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One call of a dispatcher's `handle`."""

    now_us: Micros
    event: Event
    effects: tuple[Effect, ...]


@dataclass(frozen=True, slots=True)
class LogLine:
    """An entry and the number of its line, from 1."""

    line: int
    entry: LogEntry


@dataclass(frozen=True, slots=True)
class RunLog:
    """A log being read.

    Attributes:
        header: None if it has none.
        lines: read as they are asked for; can be gone through once.
    """

    header: LogHeader | None
    lines: Iterator[LogLine]


def write_entry(now_us: Micros, event: Event, effects: Sequence[Effect]) -> str:
    """Write one line, newline included; the arguments are those of the driver's `log`."""
    content = {
        "now_us": now_us,
        "event": tagged(event),
        "effects": [tagged(each) for each in effects],
    }
    return _ENCODER.encode(content) + "\n"


def write_run_log(entries: Iterable[LogEntry], header: LogHeader | None = None) -> str:
    """Write a whole log."""
    lines = (write_entry(each.now_us, each.event, each.effects) for each in entries)
    return "".join(chain([write_header(header)] if header else [], lines))


def read_run_log(lines: Iterable[str], source: str) -> Iterator[LogEntry]:
    """Read a log entry by entry; its header and blank lines are passed over.

    Args:
        lines: an open file will do, or ``text.splitlines()``.

    Raises:
        InvalidTrace: the first thing that is wrong, and where.
    """
    for each in open_run_log(lines, source).lines:
        yield each.entry


def open_run_log(
    lines: Iterable[str], source: str, on_torn: Callable[[int], None] | None = None
) -> RunLog:
    """Read a log's header now, and its entries as they are asked for.

    Args:
        lines: as for `read_run_log`; an open file if `on_torn` is given.
        on_torn: told the number of a last line that was cut short, as a process that is killed
            leaves it; without it, such a line is an error.

    Raises:
        InvalidTrace: the first thing that is wrong, and where; for entries, while they are read.
    """
    contents = _contents(lines, source, on_torn)
    first = next(contents, None)
    if first is None:
        return RunLog(None, iter(()))
    where, content = first
    if isinstance(content, dict) and "schema" in content:
        return RunLog(HEADER.check(content, _source(source, where)), _entries(contents, source))
    return RunLog(None, _entries(chain([first], contents), source))


def tagged(value: Event | Effect) -> dict[str, object]:
    """Return an event or effect as plain data, its kind first."""
    return {"kind": type(value).__name__, **_plain_fields(value)}


def line_schema() -> dict[str, object]:
    """Return the JSON Schema of one line."""
    entry = _entry_schema()
    header: dict[str, Any] = HEADER.json_schema()
    definitions: dict[str, Any] = {}
    for each in (header, entry):
        del each["$schema"]
        definitions |= each.pop("$defs", {})
    definitions |= {"LogHeader": header, "LogEntry": entry}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "RunLogLine",
        "description": "One line of a run log: first a header, then entries.",
        "type": "object",
        "oneOf": _references(("LogHeader", "LogEntry")),
        "$defs": definitions,
    }


def _entry_schema() -> dict[str, Any]:
    definitions: dict[str, Any] = {}
    for kinds in (EVENTS, EFFECTS):
        for name, kind in kinds.items():
            definitions[name] = _tagged_schema(name, type_schema(kind), definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "LogEntry",
        "description": "One line of a run log: a call of a dispatcher and its effects.",
        "type": "object",
        "additionalProperties": False,
        "required": ["now_us", "event", "effects"],
        "properties": {
            "now_us": {"type": "integer", "minimum": 0},
            "event": {"oneOf": _references(EVENTS)},
            "effects": {"type": "array", "items": {"oneOf": _references(EFFECTS)}},
        },
        "$defs": definitions,
    }


def _contents(
    lines: Iterable[str], source: str, on_torn: Callable[[int], None] | None
) -> Iterator[tuple[int, object]]:
    """Yield what each line that is not blank says, and its number."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if on_torn is not None and not line.endswith("\n") and not _is_json(line):
            on_torn(number)
            return
        yield number, parse_json(line, _source(source, number))


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _entries(contents: Iterable[tuple[int, object]], source: str) -> Iterator[LogLine]:
    last_us = 0
    for number, content in contents:
        where = _source(source, number)
        entry = _entry(content, where)
        if entry.now_us < last_us:
            raise where.invalid("now_us", f"at least {last_us}, as before", show(entry.now_us))
        last_us = entry.now_us
        yield LogLine(number, entry)


def _source(source: str, line: int) -> Source:
    return Source(f"{source}, line {line}", InvalidTrace)


def _plain_fields(value: Hashable) -> dict[str, object]:
    """Return what `codec.plain_fields` does, faster: a frontend does this per event."""
    kind: Hashable = type(value)
    return {name: _plain(getattr(value, name)) for name in _names(kind)}


def _plain(value: Hashable) -> object:
    kind: Hashable = type(value)
    if kind in _ATOMS:
        return value
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return _plain_fields(value) if _names(kind) else plain(value)


@cache
def _names(kind: Hashable) -> tuple[str, ...]:
    return tuple(each.name for each in fields(kind)) if is_dataclass(kind) else ()


def _entry(content: object, source: Source) -> LogEntry:
    if not isinstance(content, dict) or set(content) != {"now_us", "event", "effects"}:
        found = ", ".join(content) if isinstance(content, dict) else show(content)
        raise source.invalid("", "an object of now_us, event and effects", found or "nothing")
    now_us, effects = content["now_us"], content["effects"]
    if type(now_us) is not int or now_us < 0:
        raise source.invalid("now_us", "an integer of at least 0", show(now_us))
    if not isinstance(effects, list):
        raise source.invalid("effects", "a list", show(effects))
    return LogEntry(
        now_us=now_us,
        event=_untagged(EVENTS, content["event"], source, "event"),
        effects=tuple(
            _untagged(EFFECTS, each, source, inside("effects", index))
            for index, each in enumerate(effects)
        ),
    )


def _untagged(kinds: Mapping[str, type[T]], content: object, source: Source, place: str) -> T:
    if not isinstance(content, dict):
        raise source.invalid(place, "an object with a kind", show(content))
    name = content.get("kind")
    if not isinstance(name, str) or name not in kinds:
        expected = f"one of {', '.join(kinds)}"
        raise source.invalid(inside(place, "kind"), expected, show(name))
    fields = {key: each for key, each in content.items() if key != "kind"}
    return validate(kinds[name], fields, source, place)


def _tagged_schema(
    name: str, schema: dict[str, Any], definitions: dict[str, Any]
) -> dict[str, Any]:
    definitions |= schema.pop("$defs", {})
    del schema["$schema"]
    schema["properties"] = {"kind": {"const": name}, **schema["properties"]}
    schema["required"] = ["kind", *schema.get("required", [])]
    return schema


def _references(kinds: Iterable[str]) -> list[dict[str, str]]:
    return [{"$ref": f"#/$defs/{name}"} for name in kinds]
