"""YAML for files that people write: the core schema of YAML 1.2, so text means what it looks like.

``no`` and ``on`` are text, ``1e-4`` is a number, ``2024-01-01`` is text. Aliases and tags are
refused: a file says each thing where it belongs. Knows no format's fields.
"""

from __future__ import annotations

import re
from collections.abc import Hashable

import yaml

from penstock.formats.codec import MOST_LEVELS, RepeatedKey, check_plain
from penstock.formats.sources import Source

_PLAIN_SCALARS = (
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
)
_LONGEST_INTEGER = 40


class _Loader(yaml.SafeLoader):
    """Reads plain data only."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose one node, unless it is an alias, has a tag or lies too deep."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _refusal("an alias; write the value out", event)
        if getattr(event, "tag", None) is not None:
            raise _refusal(f"the tag {event.tag!r}; plain data has none", event)
        if self.depth > MOST_LEVELS:
            raise _refusal(f"more than {MOST_LEVELS} levels of nesting", event)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads back."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the name is the base class's
        """Write equal lists twice rather than as an alias."""
        return True


def _refusal(problem: str, where: yaml.Event | yaml.Node) -> yaml.MarkedYAMLError:
    mark = where.start_mark
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)  # type: ignore[arg-type] # stub


def _construct_integer(_: _Loader, node: yaml.ScalarNode) -> int:
    return int(str(node.value)[:_LONGEST_INTEGER])  # what is cut off here is far beyond 64 bits


def _construct_number(_: _Loader, node: yaml.ScalarNode) -> float:
    return float(str(node.value).lower().replace(".inf", "inf").replace(".nan", "nan"))


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> object:
    mapping: dict[Hashable, object] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise _refusal("a key that is not text", key_node)
        if key in mapping:
            return RepeatedKey(key)
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


for _each in (_Loader, _Dumper):
    _each.yaml_implicit_resolvers = {}  # its own, in place of the inherited ones of YAML 1.1
    for _tag, _pattern, _first in _PLAIN_SCALARS:
        _each.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_number)
_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


def parse_yaml(text: str, source: Source) -> object:
    """Read YAML into plain data.

    Raises:
        InvalidInput: it is not YAML, repeats a key, or holds what plain data may not.
    """
    try:
        value = yaml.load(text.removeprefix("\ufeff"), _Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise source.invalid(place, "YAML", error.problem or "something else") from None
    except yaml.reader.ReaderError as error:
        raise source.invalid("", "YAML", f"the character #x{error.character:04x}") from None
    check_plain(value, source)
    return value


def write_yaml(value: object) -> str:
    """Write plain data as YAML, in the order of its fields."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
