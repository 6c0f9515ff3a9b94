"""Documents: plain data with a schema tag, checked strictly against a dataclass.

Where pydantic does the work. Knows no format: a format is a `Document` plus the checks that types
cannot say.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from types import GenericAlias
from typing import Any, Generic, TypeVar, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from penstock.formats.codec import SHARE_PATTERN, canonical_json, parse_json, plain_fields
from penstock.formats.sources import Source, inside, show

T = TypeVar("T", bound=Hashable)

_UNKNOWN_FIELD = ("unexpected_keyword_argument", "extra_forbidden")
_EXPECTED = {
    "bool_type": "true or false",
    "dataclass_type": "an object",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "int_type": "an integer",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "missing": "a value, which is required",
    "string_type": "text",
    "too_long": "at most {max_length}",
    "too_short": "at least {min_length}",
    "tuple_type": "a list",
}


@dataclass(frozen=True, slots=True)
class Document(Generic[T]):
    """One text format.

    Attributes:
        tag: name and version, as the ``schema`` field of the text.
        kind: frozen dataclass that has the other fields.
    """

    tag: str
    kind: type[T]

    def read(self, text: str, source: Source) -> T:
        """Read JSON text.

        Raises:
            InvalidInput: the first thing that is wrong.
        """
        return self.check(parse_json(text, source), source)

    def check(self, content: object, source: Source) -> T:
        """Check plain data, schema tag included.

        Raises:
            InvalidInput: the first thing that is wrong.
        """
        if not isinstance(content, dict):
            raise source.invalid("", f"an object with schema {self.tag!r}", show(content))
        found = content.get("schema")
        if found != self.tag:
            expected = f"{self.tag!r}, the one understood here"
            raise source.invalid("schema", expected, show(found) if found else "none")
        return validate(
            self.kind, {key: each for key, each in content.items() if key != "schema"}, source
        )

    def write(self, value: T) -> str:
        """Return the canonical JSON of a value."""
        return canonical_json(self.content(value))

    def content(self, value: T) -> dict[str, object]:
        """Return a value as plain data, schema tag first."""
        return {"schema": self.tag, **plain_fields(value)}

    def json_schema(self) -> dict[str, object]:
        """Return the JSON Schema of the text."""
        schema = type_schema(self.kind)
        schema["properties"] = {"schema": {"const": self.tag}, **schema["properties"]}
        schema["required"] = ["schema", *schema.get("required", [])]
        return schema


def validate(kind: type[T], content: object, source: Source, place: str = "") -> T:
    """Build a dataclass from plain data: every type exact, no field unknown or missing.

    Args:
        place: where in the file `content` stands.

    Raises:
        InvalidInput: the first thing that is wrong.
    """
    try:
        built: T = _adapter(kind).validate_json(json.dumps([content]))[0]
    except ValidationError as error:
        raise _first_problem(kind, error, source, place) from None
    return built


def type_schema(kind: type[Hashable]) -> dict[str, Any]:
    """Return the JSON Schema of a dataclass's plain form."""
    schema = _adapter(kind).json_schema()
    definitions = schema.get("$defs", {})
    (item,) = schema["prefixItems"]
    if "$ref" in item:
        item = definitions.pop(item["$ref"].rpartition("/")[2])
    item = {"$schema": "https://json-schema.org/draft/2020-12/schema", **item}
    if definitions:
        item["$defs"] = definitions
    _spell_shares(item)
    return item


@cache
def _adapter(kind: Hashable) -> TypeAdapter[tuple[Any]]:
    # A tuple of one, because a dataclass by itself takes no configuration.
    one: Any = GenericAlias(tuple, kind)
    strict = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    return TypeAdapter(one, config=strict)


def _first_problem(
    kind: type[object], error: ValidationError, source: Source, place: str
) -> Exception:
    # A misspelt field is also a missing one; the misspelling says more.
    problem = min(
        error.errors(include_url=False), key=lambda each: each["type"] not in _UNKNOWN_FIELD
    )
    path = problem["loc"][1:]  # without the tuple of one
    if problem["type"] in _UNKNOWN_FIELD:
        known = ", ".join(_known_fields(kind, path[:-1]))
        place = inside(place, *path[:-1])
        return source.invalid(place, f"only the fields {known}", show(path[-1]))
    return source.invalid(inside(place, *path), _expected(problem), _found(problem))


def _expected(problem: ErrorDetails) -> str:
    words = _EXPECTED.get(problem["type"])
    return words.format(**problem.get("ctx", {})) if words else problem["msg"]


def _found(problem: ErrorDetails) -> str:
    return "none" if problem["type"] == "missing" else show(problem["input"])


def _known_fields(kind: object, path: tuple[int | str, ...]) -> list[str]:
    for part in path:
        arguments = [each for each in get_args(kind) if each is not type(None)]
        kind = arguments[0] if isinstance(part, int) else _field_type(kind, part)
    owner = next(each for each in (kind, *get_args(kind)) if is_dataclass(each))
    return [field.name for field in fields(owner)]


def _field_type(kind: object, name: str) -> object:
    return get_type_hints(kind)[name]


def _spell_shares(schema: object) -> None:
    """Replace, in place, what pydantic says of a fraction by what files say."""
    if isinstance(schema, dict):
        if {"format": "fraction", "type": "string"} in schema.get("anyOf", ()):
            del schema["anyOf"]
            schema.update(type="string", pattern=SHARE_PATTERN)
        for each in schema.values():
            _spell_shares(each)
    elif isinstance(schema, list):
        for each in schema:
            _spell_shares(each)
