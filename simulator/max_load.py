"""The greatest load that each model of a plan sustains, with a confidence interval over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from penstock.domain.ids import ModelName
from penstock.domain.plan import Plan
from simulator.sustain import Trials

if TYPE_CHECKING:
    from rich.table import Table

MOST = 2.0  # times what is planned: no greater load is tried

# Quantiles of Student's t distribution at 0.975, for 1, 2, … degrees of freedom.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160)
_T_MANY = 2.145  # for 14; with more it is a little too wide


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxLoad:
    """What one model sustains.

    Attributes:
        planned_rps: samples/s that are a load of 1.
        loads: the greatest load sustained, by seed; 0: none was.
    """

    model: ModelName
    planned_rps: float
    loads: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.loads)

    @property
    def half_width(self) -> float | None:
        """Half of the 95 % confidence interval of the mean; None for a single seed."""
        seeds = len(self.loads)
        if seeds == 1:
            return None
        t = _T[seeds - 2] if seeds - 2 < len(_T) else _T_MANY
        return t * statistics.stdev(self.loads) / math.sqrt(seeds)


def max_loads(
    plan: Plan, trials: Trials, seeds: int, on_done: Callable[[], None] = lambda: None
) -> tuple[MaxLoad, ...]:
    """Return what each model sustains.

    Args:
        plan: each of its models is simulated alone.
        trials: arrivals, target and policy; the first seed is its scenario's.
        seeds: how many, one or more.
        on_done: told of each model and seed.
    """
    found = []
    for model in plan.models:
        loads = []
        for number in range(seeds):
            scenario = replace(trials.scenario, seed=trials.scenario.seed + number)
            seeded = replace(trials, scenario=scenario)
            trial = seeded.greatest(plan, model.model, model.throughput_rps, MOST)
            loads.append(0.0 if trial is None else trial.load)
            on_done()
        found.append(
            MaxLoad(model=model.model, planned_rps=model.throughput_rps, loads=tuple(loads))
        )
    return tuple(found)


def max_load_json(found: tuple[MaxLoad, ...], target: float) -> dict[str, object]:
    """Return all figures."""
    return {
        "simulated": True,
        "target": target,
        "models": {
            each.model: {
                "planned_rps": each.planned_rps,
                "load": each.mean,
                "half_width": each.half_width,
                "loads": list(each.loads),
                "sustained_rps": each.mean * each.planned_rps,
            }
            for each in found
        },
    }


def max_load_table(found: tuple[MaxLoad, ...], target: float) -> Table:
    """Return one row per model for a person."""
    from rich.table import Table

    table = Table("", "planned", "load sustained", "sustained", title=f"Sustained at {target:.1%}")
    for each in found:
        wide = "" if each.half_width is None else f" ± {each.half_width:.3f}"
        table.add_row(
            each.model,
            f"{each.planned_rps:.1f}/s",
            f"{each.mean:.3f}{wide}",
            f"{each.mean * each.planned_rps:.1f}/s",
        )
    return table
