"""Arrival laws by name, with their parameters, as a person writes them: ``gamma:cv=4``.

A law says how arrivals are spread, not how many there are: the rate comes beside it. A law is
added by its values here, its process in `penstock.arrivals.processes`, and its line in `KINDS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, TypeAlias, assert_never

from penstock.arrivals.processes import Dice, constant, diurnal, gamma, mmpp, poisson
from penstock.domain.errors import InvalidSettings, UnknownName
from penstock.domain.units import Micros

_SOURCE = "arrivals"

# Times of a law in seconds: a scheduler's clock tells no less, nobody waits for more.
_SHORTEST_S, _LONGEST_S = 0.001, 1e9


@dataclass(frozen=True, slots=True)
class Constant:
    """Evenly spaced."""


@dataclass(frozen=True, slots=True)
class Poisson:
    """Independent of one another."""


@dataclass(frozen=True, slots=True)
class Gamma:
    """Gaps with a gamma distribution, independent of one another.

    Attributes:
        cv: standard deviation of the gaps divided by their mean; 1 is Poisson.

    Raises:
        InvalidSettings: it is out of range.
    """

    cv: float

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        _check("gamma: cv", self.cv, 1e-6, 1e3)


@dataclass(frozen=True, slots=True)
class Mmpp:
    """Bursts: a Poisson process modulated by two states.

    Attributes:
        burst: rate in a burst divided by that outside.
        share: part of the time that is in bursts.
        length_s: mean length of a burst.

    Raises:
        InvalidSettings: one of them is out of range.
    """

    burst: float
    share: float
    length_s: float

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        _check("mmpp: burst", self.burst, 1.0, 1e6)
        _check("mmpp: share", self.share, 0.001, 0.999)
        _check("mmpp: length", self.length_s, _SHORTEST_S, _LONGEST_S)


@dataclass(frozen=True, slots=True)
class Diurnal:
    """A rate that rises and falls like a day's, from trough to peak and back.

    Attributes:
        peak: highest rate divided by the mean one.
        period_s: from trough to trough.

    Raises:
        InvalidSettings: one of them is out of range.
    """

    peak: float
    period_s: float

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        _check("diurnal: peak", self.peak, 1.0, 2.0)
        _check("diurnal: period", self.period_s, _SHORTEST_S, _LONGEST_S)


Law: TypeAlias = Constant | Poisson | Gamma | Mmpp | Diurnal


class Kind(NamedTuple):
    """How a law is written: its parameters, all required, in the order its maker takes them."""

    parameters: tuple[str, ...]
    make: Callable[..., Law]


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "constant": Kind((), Constant),
        "poisson": Kind((), Poisson),
        "gamma": Kind(("cv",), Gamma),
        "mmpp": Kind(("burst", "share", "length"), Mmpp),
        "diurnal": Kind(("peak", "period"), Diurnal),
    }
)


def law_of(text: str) -> Law:
    """Return the law that a text such as ``mmpp:burst=5,share=0.1,length=2`` describes.

    Raises:
        InvalidSettings: a parameter is unknown, missing, given twice, no number or out of range.
        UnknownName: no law has that name.
    """
    name, colon, rest = text.partition(":")
    if name not in KINDS:
        raise UnknownName("arrival law", name, KINDS)
    kind = KINDS[name]
    given = _parameters(name, rest.split(",") if colon else [], kind)
    return kind.make(*(given[each] for each in kind.parameters))


def instants_of(law: Law, rate_rps: float, duration_us: Micros, dice: Dice) -> tuple[Micros, ...]:
    """Return instants in [0, duration) at a mean rate, in order, spread by a law.

    Raises:
        InvalidSettings: the rate or the duration is not above 0, or both are too much.
    """
    match law:
        case Constant():
            return constant(rate_rps, duration_us)
        case Poisson():
            return poisson(rate_rps, duration_us, dice)
        case Gamma(cv):
            return gamma(rate_rps, duration_us, cv, dice)
        case Mmpp(burst, share, length_s):
            return mmpp(rate_rps, duration_us, burst, share, length_s, dice)
        case Diurnal(peak, period_s):
            return diurnal(rate_rps, duration_us, peak, period_s, dice)
        case _:
            assert_never(law)


def _parameters(name: str, parts: list[str], kind: Kind) -> dict[str, float]:
    given: dict[str, float] = {}
    for part in parts:
        key, equals, number = part.partition("=")
        if not equals or key not in kind.parameters or key in given:
            raise InvalidSettings(_SOURCE, name, _usage(name, kind), repr(part))
        given[key] = _number(f"{name}: {key}", number)
    missing = [each for each in kind.parameters if each not in given]
    if missing:
        found = f"no {' and no '.join(missing)}"
        raise InvalidSettings(_SOURCE, name, _usage(name, kind), found)
    return given


def _usage(name: str, kind: Kind) -> str:
    if not kind.parameters:
        return f"{name!r} without parameters"
    return repr(f"{name}:" + ",".join(f"{each}=NUMBER" for each in kind.parameters)) + ", each once"


def _number(place: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidSettings(_SOURCE, place, "a number", repr(text)) from None


def _check(place: str, value: float, least: float, most: float) -> None:
    if not (math.isfinite(value) and least <= value <= most):
        expected = f"a number from {least:g} to {most:g}"
        raise InvalidSettings(_SOURCE, place, expected, f"{value:g}")
