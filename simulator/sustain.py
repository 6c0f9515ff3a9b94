"""How much load a plan sustains: the greatest at which enough requests are answered in time."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from penstock.arrivals import Law, instants_of
from penstock.domain.arrivals import Arrival
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.plan import Plan
from penstock.domain.units import Micros
from simulator.metrics import busy_by_class
from simulator.simulate import Scenario, Simulation, simulate_plan

_PRECISION = 1 / 64
_ROUNDING = 1e-9
_STEP = 1 / 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One model of a plan under one load.

    Attributes:
        load: as a multiple of the base rate.
        attainment: of the whole load; below the target, of what had ended when that was clear.
        busy_us: compute time by GPU class, in whole GPUs.
    """

    load: float
    offered_rps: float
    attainment: float
    busy_us: Mapping[GpuClassName, float]
    span_us: Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class Trials:
    """What surrounds the search for the load that one model sustains.

    Attributes:
        law: arrivals.
        span_us: simulated time of each trial.
        target: attainment that counts as sustained, above 0.
        scenario: policies, jitter, seed.
    """

    law: Law
    span_us: Micros
    target: float
    scenario: Scenario

    def sustained(
        self, plan: Plan, model: ModelName, base_rps: float, loads: Sequence[float]
    ) -> Trial | None:
        """Return the first of these loads, tried in this order, that is sustained.

        Args:
            plan: its other models are left out: each has a dispatcher and instances of its own.
            model: whose requests come.
            base_rps: what a load of 1 offers.
            loads: descending, as in PPipe's study.
        """
        for load in loads:
            trial = self.tried(plan, model, base_rps, load)
            if trial.attainment >= self.target:
                return trial
        return None

    def greatest(
        self, plan: Plan, model: ModelName, base_rps: float, most: float = 1.0
    ) -> Trial | None:
        """Return the greatest load that is sustained, to 1/64; None if none is.

        As if whatever is below a sustained load were sustained: in growing steps down from 1, or
        up, then by bisection. Most plans sustain nearly what they promise.

        Args:
            plan: its other models are left out.
            model: whose requests come.
            base_rps: what a load of 1 offers.
            most: greatest load of interest, 1 or more.
        """
        best: Trial | None = None
        low, high = 0.0, most
        load, step = 1.0, _STEP
        while high - low > _PRECISION:
            trial = self.tried(plan, model, base_rps, load)
            if trial.attainment >= self.target:
                low, best = load, trial
            else:
                high = load
            known = low > 0.0 and high < most
            load = high - step if low == 0.0 else low + step
            load = load if low < load < high and not known else (low + high) / 2
            step *= 2
        return best

    def tried(self, plan: Plan, model: ModelName, base_rps: float, load: float) -> Trial:
        """Offer one load to one model, until it is clear that it is not sustained."""
        alone = replace(plan, models=(plan.model(model),))
        dice = random.Random(self.scenario.seed)
        instants = instants_of(self.law, load * base_rps, self.span_us, dice)
        arrivals = [Arrival(arrival_us=at_us, model=model) for at_us in instants]
        # Misses while warming up do not count, so with a warm-up no run is cut short.
        allowed = int((1 - self.target) * len(arrivals) + _ROUNDING)
        most_misses = None if self.scenario.warmup_us else allowed
        run = simulate_plan(alone, arrivals, self.span_us, self.scenario, most_misses=most_misses)
        return Trial(
            load=load,
            offered_rps=load * base_rps,
            attainment=run.summary().attainment,
            busy_us=busy_by_class(alone, run.intervals),
            span_us=_end_us(run, self.span_us),
        )


def _end_us(run: Simulation, span_us: Micros) -> Micros:
    """Return when the last computation of a run ended, or its load."""
    return max(span_us, run.intervals.last_end_us())
