"""Runs a plan under a load in simulated time."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter

from penstock.arrivals import Law, instants_of
from penstock.domain.arrivals import Arrival
from penstock.domain.errors import InvalidInput, InvalidSettings, UnknownName
from penstock.domain.ids import ModelName, PoolId
from penstock.domain.outcomes import Outcome, Summary, summarise
from penstock.domain.plan import Plan
from penstock.domain.units import Micros
from penstock.policies import batching_policy, routing_policy
from penstock.scheduling.dispatcher import Dispatcher
from simulator.disturbances import Outage, ProfileError, Straggler, check_number
from simulator.engine import Engine
from simulator.fleet import Downtime, Gpu, gpus_of, planned_downtimes, random_downtimes
from simulator.incoming import check_models, requests_of
from simulator.noise import (
    LogNormalJitter,
    Stragglers,
    chained,
    profile_factor,
    real_latencies,
    stream,
)
from simulator.parts import Conditions
from simulator.per_hop import Relay, stage_policy
from simulator.record import Computations
from simulator.run_log import Log
from simulator.world import World, check_all_ended

_LONGEST_US = 10**15


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What surrounds a plan in a simulation.

    Attributes:
        batching: policy; after ``per-hop:``, of each stage for itself.
        jitter_sigma: of the log-normal factor on compute times; 0 for none.
        straggler: which computations take a multiple of their time.
        profile_error: how real latencies differ from the profiled ones. Pools that the plan does
            not have are passed over here; `check` refuses them.
        wire_factor: what the time of transfers between servers is multiplied by.
        fail: what fails when.
        mtbf_us: mean time that each GPU's worker is in operation; None: none fails by chance.
        mttr_us: mean time until one that failed by chance is back.
        detection_us: how long the dispatcher does not hear of a failure.
        warmup_us: requests that arrive earlier are served but not counted.
    """

    batching: str = "reservation"
    routing: str = "least-queueing"
    jitter_sigma: float = 0.0
    straggler: Straggler | None = None
    profile_error: ProfileError | None = None
    wire_factor: float = 1.0
    fail: tuple[Outage, ...] = ()
    mtbf_us: Micros | None = None
    mttr_us: Micros | None = None
    detection_us: Micros = 0
    warmup_us: Micros = 0
    seed: int = 0

    def check(self, plan: Plan | None = None) -> None:
        """See that all it names exists and makes sense, before anything takes long.

        Args:
            plan: that it will surround, if that is known.

        Raises:
            InvalidSettings: a value is out of range, goes without another that it needs, or names
                nothing that is there.
            UnknownName: a policy, a parameter of one or a pool does not exist.
        """
        batching_policy(stage_policy(self.batching) or self.batching)
        routing_policy(self.routing)
        check_number("wire-factor", "", self.wire_factor, 0.001, 1_000)
        check_number("detection", "", self.detection_us, 0, _LONGEST_US)
        _check_repair(self.mtbf_us, self.mttr_us)
        if plan is not None:
            planned_downtimes(gpus_of(plan), self.fail)
            known = {pool.id for model in plan.models for pool in model.pools}
            for each in self.profile_error.pools if self.profile_error else ():
                if each.pool not in known:
                    raise UnknownName("pool of the plan", each.pool, known)


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What came out of one run.

    Attributes:
        outcomes: counted requests, in order of arrival.
        intervals: what was computed, warm-up included.
        span_us: the counted part of the offered load.
        window_us: from when to when computing and queues are counted: that part, or less of it if
            the run was ended before.
        queues: time at each number of waiting samples, by model.
        gpus: what was simulated.
        profile_factors: real by profiled latency, of each pool.
        stragglers: computations that took a multiple of their time, warm-up included.
        losses: how often an instance failed, likewise.
    """

    outcomes: tuple[Outcome, ...]
    intervals: Computations
    span_us: Micros
    window_us: tuple[Micros, Micros]
    queues: Mapping[ModelName, Mapping[int, Micros]]
    gpus: tuple[Gpu, ...]
    profile_factors: Mapping[PoolId, float]
    stragglers: int = 0
    losses: int = 0

    def summary(self, model: ModelName | None = None) -> Summary:
        """Count one model's requests, or all."""
        chosen = [each for each in self.outcomes if model in (None, each.model)]
        return summarise(chosen, self.span_us)

    def utilisation(self) -> dict[str, float]:
        """Return the fraction of the counted time that each instance computed."""
        start_us, end_us = self.window_us
        busy_us, _ = self.intervals.busy_us(start_us, end_us)
        parts = (each / max(1, end_us - start_us) for each in busy_us)
        return dict(sorted(zip(self.intervals.instances, parts, strict=True)))


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
    return sorted(arrivals, key=attrgetter("arrival_us", "model"))


def simulate_plan(
    plan: Plan,
    arrivals: Sequence[Arrival],
    span_us: Micros,
    scenario: Scenario,
    on_progress: Callable[[Micros], None] | None = None,
    most_misses: int | None = None,
    *,
    log: Log | None = None,
) -> Simulation:
    """Serve the arrivals with the plan's fleet, every planned instance ready from the start.

    Args:
        plan: its `slo_us` bounds requests whose arrival names none.
        arrivals: in order of time.
        span_us: time over which the load is offered, warm-up included.
        scenario: policies, what goes wrong, warm-up.
        on_progress: told the simulated instant now and then.
        most_misses: requests that may miss their SLO, warm-up included; with one more the run ends,
            and only what has ended by then is counted.
        log: takes what the dispatcher is told and answers.

    Raises:
        InvalidInput: an arrival names a model that is not in the plan, or the warm-up
            leaves nothing to count.
        InvalidSettings: the scenario contradicts itself, or the plan has not what fails.
        UnknownName: a policy does not exist.
    """
    if span_us <= scenario.warmup_us:
        raise InvalidInput("simulate", "warmup", "less than the duration", f"{span_us} us")
    scenario.check()
    check_models(plan, arrivals)
    batching = stage_policy(scenario.batching)
    relay = None if batching is None else Relay(plan)
    asked, plan = plan, plan if relay is None else relay.plan
    batching = batching or scenario.batching
    dispatcher = Dispatcher(batching_policy(batching), routing_policy(scenario.routing))
    engine = Engine()
    factors = {
        pool.id: profile_factor(scenario.profile_error, pool, scenario.seed)
        for model in plan.models
        for pool in model.pools
    }
    stragglers = _stragglers(scenario)
    gpus = gpus_of(plan)
    conditions = Conditions(
        latencies_us={
            pool.id: real_latencies(pool, factors[pool.id])
            for model in plan.models
            for pool in model.pools
        },
        stretch=_stretch(scenario, stragglers),
        wire_factor=scenario.wire_factor,
        downtimes=_downtimes(scenario, gpus, span_us),
        detection_us=scenario.detection_us,
    )
    window_us = scenario.warmup_us, span_us
    world = World(
        plan, gpus, dispatcher, engine, conditions, window_us, most_misses, relay=relay, log=log
    )
    world.start()
    requests = requests_of(asked, arrivals)
    if relay is None:
        world.offer(requests)
    else:
        world.offer((at_us, relay.first(each)) for at_us, each in requests)
    with _uncollected():
        engine.run(on_progress)
    if not engine.halted:
        check_all_ended(world)
    counted = [each for each in world.outcomes if each.arrival_us >= scenario.warmup_us]
    end_us = min(span_us, engine.now_us) if engine.halted else span_us
    return Simulation(
        outcomes=tuple(sorted(counted, key=attrgetter("arrival_us"))),
        intervals=world.computations,
        span_us=span_us - scenario.warmup_us,
        window_us=(scenario.warmup_us, end_us),
        queues={
            model.model: world.queues[
                model.model if relay is None else relay.first_queue(model.model)
            ].closed(end_us)
            for model in asked.models
        },
        gpus=gpus,
        profile_factors=factors,
        stragglers=stragglers.seen if stragglers else 0,
        losses=world.losses,
    )


@contextmanager
def _uncollected() -> Iterator[None]:
    """Look for no cyclic garbage meanwhile.

    A run makes none, and looking through a million outcomes again and again takes a tenth of it.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _stragglers(scenario: Scenario) -> Stragglers | None:
    if scenario.straggler is None:
        return None
    return Stragglers(scenario.straggler, stream(scenario.seed, "stragglers"))


def _stretch(
    scenario: Scenario, stragglers: Stragglers | None
) -> Callable[[Micros], Micros] | None:
    if scenario.jitter_sigma == 0:
        return None if stragglers is None else stragglers.stretch
    jitter = LogNormalJitter(scenario.jitter_sigma, stream(scenario.seed, "jitter"))
    return jitter.stretch if stragglers is None else chained(jitter.stretch, stragglers.stretch)


def _downtimes(scenario: Scenario, gpus: Sequence[Gpu], span_us: Micros) -> tuple[Downtime, ...]:
    found = planned_downtimes(gpus, scenario.fail)
    if scenario.mtbf_us is not None and scenario.mttr_us is not None:
        found += random_downtimes(gpus, scenario.mtbf_us, scenario.mttr_us, span_us, scenario.seed)
    return tuple(found)


def _check_repair(mtbf_us: Micros | None, mttr_us: Micros | None) -> None:
    if (mtbf_us is None) != (mttr_us is None):
        given, other = ("mttr", "mtbf") if mtbf_us is None else ("mtbf", "mttr")
        raise InvalidSettings(given, "", f"{other} with it", "none")
    for name, value in (("mtbf", mtbf_us), ("mttr", mttr_us)):
        if value is not None and value < 1:
            raise InvalidSettings(name, "", "more than no time", f"{value} us")
