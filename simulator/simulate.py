"""Runs a plan under a load in simulated time."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from penstock.arrivals import Law, instants_of
from penstock.domain.arrivals import Arrival
from penstock.domain.errors import InvalidInput
from penstock.domain.ids import ModelName, RequestId
from penstock.domain.outcomes import Interval, Outcome, Summary, summarise
from penstock.domain.plan import Plan
from penstock.domain.requests import Request
from penstock.domain.units import Micros
from penstock.policies import batching_policy, routing_policy
from penstock.scheduling.dispatcher import Dispatcher
from simulator.engine import Engine
from simulator.noise import LogNormalJitter
from simulator.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What surrounds a plan in a simulation.

    Attributes:
        jitter_sigma: of the log-normal factor on compute times; 0 for none.
        warmup_us: requests that arrive earlier are served but not counted.
    """

    batching: str = "reservation"
    routing: str = "least-queueing"
    jitter_sigma: float = 0.0
    warmup_us: Micros = 0
    seed: int = 0

    def check(self) -> None:
        """See that its policies exist, before anything takes long.

        Raises:
            InvalidSettings: a parameter of one is not valid.
            UnknownName: one does not exist, or a parameter of it.
        """
        batching_policy(self.batching)
        routing_policy(self.routing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What came out of one run.

    Attributes:
        outcomes: counted requests, in order of arrival.
        span_us: the counted part of the offered load.
    """

    outcomes: tuple[Outcome, ...]
    intervals: tuple[Interval, ...]
    span_us: Micros

    def summary(self, model: ModelName | None = None) -> Summary:
        """Count one model's requests, or all."""
        chosen = [each for each in self.outcomes if model in (None, each.model)]
        return summarise(chosen, self.span_us)

    def utilisation(self) -> dict[str, float]:
        """Return the fraction of the span each instance computed."""
        busy: dict[str, int] = {}
        for each in self.intervals:
            busy[each.instance] = busy.get(each.instance, 0) + each.end_us - each.start_us
        end_us = max((each.end_us for each in self.intervals), default=1)
        return {instance: busy_us / end_us for instance, busy_us in sorted(busy.items())}


def planned_load(
    plan: Plan, load: float, duration_us: Micros, law: Law, seed: int
) -> list[Arrival]:
    """Return arrivals for every model at `load` times its planned throughput.

    Raises:
        InvalidSettings: load or duration is not above 0, or both are too much.
    """
    arrivals: list[Arrival] = []
    for number, model in enumerate(plan.models):
        dice = random.Random(seed + number)
        instants = instants_of(law, load * model.throughput_rps, duration_us, dice)
        arrivals.extend(Arrival(arrival_us=at_us, model=model.model) for at_us in instants)
    return sorted(arrivals, key=lambda each: (each.arrival_us, each.model))


def simulate_plan(
    plan: Plan,
    arrivals: Sequence[Arrival],
    span_us: Micros,
    scenario: Scenario,
    on_progress: Callable[[Micros], None] | None = None,
    most_misses: int | None = None,
) -> Simulation:
    """Serve the arrivals with the plan's fleet, every planned instance ready from the start.

    Args:
        plan: its `slo_us` bounds requests whose arrival names none.
        arrivals: in order of time.
        span_us: time over which the load is offered, warm-up included.
        scenario: policies, jitter, warm-up.
        on_progress: told the simulated instant now and then.
        most_misses: requests that may miss their SLO, warm-up included; with one more the run ends,
            and only what has ended by then is counted.

    Raises:
        InvalidInput: an arrival names a model that is not in the plan, or the warm-up
            leaves nothing to count.
        InvalidPlan: the dispatcher cannot serve the plan.
        UnknownName: a policy does not exist.
    """
    if span_us <= scenario.warmup_us:
        raise InvalidInput("simulate", "warmup", "less than the duration", f"{span_us} us")
    dispatcher = Dispatcher(batching_policy(scenario.batching), routing_policy(scenario.routing))
    engine = Engine()
    jitter = LogNormalJitter(scenario.jitter_sigma, scenario.seed)
    world = World(plan, dispatcher, engine, jitter, most_misses)
    world.start()
    world.offer(_requests(plan, arrivals))
    engine.run(on_progress)
    counted = [each for each in world.outcomes if each.arrival_us >= scenario.warmup_us]
    return Simulation(
        outcomes=tuple(sorted(counted, key=lambda each: each.arrival_us)),
        intervals=tuple(world.intervals),
        span_us=span_us - scenario.warmup_us,
    )


def _requests(plan: Plan, arrivals: Sequence[Arrival]) -> list[Request]:
    slos = {model.model: model.slo_us for model in plan.models}
    requests: list[Request] = []
    for number, each in enumerate(arrivals):
        if each.model not in slos:
            raise InvalidInput(
                "trace", f"line {number + 2}", f"a model of {sorted(slos)}", repr(each.model)
            )
        slo_us = each.slo_us if each.slo_us is not None else slos[each.model]
        requests.append(
            Request(
                id=RequestId(number),
                model=each.model,
                samples=each.samples,
                arrival_us=each.arrival_us,
                deadline_us=each.arrival_us + slo_us,
            )
        )
    return requests
