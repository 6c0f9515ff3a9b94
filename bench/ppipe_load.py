"""How much load do plans really carry? Ours and the published ones, simulated side by side.

Reads a plan set in the layout of the PPipe artifact and offers load to each model of each
configuration, in steps of a part of what PPipe's plan (``v4``) promises it, from high to low, until
the target attainment is met: the *load factor*. A configuration sustains the least, over its
models, of load factor · promised rate / weight. The yardstick is PPipe's plan under PPipe's rule,
simulated here with the same arrivals. PPipe's study offers no plan more than it promises; ours may
carry more than that, so ``ratio_to_beyond`` compares with a yardstick that is offered more, too.

Prints one JSON line per configuration and a summary line to stdout, a table to stderr, and draws
``ppipe_load.png``. With ``--reference`` it also compares load factors with a table of them. Exits
with 1 if the summary misses a bar that was asked for. See docs/bench.md.

    python bench/ppipe_load.py --data PPipe/data --set maf19 --planner published --policy published
    python bench/ppipe_load.py --data PPipe/data --set maf19 --planner penstock
"""

from __future__ import annotations

import csv
import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.planned import Lines, errors_in_one_line
from penstock.arrivals import law_of
from penstock.console import note
from penstock.domain.errors import InvalidInput, InvalidSettings
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.plan import Plan
from penstock.domain.units import micros_from_seconds
from penstock.options import finite
from penstock.pictures.canvas import GRID, PALETTE, add_axes, new_figure, save
from planner.margin_loop import plan_with_margins
from planner.margins import Chosen
from planner.published import PublishedConfiguration, Scheduler, configurations
from planner.published.plans import plan_of
from simulator.simulate import Scenario
from simulator.sustain import Trial, Trials

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURE = "ppipe_load.png"
YARDSTICK, ROUTING = "published", "least-queueing"  # policies of the yardstick
PLAN_GAP = 3e-3
PLANS = 8  # of the planning time: so much of it may one plan take
TRIAL_US = 15_000_000  # simulated, of each try of margins
OTHER_SEED = 1000
HIGHER = 1.1  # than a plan promises: so much its load may be at first
CLOSE = 0.05  # load factors this close to the reference agree


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


def main(
    *,
    data: Annotated[Path, typer.Option(help="The artifact's data folder, or a clone of it.")],
    plan_set: Annotated[str, typer.Option("--set", help="Plan set, such as maf19.")],
    planner: Annotated[Planner, typer.Option(help="Whose plans.")] = Planner.PUBLISHED,
    scheduler: Annotated[
        Scheduler, typer.Option(help="Which published scheduler's plans.")
    ] = Scheduler.PPIPE,
    policy: Annotated[str, typer.Option(help="Batching policy.")] = "reservation",
    routing: Annotated[str, typer.Option(help="Routing policy.")] = "least-queueing",
    arrivals: Annotated[str, typer.Option(help="Arrival law.")] = "poisson",
    jitter: Annotated[
        float, typer.Option(min=0, callback=finite, help="Sigma of the factor on compute times.")
    ] = 0.0,
    duration: Annotated[
        float, typer.Option(min=1, callback=finite, help="Simulated seconds per trial.")
    ] = 30.0,
    step: Annotated[
        float, typer.Option(min=0.001, max=1, callback=finite, help="Between loads.")
    ] = 0.05,
    target: Annotated[
        float, typer.Option(min=0.01, max=1, callback=finite, help="Attainment to be met.")
    ] = 0.99,
    seed: Annotated[int, typer.Option(min=0, help="Of arrivals and jitter.")] = 0,
    only: Annotated[
        str, typer.Option(help="Configurations: part of their names; nothing: all.")
    ] = "",
    reference: Annotated[
        Path | None, typer.Option(help="CSV of load factors to compare with.")
    ] = None,
    cards: Annotated[
        Cards,
        typer.Option(help="Network cards: of each GPU, as PPipe's simulator has it, or server."),
    ] = Cards.GPU,
    stages: Annotated[
        int | None, typer.Option(min=1, help="Of our plans, at most; else as published.")
    ] = None,
    plan_seconds: Annotated[
        float, typer.Option(min=1, callback=finite, help="For each of our plans.")
    ] = 60.0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    out_dir: Annotated[Path, typer.Option(help="Where lines and picture go.")] = Path(
        "build/bench"
    ),
) -> None:
    """Load published configurations until their requests come too late."""
    with errors_in_one_line():
        scenario = Scenario(batching=policy, routing=routing, jitter_sigma=jitter, seed=seed)
        scenario.check()
        asked = Asked(
            planner=planner,
            scheduler=scheduler,
            trials=Trials(
                law=law_of(arrivals),
                span_us=micros_from_seconds(duration),
                target=target,
                scenario=scenario,
            ),
            step=step,
            cards=cards,
            stages=stages,
            plan_seconds=plan_seconds,
            jobs=jobs,
        )
        known = {} if reference is None else read_reference(reference)
        found = [each for each in configurations(data, plan_set) if only in each.name]
        if not found:
            raise InvalidSettings("--only", "", "part of a configuration's name", repr(only))
        lines = Lines(out_dir / "ppipe_load.jsonl")
        told = list(report(measured(found, asked), lines, known, asked))
        draw(told, out_dir / PICTURE, asked)
        note(f"wrote {out_dir / PICTURE}")


def read_reference(path: Path) -> dict[tuple[str, str, str], float]:
    """Read load factors by plan file, model and scheduler.

    Raises:
        InvalidInput: a column is missing or a number is none.
    """
    known = {}
    with path.open(encoding="utf-8", newline="") as text:
        for number, row in enumerate(csv.DictReader(text), start=2):
            try:
                name = row["plan_file"].rsplit("_", 1)[0]
                factor = float(row["load_factor_pct"]) / 100
                known[name, row["model"], row["scheduler"]] = factor
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                place = f"line {number}"
                expected = "plan_file, model, scheduler, load_factor_pct"
                raise InvalidInput(str(path), place, expected, str(error)) from None
    return known


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


def report(
    found: Iterable[tuple[PublishedConfiguration, dict[str, Any]]],
    lines: Lines,
    known: Mapping[tuple[str, str, str], float],
    asked: Asked,
) -> Iterator[dict[str, Any]]:
    """Print table, lines and summary; yield the lines."""
    sys.stderr.write(f"{'config':60} sustained published ratio  low   high  load factors\n")
    told = []
    for configuration, line in found:
        if known:
            line["reference_load_factor_by_model"] = {
                model: known.get((configuration.name, model, asked.scheduler.value))
                for model in line["load_factor_by_model"]
            }
        note_line(line)
        lines.tell(line)
        told.append(line)
        yield line
    total = summary(told)
    lines.tell(total)
    note(", ".join(f"{key} {value}" for key, value in total.items()))


def note_line(line: Mapping[str, Any]) -> None:
    """Print one row of the table."""
    factors = " ".join(f"{each:.2f}" for each in line["load_factor_by_model"].values())
    ratio = "    -" if line["ratio"] is None else f"{line['ratio']:5.2f}"
    low, high = (
        "    -" if line[key] is None else f"{line[key]:5.1%}"
        for key in ("low_class_utilisation", "high_class_utilisation")
    )
    head = f"{line['config'][:60]:60} {line['sustained_rps']:9.1f} "
    head += f"{line['published_sustained_rps']:9.1f} {ratio} {low} {high}"
    sys.stderr.write(f"{head}  {factors}\n")


def summary(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the summary line."""
    ratios = [line["ratio"] for line in lines if line["ratio"] is not None]
    total: dict[str, Any] = {
        "summary": True,
        "configs": len(lines),
        "mean_ratio": _mean(ratios),
        "min_ratio": min(ratios, default=None),
        "mean_ratio_to_beyond": _mean(_known(lines, "ratio_to_beyond")),
        "min_ratio_to_beyond": min(_known(lines, "ratio_to_beyond"), default=None),
        "mean_low_class_utilisation": _mean(_known(lines, "low_class_utilisation")),
        "published_mean_low_class_utilisation": _mean(
            _known(lines, "published_low_class_utilisation")
        ),
        "mean_load_factor": _mean(
            [each for line in lines for each in line["load_factor_by_model"].values()]
        ),
    }
    pairs = [
        (line["load_factor_by_model"][model], factor)
        for line in lines
        for model, factor in line.get("reference_load_factor_by_model", {}).items()
        if factor is not None
    ]
    if pairs:
        close = sum(abs(ours - theirs) <= CLOSE + 1e-9 for ours, theirs in pairs)
        total |= {
            "cases": len(pairs),
            "reference_mean_load_factor": _mean([theirs for _, theirs in pairs]),
            "within_reference": close,
            "within_reference_fraction": close / len(pairs),
        }
    return total


def _known(lines: Iterable[Mapping[str, Any]], key: str) -> list[float]:
    return [line[key] for line in lines if line.get(key) is not None]


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def draw(lines: Sequence[Mapping[str, Any]], path: Path, asked: Asked) -> None:
    """Draw both plans' sustained rates as bars, one pair per configuration."""
    who = asked.scheduler.value if asked.planner == Planner.PUBLISHED else "Penstock"
    title = "Sustained load"
    target = f"{100 * asked.trials.target:g} %"
    subtitle = f"Greatest weighted rate at which {target} of requests are answered within their SLO"
    figure = new_figure(max(7.0, 0.42 * len(lines) + 2.2), 5.0, title, subtitle)
    axes = add_axes(figure, 0.85, 0.7, 0.4, 1.2)
    series = (
        ("published plan, published rule", "published_sustained_rps"),
        (f"plan: {who}, policy: {asked.trials.scenario.batching}", "sustained_rps"),
    )
    for number, (label, key) in enumerate(series):
        places = [index + (number - 0.5) * 0.38 for index in range(len(lines))]
        heights = [line[key] for line in lines]
        axes.bar(places, heights, width=0.36, color=PALETTE[number], label=label)
    _dress(axes, lines)
    save(figure, path)


def _dress(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    axes.set_xticks(range(len(lines)), [str(number) for number in range(len(lines))])
    axes.set_xlabel("configuration, in the order of the lines")
    axes.set_ylabel("requests per second and unit of weight")
    axes.grid(axis="y", color=GRID)
    axes.set_axisbelow(True)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.01), ncols=2, frameon=False)


if __name__ == "__main__":
    typer.run(main)
