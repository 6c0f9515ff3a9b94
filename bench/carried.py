"""How much of what plans promise they carry, found by simulation: the work of `ppipe_load`.

Knows nothing of arguments, lines or pictures.
"""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Generic, TypeVar

from bench.carried_plans import Cards, NoPlan, Planning, with_cards
from penstock.domain.errors import InvalidSettings
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.plan import Plan
from planner.margins import Chosen
from planner.published import PublishedConfiguration, Scheduler
from planner.published.plans import plan_of
from simulator.sustain import Trial, Trials

T = TypeVar("T")

YARDSTICK, ROUTING = "published", "least-queueing"  # policies of the yardstick
HIGHER = 1.1  # than a plan promises: so much its load may be at first


class Planner(StrEnum):
    """Whose plans are loaded."""

    PUBLISHED = "published"
    PENSTOCK = "penstock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the arguments ask for.

    Attributes:
        step: between loads, as a part of the promised rate.
    """

    planner: Planner
    scheduler: Scheduler
    trials: Trials
    step: float
    cards: Cards
    stages: int | None
    plan_seconds: float
    jobs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The load of one model to be found."""

    plan: Plan
    model: ModelName
    base_rps: float
    loads: tuple[float, ...]
    trials: Trials

    def run(self) -> Trial | None:
        """Find it."""
        return self.trials.sustained(self.plan, self.model, self.base_rps, self.loads)


def measured(
    found: Sequence[PublishedConfiguration], asked: Asked
) -> Iterator[tuple[PublishedConfiguration, dict[str, Any]]]:
    """Yield each configuration with its line, in order; the processes work ahead."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(asked.jobs, mp_context=context) as pool:
        plannings = [
            pool.submit(
                timed,
                Planning(
                    configuration=each,
                    trials=asked.trials,
                    cards=asked.cards,
                    stages=asked.stages,
                    seconds=asked.plan_seconds,
                ).run,
            )
            for each in (found if asked.planner == Planner.PENSTOCK else ())
        ]
        for number, configuration in enumerate(found):
            planning = plannings[number].result() if plannings else None
            yield configuration, compared(pool, configuration, planning, asked)


@dataclass(frozen=True, slots=True)
class Timed(Generic[T]):
    """What a process found, and the seconds it took."""

    found: T
    seconds: float


def timed(work: Callable[[], T]) -> Timed[T]:
    """Do some work and take its time: in the process that does it, so that no wait counts."""
    started = time.perf_counter()
    found = work()
    return Timed(found, time.perf_counter() - started)


def compared(
    pool: Executor,
    configuration: PublishedConfiguration,
    planning: Timed[Chosen | NoPlan] | None,
    asked: Asked,
) -> dict[str, Any]:
    """Load a plan and the yardstick, and return the line of what both sustain.

    Args:
        pool: of processes.
        configuration: whose.
        planning: of our plan; None: PPipe's is loaded.
        asked: how.
    """
    ours, head = chosen_plan(configuration, planning, asked)
    yardstick = with_cards(plan_of(configuration, configuration.leading.scheduler), asked.cards)
    base = yardstick_rates(configuration)
    scenario = replace(asked.trials.scenario, batching=YARDSTICK, routing=ROUTING)
    plain = replace(asked.trials, scenario=scenario)

    def submitted(plan: Plan, trials: Trials, most: float | None) -> Loading:
        return Loading(pool, configuration, plan, trials, asked.step, most)

    # PPipe's study begins at what its plan promises; ours may promise more.
    own = None if ours is None else submitted(ours, asked.trials, 1.0 if planning is None else None)
    same = ours == yardstick and plain == asked.trials
    standard = own if own and same else submitted(yardstick, plain, 1.0)
    beyond = None if planning is None else submitted(yardstick, plain, None)
    line = nothing(base) if own is None else own.line()
    baseline = standard.line()
    published = {f"published_{key}": value for key, value in baseline.items()}
    if beyond is not None:
        most_rps = beyond.line()["sustained_rps"]
        published["published_beyond_rps"] = most_rps
        published["ratio_to_beyond"] = _ratio(line["sustained_rps"], most_rps)
    loadings = {each for each in (own, standard, beyond) if each is not None}
    seconds = sum(each.seconds for each in loadings)
    return {
        "config": configuration.name,
        **line,
        **published,
        "ratio": _ratio(line["sustained_rps"], baseline["sustained_rps"]),
        "planned_rps": None if ours is None else ours.solve.objective_rps,
        "published_planned_rps": yardstick.solve.objective_rps,
        **head,
        "seconds": round(seconds + (planning.seconds if planning else 0.0), 2),
    }


def chosen_plan(
    configuration: PublishedConfiguration, planning: Timed[Chosen | NoPlan] | None, asked: Asked
) -> tuple[Plan | None, dict[str, Any]]:
    """Return the plan to be loaded, and what the line says of its making."""
    if planning is None:
        plan = with_cards(plan_asked(configuration, asked), asked.cards)
        return plan, {"margins": None, "tries": None}
    chosen = planning.found
    if isinstance(chosen, NoPlan):
        return None, {"margins": None, "tries": None, "why_not": chosen.reason}
    head = {"margins": dict(chosen.margins), "tries": len(chosen.tries)}
    return with_cards(chosen.plan, asked.cards), head


def yardstick_rates(configuration: PublishedConfiguration) -> dict[ModelName, float]:
    """Return what the yardstick's plan promises each model, samples/s."""
    return dict(configuration.leading.throughputs)


def plan_asked(configuration: PublishedConfiguration, asked: Asked) -> Plan:
    """Return the plan that is to be loaded.

    Raises:
        InvalidSettings: the set has no plan of the scheduler asked for.
    """
    if asked.scheduler not in configuration.plans:
        have = ", ".join(each.value for each in configuration.plans)
        raise InvalidSettings("--scheduler", "", f"one of {have}", asked.scheduler.value)
    return plan_of(configuration, asked.scheduler)


def jobs_of(
    plan: Plan,
    base: Mapping[ModelName, float],
    trials: Trials,
    step: float,
    most: float | None = None,
) -> list[Job]:
    """Return one job per model: loads from `most`, or else what the plan could carry, down."""
    jobs = []
    for model in plan.models:
        rate = base[model.model]
        highest = most or max(1.0, HIGHER * model.throughput_rps / rate)
        steps = math.ceil(highest / step - 1e-9)
        loads = tuple(number * step for number in range(steps, 0, -1))
        jobs.append(Job(plan=plan, model=model.model, base_rps=rate, loads=loads, trials=trials))
    return jobs


class Loading:
    """A plan that is being loaded, each model in a process of the pool.

    Args:
        pool: of processes.
        configuration: whose plan it is.
        plan: as simulated.
        trials: how it is loaded.
        step: between loads.
        most: the first load; None: what the plan could carry.
    """

    def __init__(
        self,
        pool: Executor,
        configuration: PublishedConfiguration,
        plan: Plan,
        trials: Trials,
        step: float,
        most: float | None,
    ) -> None:
        self._configuration, self._plan = configuration, plan
        self._base = yardstick_rates(configuration)
        jobs = jobs_of(plan, self._base, trials, step, most)
        self._futures = [pool.submit(timed, each.run) for each in jobs]

    @property
    def seconds(self) -> float:
        """What the loads took, one after the other."""
        return sum(each.result().seconds for each in self._futures)

    def line(self) -> dict[str, Any]:
        """Return what the plan sustains, once that is known."""
        trials = [each.result().found for each in self._futures]
        return line_of(self._configuration, self._plan, self._base, trials)


def nothing(base: Mapping[ModelName, float]) -> dict[str, Any]:
    """Return what no plan sustains."""
    return {
        "sustained_rps": 0.0,
        "load_factor_by_model": dict.fromkeys(base, 0.0),
        "low_class_utilisation": None,
        "high_class_utilisation": None,
    }


def line_of(
    configuration: PublishedConfiguration,
    plan: Plan,
    base: Mapping[ModelName, float],
    trials: Sequence[Trial | None],
) -> dict[str, Any]:
    """Return what one plan sustains."""
    weights = {each.name: each.weight for each in configuration.cluster.models}
    factors = {
        model.model: 0.0 if trial is None else trial.load
        for model, trial in zip(plan.models, trials, strict=True)
    }
    low, high = classes(configuration)
    return {
        "sustained_rps": min(
            factor * base[name] / weights[name] for name, factor in factors.items()
        ),
        "load_factor_by_model": factors,
        "low_class_utilisation": utilisation(plan, trials, low),
        "high_class_utilisation": utilisation(plan, trials, high),
    }


def classes(
    configuration: PublishedConfiguration,
) -> tuple[frozenset[GpuClassName], frozenset[GpuClassName]]:
    """Return the slower and the faster GPU classes: the fastest alone is high."""
    total: dict[GpuClassName, float] = {}
    for (_, gpu_class), profile in configuration.profiles.items():
        whole = [row for row in profile.rows if row.batch == 1 and row.share == 1]
        total[gpu_class] = total.get(gpu_class, 0) + sum(row.latency_mean_us for row in whole)
    fastest = min(total, key=lambda name: (total[name], name))
    return frozenset(total) - {fastest}, frozenset({fastest})


def utilisation(
    plan: Plan, trials: Iterable[Trial | None], names: frozenset[GpuClassName]
) -> float | None:
    """Return the part of the time that the fleet's GPUs of some classes computed."""
    gpus = sum(each.count for each in plan.gpu_classes if each.name in names)
    if not gpus:
        return None
    busy = sum(
        trial.busy_us.get(name, 0.0) / trial.span_us
        for trial in trials
        if trial is not None
        for name in names
    )
    return busy / gpus


def _ratio(ours: float, theirs: float) -> float | None:
    return ours / theirs if theirs else None
