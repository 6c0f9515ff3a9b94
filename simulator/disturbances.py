"""What can go wrong in a simulated fleet, as values and as a person writes them.

Knows no plan: whether a pool or a GPU exists is found out where one is at hand.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from penstock.domain.errors import InvalidSettings
from penstock.domain.ids import PoolId
from penstock.domain.units import US_PER_MS, US_PER_SECOND, Micros

ALL_POOLS = "all"

_LONGEST_S = 1e9
_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>us|ms|s)")
_UNIT_US = {"us": 1, "ms": US_PER_MS, "s": US_PER_SECOND}


@dataclass(frozen=True, slots=True)
class Straggler:
    """Now and then a computation takes a multiple of its time.

    Attributes:
        probability: of each computation, 0 to 1.
        factor: by which it takes longer, 1 to 1000.

    Raises:
        InvalidSettings: one of them is out of range.
    """

    probability: float
    factor: float

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        check_number("straggler", "probability", self.probability, 0, 1)
        check_number("straggler", "factor", self.factor, 1, 1_000)


@dataclass(frozen=True, slots=True)
class Outage:
    """Something fails, and may come back.

    Attributes:
        target: an instance, a GPU or a server.
        at_us: when.
        lasts_us: for how long; None: for good.
    """

    target: str
    at_us: Micros
    lasts_us: Micros | None = None


@dataclass(frozen=True, slots=True)
class PoolFactor:
    """A pool's real latencies, as a multiple of the profiled ones."""

    pool: PoolId
    factor: float

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        check_number("profile-error", self.pool, self.factor, 0.001, 1_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileError:
    """How real latencies differ from the profiled ones, which the dispatcher believes.

    Attributes:
        sigma: of a log-normal factor of mean 1, drawn once for each pool; 0 for none.
        factor: of every pool besides.
        pools: those that have this factor and no other.

    Raises:
        InvalidSettings: one of them is out of range.
    """

    sigma: float = 0.0
    factor: float = 1.0
    pools: tuple[PoolFactor, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        check_number("profile-error", "sigma", self.sigma, 0, 5)
        check_number("profile-error", ALL_POOLS, self.factor, 0.001, 1_000)


def straggler_of(text: str) -> Straggler:
    """Return what ``0.01:4`` says: one in a hundred takes four times as long.

    Raises:
        InvalidSettings: it cannot be read, or a number is out of range.
    """
    probability, _, factor = text.partition(":")
    try:
        numbers = float(probability), float(factor)
    except ValueError:
        expected = "PROBABILITY:FACTOR, such as 0.01:4"
        raise InvalidSettings("straggler", "", expected, repr(text)) from None
    return Straggler(*numbers)


def outage_of(text: str) -> Outage:
    """Return what ``fast-0@10s+5s`` says: fast-0 fails after 10 s and is back 5 s later.

    Raises:
        InvalidSettings: it cannot be read.
    """
    target, _, when = text.rpartition("@")
    at, plus, lasts = when.partition("+")
    at_us, lasts_us = _duration_us(at), _duration_us(lasts)
    if not target or at_us is None or (plus and not lasts_us):
        expected = "TARGET@START or TARGET@START+LENGTH, such as fast-0@10s+500ms"
        raise InvalidSettings("fail", "", expected, repr(text))
    return Outage(target, at_us, lasts_us)


def profile_error_of(texts: Iterable[str]) -> ProfileError:
    """Return what ``0.1``, ``all=1.2`` and ``POOL=0.9`` say together.

    Raises:
        InvalidSettings: one of them cannot be read, is out of range or comes twice.
    """
    found: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if math.isnan(value) or (not name and "=" in text):
            expected = "SIGMA, all=FACTOR or POOL=FACTOR, such as 0.1"
            raise InvalidSettings("profile-error", "", expected, repr(text))
        if name in found:
            raise InvalidSettings("profile-error", name or "sigma", "one value", "two")
        found[name] = value
    return ProfileError(
        sigma=found.pop("", 0.0),
        factor=found.pop(ALL_POOLS, 1.0),
        pools=tuple(PoolFactor(PoolId(name), factor) for name, factor in found.items()),
    )


def check_number(source: str, place: str, value: float, least: float, most: float) -> None:
    """Check that a number lies between two, both included.

    Raises:
        InvalidSettings: it does not, or is none.
    """
    if not (math.isfinite(value) and least <= value <= most):
        expected = f"a number from {least:g} to {most:g}"
        raise InvalidSettings(source, place, expected, f"{value:g}")


def _duration_us(text: str) -> Micros | None:
    found = _DURATION.fullmatch(text)
    if found is None:
        return None
    us = round(float(found["number"]) * _UNIT_US[found["unit"]])
    return us if us <= _LONGEST_S * US_PER_SECOND else None
