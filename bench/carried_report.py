"""What `ppipe_load` tells: a table, lines, a summary, and a picture.

Knows what was measured, not how.
"""

from __future__ import annotations

import csv
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.carried import Asked, Planner
from bench.planned import Lines
from penstock.console import note
from penstock.domain.errors import InvalidInput
from penstock.pictures.canvas import GRID, PALETTE, add_axes, new_figure, save
from planner.published import PublishedConfiguration

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CLOSE = 0.05  # load factors this close to the reference agree


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
    sys.stderr.write(f"{head}  {line.get('why_not', factors)}\n")


def summary(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the summary line."""
    ratios = [line["ratio"] for line in lines if line["ratio"] is not None]
    total: dict[str, Any] = {
        "summary": True,
        "configs": len(lines),
        "not_planned": sum("why_not" in line for line in lines),
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
