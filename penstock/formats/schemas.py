"""JSON Schemas of the formats, for editors and for readers in other languages.

A CSV has no JSON Schema: those of ``trace`` and ``profile-row`` describe one row as an object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from penstock.domain.arrivals import Arrival
from penstock.domain.errors import UnknownName
from penstock.domain.profiles import ProfileRow
from penstock.formats.clusters import CLUSTER
from penstock.formats.documents import type_schema
from penstock.formats.graphs import BLOCKS, GRAPH
from penstock.formats.plans import PLAN
from penstock.formats.profiles import PROFILE
from penstock.formats.runlog import line_schema

SCHEMAS: Mapping[str, Callable[[], dict[str, object]]] = MappingProxyType(
    {
        "cluster": CLUSTER.json_schema,
        "profile": PROFILE.json_schema,
        "profile-row": lambda: type_schema(ProfileRow),
        "blocks": BLOCKS.json_schema,
        "graph": GRAPH.json_schema,
        "plan": PLAN.json_schema,
        "run-log": line_schema,
        "trace": lambda: type_schema(Arrival),
    }
)


def json_schema(name: str) -> dict[str, object]:
    """Return the JSON Schema of a format.

    Raises:
        UnknownName: no format has that name.
    """
    try:
        return SCHEMAS[name]()
    except KeyError:
        raise UnknownName("format", name, SCHEMAS) from None
