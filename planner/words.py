"""How the planner's figures read: durations, stages, values with their units."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from penstock.domain.plan import ObjectiveUnit
from penstock.domain.units import Micros, ms_from_micros
from planner.margins import Try

_COARSE_MS = 10.0  # from here one decimal says enough
_COARSE_RPS = 10.0


def milliseconds(us: Micros) -> str:
    """Return a duration, such as ``12.5 ms``."""
    ms = ms_from_micros(us)
    return f"{ms:.1f} ms" if ms >= _COARSE_MS else f"{ms:.2f} ms"


def blocks(first: int, end: int) -> str:
    """Return a block range, both ends included."""
    return f"block {first}" if end == first + 1 else f"blocks {first}-{end - 1}"


def part_of(share: Fraction, gpu_class: str) -> str:
    """Return a share of a GPU of a class; a whole one is just the class."""
    return gpu_class if share == 1 else f"{share} of {gpu_class}"


def number(value: float, unit: ObjectiveUnit) -> str:
    """Return an objective's value without its unit."""
    if unit == "gpus":
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return f"{value:.1f}" if abs(value) >= _COARSE_RPS and unit == "rps" else f"{value:.2f}"


def valued(value: float, unit: ObjectiveUnit) -> str:
    """Return an objective's value with its unit."""
    names = {"rps": "samples/s", "per-hour": "per hour", "gpus": "GPUs"}
    return f"{number(value, unit)} {names[unit]}"


def listed(names: Sequence[str]) -> str:
    """Return names joined by commas, the last by *and*."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def tried(each: Try) -> str:
    """Return one try of the margin loop in a line."""
    parts = sorted(set(each.margins.values()))
    told = (
        f"margin {parts[0]:.0%} of every SLO"
        if len(parts) == 1
        else "margins " + ", ".join(f"{name} {part:.0%}" for name, part in each.margins.items())
    )
    told += f", batch building × {each.setting.batch_build_factor:g}"
    if min(each.setting.sustained.values()) < max(each.setting.sustained.values()):
        told += ", expecting " + ", ".join(
            f"{name} {part:.0%}" for name, part in each.setting.sustained.items()
        )
    if each.planned_rps is None:
        return f"{told}: no plan"
    planned, sustained = (
        number(value, "rps") for value in (each.planned_rps, each.sustained_weighted_rps)
    )
    if not each.sustained_rps:
        return f"{told}: planned {planned}, sustains less than the best so far"
    return f"{told}: planned {planned}, sustains {sustained} samples/s per unit of weight"
