"""Parameters of policies: how a policy declares one, and how text becomes one.

A policy is a frozen dataclass; each field is a parameter under its own name. Bounds are declared
as annotations and checked where text comes in, not when code builds a policy. Knows no policy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from types import MappingProxyType
from typing import TypeAlias, TypeVar, get_type_hints

from penstock.domain.errors import InvalidSettings, UnknownName

P = TypeVar("P")
Value: TypeAlias = bool | int | float | tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Within:
    """Bounds of a parameter, both included: the annotation of a field; 0 and none without it."""

    least: float = 0
    most: float = math.inf

    def hold(self, value: Value) -> bool:
        """Return whether a value, or each of several, is finite and keeps to the bounds."""
        numbers = value if isinstance(value, tuple) else () if value is None else (value,)
        return all(math.isfinite(each) and self.least <= each <= self.most for each in numbers)

    def __str__(self) -> str:
        """Return words for them."""
        words = f" of at least {self.least:g}"
        return words if self.most == math.inf else f"{words} and at most {self.most:g}"


def configured(kind: str, spec: str, table: Mapping[str, Callable[..., P]]) -> Callable[[], P]:
    """Return the factory that a text such as ``fixed:size=4,timeout_us=2000`` names.

    Args:
        kind: what the table holds, for messages.
        spec: a name; or a name, a colon and ``parameter=value`` pairs between commas. Several
            numbers are joined by plus signs, and ``none`` is no value.
        table: names and the dataclasses behind them.

    Raises:
        UnknownName: there is no such policy, or it has no such parameter.
        InvalidSettings: a pair cannot be read, or its value is of the wrong kind or out of bounds.
    """
    name, colon, pairs = spec.partition(":")
    if name not in table:
        raise UnknownName(kind, name, table)
    policy, source = table[name], f"{kind} {name!r}"
    values: dict[str, Value] = {}
    for pair in pairs.split(",") if colon else ():
        key, equals, text = (part.strip() for part in pair.partition("="))
        if not equals:
            raise InvalidSettings(source, "", "parameter=value after the colon", repr(pair))
        if key in values:
            raise InvalidSettings(source, key, "one value", "two")
        values[key] = _value(source, key, text, policy)
    return partial(policy, **values) if values else policy


def _value(source: str, key: str, text: str, policy: Callable[..., object]) -> Value:
    declared = parameters_of(policy)
    if key not in declared:
        raise UnknownName(f"parameter of {source}", key, declared)
    hint, bounds = declared[key]
    words, read = _KINDS[hint]
    try:
        value = read(text)
    except ValueError:
        value = math.nan
    if not bounds.hold(value):
        expected = words if hint is bool else f"{words}{bounds}"
        raise InvalidSettings(source, key, expected, repr(text))
    return value


def parameters_of(policy: Callable[..., object]) -> dict[str, tuple[object, Within]]:
    """Return the type and the bounds of each parameter of a policy, by name and in order."""
    if not is_dataclass(policy):
        return {}
    names = [each.name for each in fields(policy) if each.init]
    bare = get_type_hints(policy)
    full = get_type_hints(policy, include_extras=True)
    return {name: (bare[name], _bounds(full[name])) for name in names}


def _bounds(hint: object) -> Within:
    found = (each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Within))
    return next(found, Within())


def _truth(text: str) -> Value:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def _optional(text: str) -> Value:
    return None if text == "none" else int(text)


def _several(text: str) -> Value:
    return tuple(int(each) for each in text.split("+"))


_KINDS: Mapping[object, tuple[str, Callable[[str], Value]]] = MappingProxyType(
    {
        bool: ("true or false", _truth),
        int: ("a whole number", int),
        float: ("a number", float),
        int | None: ("none or a whole number", _optional),
        tuple[int, ...]: ("whole numbers joined by plus signs, each", _several),
    }
)
