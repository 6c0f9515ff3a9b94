"""Are the planner's plans as good as the published ones? The same inputs, both planners.

Reads a plan set in the layout of the PPipe artifact (see `planner.published`) and plans, for each
configuration, what each published scheduler planned:

* ``v4`` (PPipe): with partitioning, in the mode asked for;
* ``dart-r``: DART-r on the division that the published ``bl`` plan made, else on our own;
* ``bl``: no partition, whole GPUs, in compat mode whatever mode is asked for.

Each is given what its own file says: stages, shares, margin, and the rate at which batches fill.
Prints one JSON line per configuration and scheduler and a summary line to stdout, a table to
stderr. `seconds` runs from inputs in memory to the extracted plan. See docs/bench.md.

    python bench/ppipe_plans.py --data PPipe/data --set maf19
    python bench/ppipe_plans.py --data PPipe/data --set maf19 --mode general --against-compat
    python bench/ppipe_plans.py --data PPipe/data --set maf19 --single-model --margin 0.1 \
        --stages 3 --mode general --only L4-T4
"""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.planned import (
    Formulation,
    Lines,
    Maker,
    Timed,
    errors_in_one_line,
    make_timed,
    tell_faults,
)
from penstock.console import note
from penstock.domain.cluster import Cluster, PlannerMode, PlannerOptions
from penstock.domain.errors import InvalidSettings, PlanningFailed
from penstock.options import finite
from planner.asked import ModeName, Solver
from planner.baselines import no_partition
from planner.candidates import Rates
from planner.dart import Division, gpus_held, plan_dart_r
from planner.inputs import PlannerInputs, Profiles, margin_us
from planner.published import PublishedConfiguration, PublishedPlan, Scheduler, configurations
from planner.search import best_solution, estimate_rates
from planner.solution import Solution
from planner.solve import SolverName, SolverSettings

GAPS: Mapping[str, float] = {"compat": 1e-5, "general": 1e-3}
PAIR = 2  # stages of DART-r
SAME = 1e-9  # relative: closer than this, two objectives are the same
INDEXES = re.compile(r"\d+(?:,\d+)*")
WEIGHTS = re.compile(r"_[0-9.]+(?:-[0-9.]+)*(?=_)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked for on the command line.

    Attributes:
        stages, margin: None: as in the files.
    """

    mode: PlannerMode
    solver: SolverName
    time_limit_s: float
    gap: float
    stages: int | None = None
    margin: float | None = None
    against_compat: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One configuration and scheduler.

    Attributes:
        cluster: with the options that the scheduler plans by.
        rates: at which batches fill; None: to be estimated.
        published_rps: None: nobody planned this.
        division: of the GPUs, for DART-r; None: our own.
    """

    config: str
    scheduler: Scheduler
    cluster: Cluster
    profiles: Profiles
    rates: Rates | None
    published_rps: float | None
    division: Division | None = None


def main(
    *,
    data: Annotated[Path, typer.Option(help="The artifact's data folder, or a clone of it.")],
    plan_set: Annotated[str, typer.Option("--set", help="A folder of plans, such as maf19.")],
    stages: Annotated[
        int | None, typer.Option(min=1, help="Stages of PPipe's pipelines; else as in the file.")
    ] = None,
    mode: Annotated[ModeName, typer.Option(help="How PPipe's plans are made.")] = ModeName.COMPAT,
    time_limit: Annotated[
        float, typer.Option(min=0, callback=finite, help="Seconds to search, per plan.")
    ] = 60.0,
    gap: Annotated[
        float | None,
        typer.Option(min=0, callback=finite, help="Relative; else 1e-5, or 1e-3 in general mode."),
    ] = None,
    solver: Annotated[Solver, typer.Option(help="Which solver searches.")] = Solver.HIGHS,
    only: Annotated[
        str, typer.Option(help="Part of a configuration's name, or indexes from 0 with commas.")
    ] = "",
    margin: Annotated[
        float | None,
        typer.Option(
            min=0, max=0.999, callback=finite, help="Part of the SLO; else as in the file."
        ),
    ] = None,
    single_model: Annotated[
        bool, typer.Option("--single-model", help="Each model alone on its whole cluster.")
    ] = False,
    against_compat: Annotated[
        bool, typer.Option("--against-compat", help="In general mode: compare with compat mode.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="File for the same JSON lines.")] = None,
) -> None:
    """Plan what was published, and compare."""
    asked = Asked(
        mode=mode.value,
        solver=solver.value,
        time_limit_s=time_limit,
        gap=GAPS[mode] if gap is None else gap,
        stages=stages,
        margin=margin,
        against_compat=against_compat and mode == ModeName.GENERAL,
    )
    with errors_in_one_line():
        found = configurations(data, plan_set)
        cases = alone(found, asked) if single_model else published(found, asked)
        sys.exit(run(chosen(cases, only), asked, Lines(out)))


def published(found: Iterable[PublishedConfiguration], asked: Asked) -> list[Case]:
    """Return what was published as cases, by configuration and scheduler."""
    return [
        _case(configuration, plan, asked)
        for configuration in found
        for plan in configuration.plans.values()
    ]


def _case(configuration: PublishedConfiguration, plan: PublishedPlan, asked: Asked) -> Case:
    options = _options(plan.cluster.options, plan.scheduler, asked)
    cluster = replace(plan.cluster, options=options)
    bare = configuration.plans.get(Scheduler.NO_PARTITION)
    pairs = plan.scheduler == Scheduler.DART_R
    return Case(
        config=configuration.name,
        scheduler=plan.scheduler,
        cluster=cluster,
        profiles=configuration.profiles,
        rates=plan.rates if _as_published(plan, cluster) else None,
        published_rps=plan.objective_rps,
        division=bare.gpus() if pairs and bare is not None else None,
    )


def _options(given: PlannerOptions, scheduler: Scheduler, asked: Asked) -> PlannerOptions:
    partitioned = scheduler == Scheduler.PPIPE
    stages = {Scheduler.NO_PARTITION: 1, Scheduler.DART_R: max(PAIR, given.max_stages)}
    general = partitioned and asked.mode == "general"
    return replace(
        given,
        mode="general" if general else "compat",
        packing="whole-gpu" if general else "per-stage",
        max_stages=stages.get(scheduler, asked.stages or given.max_stages),
        slo_margin=given.slo_margin if asked.margin is None else asked.margin,
        time_limit_s=asked.time_limit_s,
        relative_gap=asked.gap,
    )


def _as_published(plan: PublishedPlan, cluster: Cluster) -> bool:
    """Tell whether the margins are those that the published rates were found with."""
    kept = cluster.options.slo_margin
    same_fraction = kept == plan.cluster.options.slo_margin
    return same_fraction or all(
        margin_us(each.slo_us, kept) == plan.margins_us[each.name] for each in cluster.models
    )


def alone(found: Iterable[PublishedConfiguration], asked: Asked) -> list[Case]:
    """Return each model of the configurations alone on its cluster, once, as PPipe plans it."""
    cases: dict[str, Case] = {}
    for configuration in found:
        cluster = configuration.cluster
        options = _options(cluster.options, Scheduler.PPIPE, asked)
        for model in cluster.models:
            config = f"{model.name}{_fleet_part(configuration)}"
            case = Case(
                config=config,
                scheduler=Scheduler.PPIPE,
                cluster=replace(cluster, models=(replace(model, weight=1.0),), options=options),
                profiles=configuration.profiles,
                rates=None,
                published_rps=None,
            )
            cases.setdefault(config, case)
    return list(cases.values())


def _fleet_part(configuration: PublishedConfiguration) -> str:
    """Return a configuration's name from the GPU classes on."""
    models = "-".join(each.name for each in configuration.cluster.models)
    return WEIGHTS.sub("", configuration.name.removeprefix(models), count=1)


def chosen(cases: Sequence[Case], only: str) -> list[Case]:
    """Return the cases of the configurations that were asked for.

    Raises:
        InvalidSettings: there are none.
    """
    names = list(dict.fromkeys(each.config for each in cases))
    if INDEXES.fullmatch(only):
        wanted = set(map(int, only.split(",")))
        kept = {name for index, name in enumerate(names) if index in wanted}
        if len(kept) < len(wanted):
            expected = f"indexes below {len(names)}, the number of configurations"
            raise InvalidSettings("--only", "", expected, only)
    else:
        kept = {name for name in names if only in name}
    if not kept:
        expected = f"part of the name of one of {len(names)} configurations"
        raise InvalidSettings("--only", "", expected, repr(only))
    return [each for each in cases if each.config in kept]


def run(cases: Sequence[Case], asked: Asked, lines: Lines) -> bool:
    """Plan all cases and print them; return whether general mode was worse than compat mode."""
    width = min(60, max(len(each.config) for each in cases))
    head = f"{'config':{width}} {'who':6} {'rps':>10} {'published':>10}   ratio      gap seconds"
    sys.stderr.write(head + "\n")
    told = []
    for case in cases:
        line = compared(case, asked)
        note_line(line, width)
        lines.tell(line)
        told.append(line)
    total = summary(told)
    lines.tell(total)
    note(", ".join(f"{key} {_short(value)}" for key, value in _plain(total)))
    worse = [line["config"] for line in told if line.get("gain_over_compat", 1.0) < 1 - SAME]
    if worse:
        note(f"general mode is below compat mode in {len(worse)}: {worse[0]}")
    return bool(worse)


def compared(case: Case, asked: Asked) -> dict[str, Any]:
    """Plan one case and return its line; where there is no plan, the line says why not."""
    line: dict[str, Any] = {"config": case.config, "scheduler": case.scheduler.value}
    try:
        timed = planned(case, asked.solver)
    except PlanningFailed as error:
        return line | _nothing(case.published_rps) | {"why_not": str(error)}
    solve = timed.plan.solve
    tell_faults(case.config, timed.faults)
    line |= {
        "objective_rps": solve.objective_rps,
        "published_rps": case.published_rps,
        "ratio": _ratio(solve.objective_rps, case.published_rps),
        "bound_rps": solve.bound,
        "gap": solve.gap,
        "seconds": round(timed.seconds, 4),
        "verified": timed.verified,
    }
    if case.scheduler == Scheduler.DART_R:
        line["division"] = "computed" if case.division is None else "published"
    if asked.against_compat and case.scheduler == Scheduler.PPIPE:
        line |= _against_compat(case, asked, solve.objective_rps)
    return line


def _nothing(published_rps: float | None) -> dict[str, Any]:
    keys = ("objective_rps", "published_rps", "ratio", "bound_rps", "gap", "seconds")
    return dict.fromkeys(keys) | {"published_rps": published_rps, "verified": False}


def _ratio(ours: float, theirs: float | None) -> float | None:
    return ours / theirs if theirs else None


def _against_compat(case: Case, asked: Asked, general_rps: float) -> dict[str, Any]:
    """Plan the case in compat mode too."""
    options = replace(case.cluster.options, mode="compat", packing="per-stage")
    options = replace(options, relative_gap=min(asked.gap, GAPS["compat"]))
    compat = planned(replace(case, cluster=replace(case.cluster, options=options)), asked.solver)
    tell_faults(f"{case.config} (compat)", compat.faults)
    compat_rps = compat.plan.solve.objective_rps
    return {
        "compat_rps": compat_rps,
        "compat_verified": compat.verified,
        "gain_over_compat": general_rps / compat_rps,
    }


def planned(case: Case, solver: SolverName) -> Timed:
    """Plan one case.

    Raises:
        PlanningFailed: there is no plan, or none was found in time.
    """
    makers: dict[Scheduler, tuple[Maker, Formulation]] = {
        Scheduler.PPIPE: (partial(_partitioned, case), case.cluster.options.mode),
        Scheduler.NO_PARTITION: (partial(_whole, case), "no-partition"),
        Scheduler.DART_R: (partial(_paired, case), "dart-r"),
    }
    maker, formulation = makers[case.scheduler]
    return make_timed(case.cluster, case.profiles, maker, formulation, solver)


def _partitioned(case: Case, inputs: PlannerInputs, settings: SolverSettings) -> Solution:
    return best_solution(inputs, _rates(case, inputs, settings), settings)


def _whole(case: Case, inputs: PlannerInputs, settings: SolverSettings) -> Solution:
    return best_solution(no_partition(inputs), _rates(case, inputs, settings), settings)


def _paired(case: Case, inputs: PlannerInputs, settings: SolverSettings) -> Solution:
    rates = _rates(case, inputs, settings)
    division = case.division
    if division is None:
        division = gpus_held(best_solution(no_partition(inputs), rates, settings).instances)
    return plan_dart_r(inputs, rates, division)


def _rates(case: Case, inputs: PlannerInputs, settings: SolverSettings) -> Rates:
    return estimate_rates(inputs, settings) if case.rates is None else case.rates


def summary(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the summary line: all lines, and seconds of partitioned plans where there are any."""
    partitioned = [each for each in lines if each["scheduler"] == Scheduler.PPIPE.value]
    who = dict.fromkeys(each["scheduler"] for each in lines)
    total = {
        "summary": True,
        "configs": len({each["config"] for each in lines}),
        "lines": len(lines),
        **_figures(lines),
        **_seconds(partitioned or lines),
        "by_scheduler": {
            name: _figures(own) | _seconds(own)
            for name in who
            for own in ([each for each in lines if each["scheduler"] == name],)
        },
    }
    gains = _known(lines, "gain_over_compat")
    if gains:
        total["mean_gain_over_compat"] = statistics.fmean(gains)
        total["min_gain_over_compat"] = min(gains)
        total["never_below_compat"] = min(gains) >= 1 - SAME
    return total


def _figures(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    ratios = _known(lines, "ratio")
    return {
        "min_ratio": min(ratios, default=None),
        "mean_ratio": statistics.fmean(ratios) if ratios else None,
        "max_gap": max(_known(lines, "gap"), default=None),
        "all_verified": all(
            each["verified"] and each.get("compat_verified", True) for each in lines
        ),
    }


def _seconds(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    seconds = _known(lines, "seconds")
    return {
        "median_seconds": statistics.median(seconds) if seconds else None,
        "max_seconds": max(seconds, default=None),
    }


def _known(lines: Iterable[Mapping[str, Any]], key: str) -> list[float]:
    return [each[key] for each in lines if each.get(key) is not None]


def note_line(line: Mapping[str, Any], width: int) -> None:
    """Print one line of the table to stderr."""
    head = f"{line['config']:{width}.{width}} {line['scheduler']:6}"
    if "why_not" in line:
        sys.stderr.write(f"{head} {line['why_not']}\n")
        return
    figures = f"{line['objective_rps']:10.3f} {line['published_rps'] or 0:10.3f}"
    gain = line.get("gain_over_compat")
    more = "" if gain is None else f"  {gain:.4f} × compat"
    fault = "" if line["verified"] else "  FAULTY"
    rest = f"{line['ratio'] or 0:7.5f} {line['gap']:8.1e} {line['seconds']:7.2f}{more}{fault}"
    sys.stderr.write(f"{head} {figures} {rest}\n")


def _plain(total: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    return ((key, each) for key, each in total.items() if not isinstance(each, dict))


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    typer.run(main)
