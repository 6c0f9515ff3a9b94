"""How do time, gap and memory grow with the fleet? Made-up fleets of five GPU classes.

Each fleet has 20 models of ten blocks (`bench.fleets`), at most three stages, shares down to a
quarter, batches up to 32; the mode is general, the objective max-min. Each size is planned in a
process of its own, so that its peak memory is its own. Prints a table to stderr, one JSON line per
size and a summary line to stdout, and draws ``planner_scale.png``. `gap` is against the bound of
the linear relaxation. Exits with 1 if the largest fleet misses the bar, a
plan has a fault, or a fleet got none in time.

    python bench/planner_scale.py --gpus 50,100,200,500,1000
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.fleets import Shape, make_fleet
from bench.planned import Lines, errors_in_one_line, make_timed, tell_faults
from penstock.console import note, show_text
from penstock.domain.cluster import PlannerOptions
from penstock.domain.errors import InvalidSettings, PlanningFailed
from penstock.options import finite
from penstock.pictures.canvas import FAINT, GRID, PALETTE, add_axes, new_figure, save
from planner.enumeration import enumerate_paths
from planner.inputs import PlannerInputs
from planner.optimise import optimise
from planner.paths import PathTable
from planner.relaxation import relax
from planner.search import estimate_rates
from planner.solution import Solution
from planner.solve import SolverSettings
from planner.sought import task_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAR_GAP, BAR_SECONDS, BAR_GIB = 0.01, 60.0, 4.0
KIB_PER_GIB = 1 << 20
PICTURE = "planner_scale.png"
SEED = 1


def main(
    *,
    gpus: Annotated[str, typer.Option(help="Sizes of fleets, with commas.")] = (
        "50,100,200,500,1000"
    ),
    out_dir: Annotated[Path, typer.Option(help="Where lines and picture go.")] = Path(
        "build/bench"
    ),
    models: Annotated[int, typer.Option(min=1, help="How many models.")] = 20,
    stages: Annotated[int, typer.Option(min=1, help="Stages per pipeline, at most.")] = 3,
    max_batch: Annotated[int, typer.Option(min=1, help="Largest batch.")] = 32,
    gap: Annotated[
        float, typer.Option(min=0, callback=finite, help="Relative; the search stops there.")
    ] = BAR_GAP,
    time_limit: Annotated[
        float, typer.Option(min=0, callback=finite, help="Seconds to search.")
    ] = BAR_SECONDS,
    seed: Annotated[int, typer.Option(help="Of the models.")] = SEED,
    here: Annotated[
        bool, typer.Option("--here", help="Plan the one size in this process; print its line.")
    ] = False,
) -> None:
    """Plan fleets of growing size."""
    options = PlannerOptions(
        max_stages=stages, max_batch=max_batch, relative_gap=gap, time_limit_s=time_limit
    )
    with errors_in_one_line():
        sizes = sizes_of(gpus)
        if here:
            for size in sizes:
                show_text(json.dumps(measured(size, Shape(models=models), options, seed)))
            return
        arguments = {
            "--models": models,
            "--stages": stages,
            "--max-batch": max_batch,
            "--gap": gap,
            "--time-limit": time_limit,
            "--seed": seed,
        }
        lines = (in_child(size, arguments) for size in sizes)
        sys.exit(report(lines, sizes, out_dir))


def sizes_of(text: str) -> list[int]:
    """Read sizes of fleets.

    Raises:
        InvalidSettings: they are not numbers, or a fleet could not have a GPU of each class.
    """
    least = len(Shape().kinds)
    sizes = [int(each) if each.strip().isdecimal() else 0 for each in text.split(",")]
    if min(sizes) < least:
        raise InvalidSettings("--gpus", "", f"numbers of at least {least}, with commas", text)
    return sizes


def in_child(size: int, arguments: Mapping[str, object]) -> dict[str, Any]:
    """Measure one size in a process of its own.

    Raises:
        PlanningFailed: it came to no line; its error is on stderr.
    """
    command = [sys.executable, __file__, "--here", "--gpus", str(size)]
    command += [str(word) for pair in arguments.items() for word in pair]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise PlanningFailed(f"no figures for {size} GPUs (exit code {done.returncode})")
    line: dict[str, Any] = json.loads(done.stdout)
    return line


def measured(size: int, shape: Shape, options: PlannerOptions, seed: int) -> dict[str, Any]:
    """Plan one fleet and return its line; where no plan is found, the line says why not."""
    cluster, profiles = make_fleet(size, shape, options, seed)
    head = {"gpus": size, "models": len(cluster.models)}
    maker = Maker()
    try:
        timed = make_timed(cluster, profiles, maker, "general", "highs")
    except PlanningFailed as error:
        return head | {"why_not": str(error), "peak_rss_gib": round(_peak_gib(), 3)}
    peak_gib = _peak_gib()
    tell_faults(f"{size} GPUs", timed.faults)
    solve = timed.plan.solve
    bound = maker.relaxed_bound(cluster.options)
    return head | {
        "paths": sum(map(len, maker.tables)),
        "value": solve.value,
        "bound": bound,
        "gap": 1 - solve.value / bound,
        "proven_bound": solve.bound,
        "proven_gap": solve.gap,
        "seconds": round(timed.seconds, 3),
        "seconds_by_phase": {key: round(each, 3) for key, each in maker.phases.items()}
        | timed.phases,
        "peak_rss_gib": round(peak_gib, 3),
        "instances": sum(pool.instances for each in timed.plan.models for pool in each.pools),
        "verified": timed.verified,
    }


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB_PER_GIB


class Maker:
    """Plans as `planner.search.best_solution` does, and remembers what that went through.

    Attributes:
        tables: the paths of each model.
        phases: seconds before the search.
    """

    def __init__(self) -> None:
        self.tables: tuple[PathTable, ...] = ()
        self.phases: dict[str, float] = {}
        self._inputs: PlannerInputs | None = None

    def __call__(self, inputs: PlannerInputs, settings: SolverSettings) -> Solution:
        """Return the best solution found in time.

        Raises:
            PlanningFailed: there is none, or none was found.
        """
        self._inputs = inputs
        started = time.perf_counter()
        rates = estimate_rates(inputs, settings)
        estimated = time.perf_counter()
        self.tables = enumerate_paths(inputs, rates)
        enumerated = time.perf_counter()
        self.phases = {"rates": estimated - started, "enumeration": enumerated - estimated}
        solution = optimise(task_of(inputs), self.tables, settings)
        if solution is None:
            raise PlanningFailed("this fleet cannot serve these models; take more GPUs")
        return solution

    def relaxed_bound(self, options: PlannerOptions) -> float:
        """Return the bound of the linear relaxation over the same paths.

        Raises:
            PlanningFailed: nothing was planned.
        """
        found = None if self._inputs is None else relax(task_of(self._inputs), self.tables)
        if found is None:
            raise PlanningFailed(f"no {options.objective} plan was made")
        return found.bound


def report(lines: Iterable[dict[str, Any]], sizes: Sequence[int], out_dir: Path) -> bool:
    """Print table, lines and summary, and draw; return whether the bar was missed."""
    sys.stderr.write("  GPUs      paths       value       bound      gap  seconds  peak GiB\n")
    told = Lines(out_dir / "planner_scale.jsonl")
    planned = []
    for line in lines:
        note_line(line)
        told.tell(line)
        if "why_not" not in line:
            planned.append(line)
    total = summary(planned)
    told.tell(total)
    if planned:
        draw(planned, out_dir / PICTURE)
        note(f"wrote {out_dir / PICTURE}")
    return not (total["bar_met"] and total["all_verified"] and total["sizes"] == sizes)


def note_line(line: Mapping[str, Any]) -> None:
    """Print one line of the table to stderr."""
    if "why_not" in line:
        sys.stderr.write(f"{line['gpus']:6d} {line['why_not']}\n")
        return
    figures = f"{line['gpus']:6d} {line['paths']:10d} {line['value']:11.2f}"
    rest = f"{line['bound']:11.2f} {line['gap']:8.2%} {line['seconds']:8.2f}"
    fault = "" if line["verified"] else "  FAULTY"
    sys.stderr.write(f"{figures} {rest} {line['peak_rss_gib']:9.2f}{fault}\n")


def summary(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the summary line of the sizes that were planned: the bar is for the largest."""
    largest = max(lines, key=lambda line: int(line["gpus"]), default=None)
    bar = {"gap": BAR_GAP, "seconds": BAR_SECONDS, "peak_rss_gib": BAR_GIB}
    return {
        "summary": True,
        "sizes": [line["gpus"] for line in lines],
        "max_gap": max((line["gap"] for line in lines), default=None),
        "max_seconds": max((line["seconds"] for line in lines), default=None),
        "max_peak_rss_gib": max((line["peak_rss_gib"] for line in lines), default=None),
        "all_verified": all(line["verified"] for line in lines),
        "bar": bar,
        "bar_met": largest is not None and all(largest[key] <= bar[key] for key in bar),
    }


def draw(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw time, gap and memory against GPUs.

    Raises:
        OSError: the file cannot be written.
    """
    panels = (
        ("seconds", "time (s)", 1.0, BAR_SECONDS),
        ("gap", "gap to the relaxation (%)", 100.0, BAR_GAP),
        ("peak_rss_gib", "peak memory (GiB)", 1.0, BAR_GIB),
    )
    models = lines[0]["models"]
    figure = new_figure(
        12.0,
        4.4,
        "Planning larger fleets",
        f"{models} models on five GPU classes; each size in a process of its own",
    )
    for number, (key, label, scale, bar) in enumerate(panels):
        axes = add_axes(figure, 0.8 + 3.95 * number, 0.7, 0.3 + 3.95 * (2 - number), 0.95)
        values = [scale * line[key] for line in lines]
        _draw_panel(axes, [line["gpus"] for line in lines], values, PALETTE[number])
        axes.axhline(scale * bar, color=FAINT, linewidth=1.3, linestyle=(0, (5, 3)))
        axes.set_ylabel(label)
        top = scale * bar * 1.15 if max(values) > scale * bar / 2 else 1.15 * max(values)
        axes.set_ylim(0, max(top, 1.05 * max(values)) or 1.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(figure, path)


def _draw_panel(axes: Axes, gpus: Sequence[int], values: Sequence[float], colour: str) -> None:
    axes.plot(gpus, values, color=colour, marker="o", markersize=5, linewidth=2)
    axes.set_xlim(0, 1.05 * max(gpus))
    axes.set_xlabel("GPUs")
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


if __name__ == "__main__":
    typer.run(main)
