"""The run log: what a dispatcher was told and what it answered, one JSON object per line.

``{"now_us": …, "event": {"kind": "RequestArrived", …}, "effects": [{"kind": …}, …]}``. Fed to a
fresh dispatcher, the events must give the same effects. Knows no event by name: the types in
`penstock.scheduling` are the format.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar, get_args

from penstock.domain.errors import InvalidTrace
from penstock.domain.units import Micros
from penstock.formats.codec import json_line, parse_json, plain_fields
from penstock.formats.documents import type_schema, validate
from penstock.formats.sources import Source, inside, show
from penstock.scheduling.effects import Effect
from penstock.scheduling.events import Event

T = TypeVar("T", bound=Hashable)

EVENTS: Mapping[str, type[Event]] = MappingProxyType({e.__name__: e for e in get_args(Event)})
EFFECTS: Mapping[str, type[Effect]] = MappingProxyType({e.__name__: e for e in get_args(Effect)})


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One call of a dispatcher's `handle`."""

    now_us: Micros
    event: Event
    effects: tuple[Effect, ...]


def write_entry(now_us: Micros, event: Event, effects: Sequence[Effect]) -> str:
    """Write one line, newline included; the arguments are those of the driver's `log`."""
    return json_line(
        {"now_us": now_us, "event": _tagged(event), "effects": [_tagged(each) for each in effects]}
    )


def write_run_log(entries: Iterable[LogEntry]) -> str:
    """Write a whole log."""
    return "".join(write_entry(each.now_us, each.event, each.effects) for each in entries)


def read_run_log(lines: Iterable[str], source: str) -> Iterator[LogEntry]:
    """Read a log entry by entry; blank lines are passed over.

    Args:
        lines: an open file will do, or ``text.splitlines()``.

    Raises:
        InvalidTrace: the first thing that is wrong, and where.
    """
    last_us = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        entry = _entry(line, Source(f"{source}, line {number}", InvalidTrace))
        if entry.now_us < last_us:
            where = Source(f"{source}, line {number}", InvalidTrace)
            raise where.invalid("now_us", f"at least {last_us}, as before", show(entry.now_us))
        last_us = entry.now_us
        yield entry


def entry_schema() -> dict[str, object]:
    """Return the JSON Schema of one line."""
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


def _tagged(value: Event | Effect) -> dict[str, object]:
    return {"kind": type(value).__name__, **plain_fields(value)}


def _entry(line: str, source: Source) -> LogEntry:
    content = parse_json(line, source)
    fields = {"now_us", "event", "effects"}
    if not isinstance(content, dict) or set(content) != fields:
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
