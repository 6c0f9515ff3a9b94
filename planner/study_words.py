"""Many plans as a table."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.domain.plan import ObjectiveUnit
from planner.frontier import CurvePoint, FrontierPoint, Value
from planner.words import number, valued


def curve_table(points: Sequence[CurvePoint]) -> str:
    """Return a line for each scale of the SLOs."""

    def told(value: Value, unit: ObjectiveUnit) -> str:
        return _missing(value) if value.found is None else number(value.found, unit)

    unit = valued(0, points[0].unit).partition(" ")[2]
    rows = [("SLO ×", f"in stages ({unit})", f"whole ({unit})")]
    rows += [
        (f"{each.scale:g}", told(each.pooled, each.unit), told(each.whole, each.unit))
        for each in points
    ]
    return _aligned(rows)


def frontier_table(points: Sequence[FrontierPoint]) -> str:
    """Return a line for each level of throughput, the least first; without a plan it says why."""
    rows = [("samples/s per weight", "takes", "GPUs")]
    for each in sorted(points, key=lambda point: point.level_rps):
        level = f"{each.level_rps:.1f}"
        if each.spent is None:
            rows.append((level, _missing(each), each.why))
        else:
            gpus = ", ".join(f"{count} {name}" for name, count in each.gpus.items() if count)
            rows.append((level, valued(each.spent, each.unit), gpus))
    return _aligned(rows)


def _missing(each: Value | FrontierPoint) -> str:
    """Return what stands where a value would, were there a plan."""
    return "no plan" if each.infeasible else "none in time"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines, all columns but the last right-aligned to their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        [*(cell.rjust(width) for cell, width in zip(row[:-1], widths, strict=False)), row[-1]]
        for row in rows
    )
    return "\n".join("  ".join(cells).rstrip() for cells in lines)
