"""How quick is planning beside a running plan, and how many instances does it keep?

A made-up fleet (`bench.fleets`) of three GPU classes is planned. Then the rate or the weight of one
model changes by a fifth, up or down, and the fleet is planned again: with the running plan at hand,
and without. Prints a table to stderr, one JSON line per change and a summary line to stdout.

A rate is changed where rates are asked for (objective ``fewest-gpus``), a weight where throughput
is (``max-min``). Exits with 1 if a plan was not found in
time, has a fault, or was worse than its gap for keeping more.

With ``--prove SECONDS`` it is found out, for each change that kept too few, how many instances a
plan within the gap of the best found can keep: at least, by planning again with so much time, and
at most, by proof (`bench.most_kept`). ``allowed`` is null where that leaves open whether a plan
that is good enough keeps as many as the bar asks for.

    python bench/replan.py --gpus 100 --seeds 3
    python bench/replan.py --gpus 100 --seeds 2 --prove 20
"""

from __future__ import annotations

import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.fleets import A100, L4, T4, Shape, make_fleet
from bench.most_kept import MostKept, most_kept
from bench.planned import Lines, Timed, errors_in_one_line, make_timed, tell_faults
from penstock.console import note
from penstock.domain.cluster import Cluster, Objective, PlannerOptions, ServedModel
from penstock.domain.errors import PlanningFailed
from penstock.domain.plan import Plan
from penstock.options import finite
from planner.inputs import PlannerInputs, Profiles
from planner.replan import Running, running_stages
from planner.search import find_solution
from planner.solution import Solution
from planner.solve import SolverSettings

SHAPE = Shape(kinds=(A100, L4, T4), reference=L4, batches=(1, 2, 4, 8), models=6)
CHANGES = (0.8, 1.2)
BAR_SECONDS, BAR_KEPT = 2.0, 0.8
ASKED = 0.6  # of what the fleet sustains: the rates where fewest GPUs are sought


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One model's weight or rate, times a factor."""

    model: int
    factor: float

    def of(self, cluster: Cluster) -> Cluster:
        """Return the cluster with the change made."""
        models = list(cluster.models)
        models[self.model] = self._changed(models[self.model])
        return replace(cluster, models=tuple(models))

    def _changed(self, model: ServedModel) -> ServedModel:
        if model.rate_rps is None:
            return replace(model, weight=model.weight * self.factor)
        return replace(model, rate_rps=model.rate_rps * self.factor)


def main(
    *,
    gpus: Annotated[int, typer.Option(min=3, help="GPUs of the fleet.")] = 100,
    seeds: Annotated[int, typer.Option(min=1, help="How many fleets.")] = 3,
    models: Annotated[int, typer.Option(min=1, help="Models of each fleet.")] = 6,
    stages: Annotated[int, typer.Option(min=1, help="Stages per pipeline, at most.")] = 2,
    gap: Annotated[
        float, typer.Option(min=0, callback=finite, help="Relative; searches stop there.")
    ] = 1e-2,
    time_limit: Annotated[
        float, typer.Option(min=0, callback=finite, help="Seconds for a first plan.")
    ] = 10.0,
    again_limit: Annotated[
        float, typer.Option(min=0, callback=finite, help="Seconds for planning again.")
    ] = 1.5,
    prove: Annotated[
        float, typer.Option(min=0, callback=finite, help="Seconds for what could be kept; 0: not.")
    ] = 0.0,
    out: Annotated[Path | None, typer.Option(help="File for the same JSON lines.")] = None,
) -> None:
    """Change one model at a time, and plan again."""
    options = PlannerOptions(
        max_stages=stages, max_batch=8, relative_gap=gap, time_limit_s=time_limit
    )
    shape = replace(SHAPE, models=models)
    with errors_in_one_line():
        sys.exit(report(measured(gpus, seeds, shape, options, again_limit, prove), Lines(out)))


def measured(
    gpus: int,
    seeds: int,
    shape: Shape,
    options: PlannerOptions,
    again_limit_s: float,
    prove_s: float = 0.0,
) -> Iterator[dict[str, Any]]:
    """Yield the line of every change: fleet by fleet, objective by objective.

    Where no plan is found in time, the line says so: there is nothing to compare then.

    Raises:
        PlanningFailed: a fleet has no plan for the most throughput, or none was found in time.
    """
    for seed in range(seeds):
        cluster, profiles = make_fleet(gpus, shape, options, seed)
        before = plan_of(cluster, profiles)
        for start in (cluster, with_rates(cluster, before.plan)):
            head = {"gpus": gpus, "seed": seed, "objective": start.options.objective}
            try:
                first = before if start is cluster else plan_of(start, profiles)
            except PlanningFailed as error:
                yield head | {"changed": None, "why_not": str(error)}
                continue
            quick = replace(start, options=replace(start.options, time_limit_s=again_limit_s))
            for change in changes(len(start.models)):
                yield head | replanned(quick, profiles, first, change, prove_s)


def changes(models: int) -> list[Change]:
    """Return the changes to try: every model, down and up."""
    return [Change(model=model, factor=factor) for model in range(models) for factor in CHANGES]


def with_rates(cluster: Cluster, plan: Plan) -> Cluster:
    """Return the cluster asking for rates that its plan could well sustain, with fewest GPUs."""
    rates = {each.model: ASKED * each.throughput_rps for each in plan.models}
    objective: Objective = "fewest-gpus"
    return replace(
        cluster,
        models=tuple(replace(each, rate_rps=rates[each.name]) for each in cluster.models),
        options=replace(cluster.options, objective=objective),
    )


def plan_of(cluster: Cluster, profiles: Profiles, running: Running | None = None) -> Timed:
    """Plan, beside a running plan if there is one.

    Raises:
        PlanningFailed: there is no plan, or none was found in time.
    """

    def maker(inputs: PlannerInputs, settings: SolverSettings) -> Solution:
        return find_solution(inputs, settings, running)

    return make_timed(cluster, profiles, maker, "general", "highs")


def replanned(
    cluster: Cluster, profiles: Profiles, before: Timed, change: Change, prove_s: float = 0.0
) -> dict[str, Any]:
    """Make one change, plan with and without the running plan, and return the line."""
    model, changed = cluster.models[change.model], change.of(cluster)
    running = running_stages(before.plan)
    head = {
        "changed": model.name,
        "what": "weight" if model.rate_rps is None else "rate",
        "factor": change.factor,
    }
    try:
        beside = plan_of(changed, profiles, running)
        afresh = plan_of(changed, profiles)
    except PlanningFailed as error:
        return head | {"why_not": str(error)}
    for timed in (beside, afresh):
        tell_faults(f"{model.name} × {change.factor}", timed.faults)
    total = sum(running.values())
    most = None
    if prove_s and kept(beside.plan, running) < BAR_KEPT * total:
        most = most_of(changed, profiles, running, [beside.plan, afresh.plan], prove_s)
    return (
        head
        | allowed(kept(beside.plan, running), most, total)
        | {
            "seconds": round(beside.seconds, 3),
            "seconds_by_phase": beside.phases,
            "seconds_afresh": round(afresh.seconds, 3),
            "instances": total,
            "instances_after": sum(running_stages(beside.plan).values()),
            "kept": kept(beside.plan, running),
            "kept_fraction": kept(beside.plan, running) / total,
            "kept_fraction_afresh": kept(afresh.plan, running) / total,
            "value": beside.plan.solve.value,
            "value_afresh": afresh.plan.solve.value,
            "bound": afresh.plan.solve.bound,
            "as_good": as_good(beside.plan, afresh.plan, cluster.options.relative_gap),
            "verified": beside.verified and afresh.verified,
        }
    )


def most_of(
    cluster: Cluster,
    profiles: Profiles,
    running: Running,
    plans: Sequence[Plan],
    seconds: float,
) -> MostKept:
    """Return how many instances a plan within the gap of the best that is known can keep."""
    longer = replace(cluster, options=replace(cluster.options, time_limit_s=seconds))
    witness = plan_of(longer, profiles, running).plan
    rising = witness.solve.objective == "max-min"
    best = (max if rising else min)(each.solve.value for each in (*plans, witness))
    gap = cluster.options.relative_gap
    least = best * (1 - gap if rising else 1 + gap)
    proven = most_kept(cluster, profiles, running, least, seconds)
    reaches = witness.solve.value >= least if rising else witness.solve.value <= least
    seen = max(proven.at_least, kept(witness, running) if reaches else 0)
    return MostKept(at_least=seen, at_most=max(seen, proven.at_most))


def allowed(kept_now: int, most: MostKept | None, total: int) -> dict[str, Any]:
    """Return what is known of the most that can be kept; where enough is, no more is asked."""
    known = MostKept(at_least=kept_now, at_most=total) if most is None else most
    return {
        "most_kept_at_least": known.at_least,
        "most_kept_at_most": known.at_most,
        "allowed": known.allows(BAR_KEPT * total),
    }


def kept(plan: Plan, running: Running) -> int:
    """Return how many running instances a plan keeps: same blocks, class and share."""
    wanted = Counter(running_stages(plan))
    return sum((wanted & Counter(running)).values())


def as_good(beside: Plan, afresh: Plan, gap: float) -> bool:
    """Tell whether keeping instances cost no more than the gap, and as much again for keeping."""
    if afresh.solve.objective == "max-min":
        return beside.solve.value >= afresh.solve.value * (1 - gap) * (1 - gap)
    return beside.solve.value <= afresh.solve.value * (1 + gap) * (1 + gap)


def report(lines: Iterator[dict[str, Any]], told: Lines) -> bool:
    """Print table, lines and summary; return whether a plan was missing, faulty or worse."""
    columns = "objective    seed what    model      ×  seconds afresh instances   kept afresh"
    sys.stderr.write(f"{columns}      value / afresh\n")
    seen = []
    for line in lines:
        note_line(line)
        told.tell(line)
        seen.append(line)
    total = summary(seen)
    told.tell(total)
    note(", ".join(f"{key} {value}" for key, value in total.items()))
    return bool(total["not_planned"]) or not (total["all_verified"] and total["all_as_good"])


def summary(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the summary line: figures of the cases that were planned."""
    planned = [line for line in lines if "why_not" not in line]
    seconds = [line["seconds"] for line in planned]
    fractions = [line["kept_fraction"] for line in planned]
    return {
        "summary": True,
        "cases": len(planned),
        "not_planned": len(lines) - len(planned),
        "median_seconds": statistics.median(seconds) if planned else None,
        "max_seconds": max(seconds, default=None),
        "within_bar_seconds": sum(each <= BAR_SECONDS for each in seconds),
        "mean_kept_fraction": _mean(planned, "kept_fraction"),
        "min_kept_fraction": min(fractions, default=None),
        "kept_80": sum(each >= BAR_KEPT for each in fractions),
        "allowed_80": sum(line["allowed"] is True for line in planned),
        "not_allowed_80": sum(line["allowed"] is False for line in planned),
        "mean_kept_fraction_afresh": _mean(planned, "kept_fraction_afresh"),
        "all_as_good": all(line["as_good"] for line in planned),
        "all_verified": all(line["verified"] for line in planned),
        "bar": {"seconds": BAR_SECONDS, "kept_fraction": BAR_KEPT},
    }


def _mean(lines: Sequence[Mapping[str, Any]], key: str) -> float | None:
    return statistics.fmean(line[key] for line in lines) if lines else None


def note_line(line: Mapping[str, Any]) -> None:
    """Print one line of the table to stderr."""
    head = f"{line['objective']:12} {line['seed']:4d}"
    if "why_not" in line:
        changed = "the first plan" if line["changed"] is None else line["changed"]
        sys.stderr.write(f"{head} {changed}: {line['why_not']}\n")
        return
    head += f" {line['what']:7} {line['changed']}"
    seconds = f"{line['factor']:4.1f} {line['seconds']:8.2f} {line['seconds_afresh']:6.2f}"
    parts = f"{line['kept_fraction']:6.1%} {line['kept_fraction_afresh']:6.1%}"
    values = f"{line['value']:10.3f} / {line['value_afresh']:.3f}"
    fault = "" if line["verified"] else "  FAULTY"
    sys.stderr.write(f"{head} {seconds} {line['instances']:9d} {parts} {values}{fault}\n")


if __name__ == "__main__":
    typer.run(main)
