from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.domain.errors import UnknownName
from penstock.formats.schemas import SCHEMAS, json_schema


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_is_json_and_closed(name: str) -> None:
    schema = json_schema(name)
    text = json.dumps(schema)
    assert schema["type"] == "object"
    assert all(each["additionalProperties"] is False for each in alternatives(schema))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "fraction" not in text
    definitions = schema.get("$defs", {})
    assert isinstance(definitions, dict)
    for reference in references(schema):
        assert reference.removeprefix("#/$defs/") in definitions


def test_a_line_of_a_run_log_is_a_header_or_an_entry() -> None:
    header, entry = alternatives(json_schema("run-log"))
    assert header["properties"]["schema"] == {"const": "penstock.run-log/1"}
    assert set(header["required"]) == {
        "schema",
        "penstock",
        "simulated",
        "policy",
        "routing",
        "limits",
    }
    assert set(entry["required"]) == {"now_us", "event", "effects"}


@pytest.mark.parametrize("name", ["cluster", "profile", "blocks", "graph", "plan"])
def test_documents_ask_for_their_tag(name: str) -> None:
    schema = json_schema(name)
    assert isinstance(schema["properties"], dict)
    assert schema["properties"]["schema"] == {"const": f"penstock.{name}/1"}
    assert "schema" in list(map(str, _list(schema["required"])))


def test_shares_have_a_pattern() -> None:
    pattern = {"pattern": "^1/[1-9][0-9]{0,3}$", "type": "string"}
    schema = json_schema("profile-row")
    assert isinstance(schema["properties"], dict)
    share = schema["properties"]["share"]
    assert {key: share[key] for key in pattern} == pattern


def test_schemas_are_made_anew() -> None:
    first = json_schema("run-log")
    first.clear()
    assert json_schema("run-log")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="unknown format 'plans'; known: blocks, cluster, graph"):
        json_schema("plans")


def alternatives(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a value may be: the schema itself, or those it refers to."""
    names = [each["$ref"].removeprefix("#/$defs/") for each in schema.get("oneOf", ())]
    return [schema["$defs"][name] for name in names] or [schema]


def references(schema: object) -> list[str]:
    if isinstance(schema, dict):
        own = [schema["$ref"]] if "$ref" in schema else []
        return own + [each for value in schema.values() for each in references(value)]
    return [each for value in _list(schema) for each in references(value)]


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
