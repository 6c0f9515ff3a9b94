"""Margins that are found, not guessed: plans are simulated, and the one that carries most is kept.

A margin keeps part of the SLO free for queueing, which the planner knows nothing of. Too small, and
requests come late; too large, and GPUs that could serve stand idle. How much is right depends on
the pools, the arrivals and the policy, so each try plans with other margins and simulates what the
plan sustains at the target attainment (PPipe, ATC 2025, takes 40 % of the SLO for all).

Knows neither solver nor simulator: both are handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from penstock.domain.errors import Infeasible, PlanningFailed
from penstock.domain.ids import ModelName
from penstock.domain.plan import ModelPlan, Pipeline, Plan
from planner.candidates import batch_build_us

COMMON = (0.4, 0.3, 0.2, 0.15, 0.1, 0.05)  # of every SLO
_EQUAL = 1e-9  # relative

Margins: TypeAlias = Mapping[ModelName, float]  # parts of the SLO
Rates: TypeAlias = Mapping[ModelName, float]  # samples/s


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One set of margins.

    Attributes:
        planned_rps: least planned throughput per weight; None: there was no plan.
        sustained_rps: of each model, at the target attainment.
        sustained_weighted_rps: the least of them per weight, as far as it was planned.
    """

    margins: Margins
    planned_rps: float | None
    sustained_rps: Rates
    sustained_weighted_rps: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The best plan found.

    Attributes:
        plan: it promises each model what it sustains, and no more. Its margins may be a little
            smaller than those it was planned with.
        tries: all of them, in order.
    """

    plan: Plan
    margins: Margins
    tries: tuple[Try, ...]


class MarginSearch:
    """Looks for the margins whose plan sustains most."""

    def __init__(
        self,
        plan: Callable[[Margins], Plan],
        sustained: Callable[[Plan], Rates],
        batch_build_factor: float,
        on_try: Callable[[Try], None] = lambda _: None,
    ) -> None:
        """Get ready.

        Args:
            batch_build_factor: of the options that plans are made with.
            plan: makes the best plan for margins; raises Infeasible or PlanningFailed.
            sustained: tells what each model of a plan sustains, samples/s.
            on_try: told of each try.
        """
        self._plan = plan
        self._sustained = sustained
        self._factor = batch_build_factor
        self._on_try = on_try
        self._tries: list[Try] = []
        self._best: tuple[Try, Plan] | None = None

    def run(
        self, models: Sequence[ModelName], most_tries: int, go_on: Callable[[], bool]
    ) -> Chosen:
        """Return the best plan found: common margins first, then model by model.

        Args:
            models: of the cluster.
            most_tries: bound of the search.
            go_on: asked before each try but the first that finds a plan; False ends the search.

        Raises:
            PlanningFailed: no margin that was tried has a plan that sustains anything.
        """
        for margin in COMMON:
            if len(self._tries) < most_tries and (self._best is None or go_on()):
                self._try(dict.fromkeys(models, margin))
        while self._best is not None and len(self._tries) < most_tries and go_on():
            untried = [each for each in self._neighbours() if not self._knows(each)]
            if not untried:
                break
            self._try(untried[0])
        if self._best is None or self._best[0].sustained_weighted_rps <= 0:
            raise PlanningFailed("no margin that was tried has a plan that meets the target")
        best, plan = self._best
        promised = promise(plan, best.sustained_rps, self._factor)
        return Chosen(plan=promised, margins=best.margins, tries=tuple(self._tries))

    def _neighbours(self) -> list[Margins]:
        """Return the best margins with one model's a step up or down, the worst-off model first."""
        if self._best is None:
            return []
        best, plan = self._best
        short = {
            model.model: best.sustained_rps[model.model] / model.throughput_rps
            for model in plan.models
        }
        found: list[Margins] = []
        for model in sorted(short, key=lambda name: (short[name], name)):
            at = COMMON.index(best.margins[model])
            # A model that sustains less than planned needs a larger margin; one that does not may
            # do with a smaller one.
            steps = (-1, 1) if short[model] < 1 - _EQUAL else (1, -1)
            found += [
                {**best.margins, model: COMMON[at + step]}
                for step in steps
                if 0 <= at + step < len(COMMON)
            ]
        return found

    def _knows(self, margins: Margins) -> bool:
        return any(each.margins == margins for each in self._tries)

    def _try(self, margins: Margins) -> None:
        try:
            plan = self._plan(margins)
        except (Infeasible, PlanningFailed):
            tried = Try(
                margins=margins, planned_rps=None, sustained_rps={}, sustained_weighted_rps=0.0
            )
            self._tell(tried)
            return
        sustained = self._sustained(plan)
        tried = Try(
            margins=margins,
            planned_rps=plan.solve.objective_rps,
            sustained_rps=sustained,
            sustained_weighted_rps=min(
                sustained[model.model] / model.weight for model in plan.models
            ),
        )
        if self._best is None or self._better(tried, self._best[0]):
            self._best = tried, plan
        self._tell(tried)

    def _better(self, one: Try, other: Try) -> bool:
        return one.sustained_weighted_rps > other.sustained_weighted_rps * (1 + _EQUAL)

    def _tell(self, tried: Try) -> None:
        self._tries.append(tried)
        self._on_try(tried)


def promise(plan: Plan, sustained: Rates, batch_build_factor: float) -> Plan:
    """Return the plan with throughputs that it sustains: pipelines carry as much less as needed.

    Batches then take longer to gather. Where the SLO has no room for that the margin gives it.

    Args:
        plan: whose pools stay as they are.
        sustained: samples/s of each model.
        batch_build_factor: of the options that it was planned with.
    """
    models = tuple(
        _promised(model, sustained[model.model], batch_build_factor) for model in plan.models
    )
    value = min(model.throughput_rps / model.weight for model in models)
    solve = plan.solve
    gap = (solve.bound - value) / solve.bound if solve.bound else 0.0
    told = replace(solve, objective_rps=value, value=value, gap=gap, status="feasible")
    return replace(plan, models=models, solve=told)


def _promised(model: ModelPlan, sustained_rps: float, factor: float) -> ModelPlan:
    if sustained_rps >= model.throughput_rps:
        return model
    part = sustained_rps / model.throughput_rps
    pipelines = tuple(_slower(each, model, part, factor) for each in model.pipelines)
    room_us = model.slo_us - max(each.latency_us for each in pipelines)
    return replace(
        model,
        throughput_rps=sustained_rps,
        pipelines=pipelines,
        margin_us=min(model.margin_us, max(0, room_us)),
    )


def _slower(pipeline: Pipeline, model: ModelPlan, part: float, factor: float) -> Pipeline:
    batch = max(model.pool(each).batch for each in pipeline.pools)
    build_us = batch_build_us(batch, part * model.throughput_rps, factor)
    build_us = max(build_us, pipeline.batch_build_us)
    return replace(
        pipeline,
        throughput_rps=part * pipeline.throughput_rps,
        batch_build_us=build_us,
        latency_us=pipeline.latency_us - pipeline.batch_build_us + build_us,
    )
