"""Margins that are found, not guessed: plans are simulated, and the one that carries most is kept.

A margin keeps part of the SLO free for queueing, which the planner knows nothing of. Too small, and
requests come late; too large, and GPUs that could serve stand idle. How much is right depends on
the pools, the arrivals and the policy, so each try plans with other margins and simulates what the
plan sustains at the target attainment (PPipe, ATC 2025, takes 40 % of the SLO for all). Two more
things are found the same way: how long batches are expected to gather, and how much less than
planned each model sustains, so that those which queue most are planned most.

Knows neither solver nor simulator: both are handed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from penstock.domain.errors import Infeasible, PlanningFailed
from penstock.domain.ids import ModelName
from penstock.domain.plan import ModelPlan, Pipeline, Plan
from planner.candidates import batch_build_us

MARGINS = (0.4, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05)  # parts of the SLO
FIRST = MARGINS.index(0.2)
BUILD_STEP = 2.0  # between factors of batch building
_EVEN = 0.02  # models whose shares of what was planned differ by no more are sustained alike
_BETTER = 1e-3  # a gain below that is not worth a search
_FACTOR_STEP = 1e-4  # of batch building factors that are lowered

Margins: TypeAlias = Mapping[ModelName, float]  # parts of the SLO
Rates: TypeAlias = Mapping[ModelName, float]  # samples/s
Parts: TypeAlias = Mapping[ModelName, float]  # of what is planned


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a plan is made with.

    Attributes:
        batch_build_factor: of the planner's options.
        sustained: part of its planned throughput that each model is expected to sustain.
    """

    margins: Margins
    batch_build_factor: float
    sustained: Parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One plan.

    Attributes:
        planned_rps: least planned throughput per weight; None: there was no plan.
        sustained_rps: of each model, at the target attainment; empty where it was soon clear that
            the best so far sustains more.
        sustained_weighted_rps: the least of them per weight; 0 where there are none.
    """

    setting: Setting
    planned_rps: float | None
    sustained_rps: Rates
    sustained_weighted_rps: float

    @property
    def margins(self) -> Margins:
        """Margin of each model, as part of its SLO."""
        return self.setting.margins


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The best plan found.

    Attributes:
        plan: it promises each model what it sustains, and no more. Its margins may be a little
            smaller than those it was planned with, and so may the setting's batch building.
        tries: all of them, in order.
    """

    plan: Plan
    setting: Setting
    tries: tuple[Try, ...]

    @property
    def margins(self) -> Margins:
        """Margin of each model that it was planned with, as part of its SLO."""
        return self.setting.margins


class MarginSearch:
    """Looks for the setting whose plan sustains most."""

    def __init__(
        self,
        plan: Callable[[Setting], Plan],
        sustained: Callable[[Plan, float], Rates | None],
        batch_build_factor: float,
        on_try: Callable[[Try], None] = lambda _: None,
    ) -> None:
        """Get ready.

        Args:
            plan: makes the best plan for a setting; raises Infeasible or PlanningFailed.
            sustained: tells what each model of a plan sustains, samples/s; None if one of them
                sustains no more per weight than the number given.
            batch_build_factor: to begin with.
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
        """Return the best plan found: margins for all first, then model by model.

        Args:
            models: of the cluster.
            most_tries: bound of the search.
            go_on: asked before each try once a plan was found; False ends the search.

        Raises:
            PlanningFailed: no margin that was tried has a plan that sustains anything.
        """
        while len(self._tries) < most_tries and (self._best is None or go_on()):
            untried = (each for each in self._candidates(models) if not self._knows(each))
            setting = next(untried, None)
            if setting is None:
                break
            self._try(setting)
        if self._best is None:
            raise PlanningFailed("no margin that was tried has a plan that meets the target")
        best, plan = self._best
        factor = fitting_factor(plan, best.sustained_rps, best.setting.batch_build_factor)
        return Chosen(
            plan=promise(plan, best.sustained_rps, factor),
            setting=replace(best.setting, batch_build_factor=factor),
            tries=tuple(self._tries),
        )

    def _candidates(self, models: Sequence[ModelName]) -> Iterator[Setting]:
        """Yield what might be better than the best so far, the most promising first."""
        alike = dict.fromkeys(models, 1.0)
        if self._best is None:  # smaller margins have more plans
            for place in (*range(FIRST, len(MARGINS)), *range(FIRST - 1, -1, -1)):
                yield self._common(models, place, alike)
            return
        best, plan = self._best
        setting = best.setting
        parts = {
            model.model: best.sustained_rps[model.model] / model.throughput_rps * expected
            for model, expected in zip(plan.models, setting.sustained.values(), strict=True)
        }
        if len(set(setting.margins.values())) == 1:
            place = MARGINS.index(setting.margins[models[0]])
            for step in (1, -1):
                if 0 <= place + step < len(MARGINS):
                    yield self._common(models, place + step, setting.sustained)
        if max(parts.values()) > (1 + _EVEN) * min(parts.values()):
            yield replace(setting, sustained=_rounded(parts))
        yield from self._one_model_each(setting, plan, best.sustained_rps)
        for factor in (setting.batch_build_factor / BUILD_STEP, self._factor, 0.0):
            yield replace(setting, batch_build_factor=factor)
        for place in range(len(MARGINS)):  # there may be a better one behind worse ones
            yield self._common(models, place, alike)

    def _common(self, models: Sequence[ModelName], place: int, sustained: Parts) -> Setting:
        factor = self._best[0].setting.batch_build_factor if self._best else self._factor
        margins = dict.fromkeys(models, MARGINS[place])
        return Setting(margins=margins, batch_build_factor=factor, sustained=sustained)

    def _one_model_each(self, setting: Setting, plan: Plan, rates: Rates) -> Iterator[Setting]:
        """Yield the setting with one margin a step up or down, the worst-off model first."""
        part = {model.model: rates[model.model] / model.throughput_rps for model in plan.models}
        for name in sorted(part, key=lambda each: (part[each], each)):
            place = MARGINS.index(setting.margins[name])
            # A model that sustains less than the others may need a larger margin; the one that
            # sustains most may do with a smaller one.
            steps = (-1, 1) if part[name] <= min(part.values()) else (1, -1)
            for step in steps:
                if 0 <= place + step < len(MARGINS):
                    margins = {**setting.margins, name: MARGINS[place + step]}
                    yield replace(setting, margins=margins)

    def _knows(self, setting: Setting) -> bool:
        return any(each.setting == setting for each in self._tries)

    def _try(self, setting: Setting) -> None:
        planned: Plan | None = None
        rates: Rates | None = None
        least = self._best[0].sustained_weighted_rps * (1 + _BETTER) if self._best else 0.0
        try:
            planned = self._plan(setting)
        except (Infeasible, PlanningFailed):
            pass
        else:
            rates = self._sustained(planned, least)
        tried = Try(
            setting=setting,
            planned_rps=None if planned is None else planned.solve.objective_rps,
            sustained_rps=rates or {},
            sustained_weighted_rps=_least(planned, rates) if planned and rates else 0.0,
        )
        if planned is not None and tried.sustained_weighted_rps > least:
            self._best = tried, planned
        self._tries.append(tried)
        self._on_try(tried)


def _least(plan: Plan, rates: Rates) -> float:
    return min(rates[model.model] / model.weight for model in plan.models)


def _rounded(parts: Parts) -> Parts:
    """Return parts of the greatest one, so coarse that noise seldom makes a new setting."""
    most = max(parts.values())
    return {model: max(0.1, round(part / most, 2)) for model, part in parts.items()}


def fitting_factor(plan: Plan, sustained: Rates, batch_build_factor: float) -> float:
    """Return the factor of batch building, lowered where a plan's SLOs leave no room for it.

    At a small part of the planned rate a batch that gathers in full would come too late. It is
    never waited for: a batch leaves when its first sample has to.

    Args:
        plan: as planned.
        sustained: samples/s of each model.
        batch_build_factor: that it was planned with.
    """
    fitting = [batch_build_factor]
    for model in plan.models:
        rate_rps = min(model.throughput_rps, sustained[model.model])
        for pipeline in model.pipelines:
            waiting = batch_build_us(_batch(pipeline, model), rate_rps, 1.0)
            room_us = model.slo_us - pipeline.latency_us + pipeline.batch_build_us
            if waiting * batch_build_factor > room_us:
                fitting.append(math.floor(room_us / waiting / _FACTOR_STEP) * _FACTOR_STEP)
    return min(fitting)


def promise(plan: Plan, sustained: Rates, batch_build_factor: float) -> Plan:
    """Return the plan with throughputs that it sustains: pipelines carry as much less as needed.

    Batches then take longer to gather. Where the SLO has no room for that the margin gives it.

    Args:
        plan: whose pools stay as they are.
        sustained: samples/s of each model.
        batch_build_factor: that fits (`fitting_factor`).
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
    build_us = batch_build_us(_batch(pipeline, model), part * model.throughput_rps, factor)
    build_us = max(build_us, pipeline.batch_build_us)
    return replace(
        pipeline,
        throughput_rps=part * pipeline.throughput_rps,
        batch_build_us=build_us,
        latency_us=pipeline.latency_us - pipeline.batch_build_us + build_us,
    )


def _batch(pipeline: Pipeline, model: ModelPlan) -> int:
    return max(model.pool(each).batch for each in pipeline.pools)
