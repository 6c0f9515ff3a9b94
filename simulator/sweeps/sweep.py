"""A sweep: plans, policies and loads, each with each, every one a run under several seeds.

Knows how one run is made and simulated; not in which process, nor what becomes of its rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product

from penstock.arrivals import Law, Replay
from penstock.domain.arrivals import Load
from penstock.domain.errors import InvalidPlan
from penstock.domain.plan import Plan
from penstock.domain.units import Micros
from simulator.load import replayed_load
from simulator.simulate import Scenario, Simulation, planned_load, simulate_plan

ALL = "all"  # stands for every model's requests together

# Seeds lie so far apart because the models of a run draw from its seed, the next one, and so on.
SEED_STEP = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """What is drawn as one line: a plan under two policies.

    Attributes:
        plan: its name in this sweep.
        policy: batching policy, with its parameters.
        routing: routing policy, with its parameters.
    """

    plan: str
    policy: str
    routing: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One simulation of a sweep.

    Attributes:
        load: offered rate by the planned throughput that counts as 1.
        seed: the one that `penstock simulate` takes for the very same run.
    """

    series: Series
    load: float
    seed: int

    def __str__(self) -> str:
        """Return words for messages."""
        plan, policy, routing = self.series.plan, self.series.policy, self.series.routing
        return f"{plan}, {policy}, {routing}, load {self.load:g}, seed {self.seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """All runs of a sweep, and what surrounds them.

    Attributes:
        plans: by name.
        base: the plan whose throughput is a load of 1; None: each plan's own.
        loads: ascending.
        asked: arrivals.
        span_us: time over which a law offers load; a trace brings its own.
        scenario: all but policies and seed.
    """

    plans: Mapping[str, Plan]
    base: Plan | None
    policies: tuple[str, ...]
    routings: tuple[str, ...]
    loads: tuple[float, ...]
    seeds: tuple[int, ...]
    asked: Law | Replay
    span_us: Micros
    scenario: Scenario

    def runs(self) -> tuple[Run, ...]:
        """Return every run, series by series, loads ascending."""
        return tuple(
            Run(series=each, load=load, seed=seed)
            for each in self.series()
            for load, seed in product(self.loads, self.seeds)
        )

    def series(self) -> tuple[Series, ...]:
        """Return every plan with every policy."""
        return tuple(
            Series(plan=plan, policy=policy, routing=routing)
            for plan, policy, routing in product(self.plans, self.policies, self.routings)
        )

    def check(self) -> None:
        """See that every series can be simulated, before anything takes long.

        Raises:
            InvalidInput: the warm-up leaves nothing to count, a parameter is not valid, or a plan
                has not what fails.
            InvalidPlan: a model's name means something else, or the base has other models.
            UnknownName: a policy does not exist, or a parameter of it.
        """
        for name, plan in self.plans.items():
            self._check_models(name, plan)
            self.scenario.check(plan)
        for each in self.series():
            # A law's span is known; a trace's is not before it is replayed.
            span_us = self.scenario.warmup_us + 1
            if not isinstance(self.asked, Replay):
                span_us = self.span_us
            simulate_plan(self.plans[each.plan], (), span_us, self._scenario(each, seed=0))

    def load_of(self, run: Run) -> Load:
        """Return what is offered; the same for each policy, and with a base for each plan."""
        base = self.plans[run.series.plan] if self.base is None else self.base
        if isinstance(self.asked, Replay):
            return replayed_load(base, self.asked, run.load, run.seed)
        arrivals = planned_load(base, run.load, self.span_us, self.asked, run.seed)
        return Load(arrivals=tuple(arrivals), span_us=self.span_us)

    def simulated(self, run: Run) -> Simulation:
        """Return what comes out of a run."""
        offered = self.load_of(run)
        scenario = self._scenario(run.series, run.seed)
        plan = self.plans[run.series.plan]
        return simulate_plan(plan, offered.arrivals, offered.span_us, scenario)

    def opening(self, run: Run, span_us: Micros) -> Simulation:
        """Return what the beginning of a run is, warm-up included."""
        offered = self.load_of(run)
        arrivals = [each for each in offered.arrivals if each.arrival_us < span_us]
        scenario = replace(self._scenario(run.series, run.seed), warmup_us=0)
        span_us = min(span_us, offered.span_us)
        return simulate_plan(self.plans[run.series.plan], arrivals, span_us, scenario)

    def _scenario(self, series: Series, seed: int) -> Scenario:
        return replace(self.scenario, batching=series.policy, routing=series.routing, seed=seed)

    def _check_models(self, name: str, plan: Plan) -> None:
        have = sorted(model.model for model in plan.models)
        if ALL in have:
            raise InvalidPlan(name, "models", f"no model called {ALL!r}, which means all", "one")
        if self.base is None:
            return
        wanted = sorted(model.model for model in self.base.models)
        if have != wanted:
            expected = f"the models of --base: {', '.join(wanted)}"
            raise InvalidPlan(name, "models", expected, ", ".join(have))
