"""Many plans as a table."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.domain.plan import ObjectiveUnit
from planner.frontier import CurvePoint, FrontierPoint, Value
from planner.words import number, valued


def curve_table(points: Sequence[CurvePoint]) -> str:
    """Return a line for each scale of the SLOs."""

    def told(value: Value, unit: ObjectiveUnit) -> str:
        if value.found is None:
            return "no plan" if value.infeasible else "none in time"
        return number(value.found, unit)

    unit = valued(0, points[0].unit).partition(" ")[2]
    rows = [("SLO ×", f"in stages ({unit})", f"whole ({unit})")]
    rows += [
        (f"{each.scale:g}", told(each.pooled, each.unit), told(each.whole, each.unit))
        for each in points
    ]
    return _aligned(rows)


def frontier_table(points: Sequence[FrontierPoint]) -> str:
    """Return a line for each level of throughput, the least first."""
    rows = [("samples/s per weight", "takes", "GPUs")]
    for each in sorted(points, key=lambda point: point.level_rps):
        gpus = ", ".join(f"{count} {name}" for name, count in each.gpus.items() if count)
        rows.append((f"{each.level_rps:.1f}", valued(each.spent, each.unit), gpus))
    return _aligned(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines, all columns but the last right-aligned to their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        [*(cell.rjust(width) for cell, width in zip(row[:-1], widths, strict=False)), row[-1]]
        for row in rows
    )
    return "\n".join("  ".join(cells).rstrip() for cells in lines)
