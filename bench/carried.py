"""How much of what plans promise they carry, found by simulation: the work of `ppipe_load`.

Knows nothing of arguments, lines or pictures.
"""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Any

from penstock.domain.errors import InvalidSettings
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.plan import Plan
from planner.margin_loop import plan_with_margins
from planner.margins import Chosen
from planner.published import PublishedConfiguration, Scheduler
from planner.published.plans import plan_of
from simulator.sustain import Trial, Trials

YARDSTICK, ROUTING = "published", "least-queueing"  # policies of the yardstick
PLAN_GAP = 3e-3
PLANS = 8  # of the planning time: so much of it may one plan take
TRIAL_US = 15_000_000  # simulated, of each try of margins
OTHER_SEED = 1000
HIGHER = 1.1  # than a plan promises: so much its load may be at first


class Cards(StrEnum):
    """Who shares a network card."""

    GPU = "gpu"
    SERVER = "server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Planning:
    """A plan of ours to be made: margins found by simulation, with other arrivals than the load's.

    Attributes:
        stages: most per pipeline; None: as published.
        seconds: to search for.
    """

    configuration: PublishedConfiguration
    trials: Trials
    cards: Cards
    stages: int | None
    seconds: float

    def run(self) -> Chosen:
        """Make it."""
        cluster = self.configuration.cluster
        options = replace(
            cluster.options,
            mode="general",
            packing="whole-gpu",
            max_stages=self.stages or cluster.options.max_stages,
            relative_gap=PLAN_GAP,
            time_limit_s=self.seconds / PLANS,
        )
        scenario = replace(self.trials.scenario, seed=self.trials.scenario.seed + OTHER_SEED)
        return plan_with_margins(
            replace(cluster, options=options),
            self.configuration.profiles,
            replace(self.trials, scenario=scenario, span_us=TRIAL_US),
            blocks_digests={},
            seconds=self.seconds,
            as_simulated=partial(with_cards, cards=self.cards),
        )


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
                Planning(
                    configuration=each,
                    trials=asked.trials,
                    cards=asked.cards,
                    stages=asked.stages,
                    seconds=asked.plan_seconds,
                ).run
            )
            for each in (found if asked.planner == Planner.PENSTOCK else ())
        ]
        for number, configuration in enumerate(found):
            started = time.perf_counter()
            chosen = plannings[number].result() if plannings else None
            plan = plan_asked(configuration, asked) if chosen is None else chosen.plan
            # PPipe's study begins at what its plan promises; ours may promise more.
            line = compared(pool, configuration, plan, asked, 1.0 if chosen is None else None)
            yield (
                configuration,
                line
                | {
                    "margins": None if chosen is None else dict(chosen.margins),
                    "tries": None if chosen is None else len(chosen.tries),
                    "seconds": round(time.perf_counter() - started, 2),
                },
            )


def compared(
    pool: Executor,
    configuration: PublishedConfiguration,
    plan: Plan,
    asked: Asked,
    most: float | None,
) -> dict[str, Any]:
    """Load a plan and the yardstick, and return what both sustain."""
    ours = with_cards(plan, asked.cards)
    leading = plan_of(configuration, configuration.leading.scheduler)
    yardstick = with_cards(leading, asked.cards)
    base = yardstick_rates(configuration)
    scenario = replace(asked.trials.scenario, batching=YARDSTICK, routing=ROUTING)
    plain = replace(asked.trials, scenario=scenario)
    lots = [jobs_of(ours, base, asked.trials, asked.step, most)]
    if ours != yardstick or plain != asked.trials:
        lots.append(jobs_of(yardstick, base, plain, asked.step, 1.0))
    beyond = jobs_of(yardstick, base, plain, asked.step) if most is None else []
    futures = [[pool.submit(each.run) for each in lot] for lot in (*lots, beyond)]
    *trials, exceeding = [[future.result() for future in lot] for lot in futures]
    line = line_of(configuration, ours, base, trials[0])
    baseline = line_of(configuration, yardstick, base, trials[-1])
    published = {f"published_{key}": value for key, value in baseline.items()}
    if beyond:
        most_rps = line_of(configuration, yardstick, base, exceeding)["sustained_rps"]
        published["published_beyond_rps"] = most_rps
        published["ratio_to_beyond"] = _ratio(line["sustained_rps"], most_rps)
    return {
        "config": configuration.name,
        **line,
        **published,
        "ratio": _ratio(line["sustained_rps"], baseline["sustained_rps"]),
        "planned_rps": ours.solve.objective_rps,
        "published_planned_rps": yardstick.solve.objective_rps,
    }


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


def with_cards(plan: Plan, cards: Cards) -> Plan:
    """Return the plan on servers of one GPU each, if every GPU has a card of its own."""
    if cards == Cards.SERVER:
        return plan
    alone = tuple(replace(each, gpus_per_server=1) for each in plan.gpu_classes)
    return replace(plan, gpu_classes=alone)


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
