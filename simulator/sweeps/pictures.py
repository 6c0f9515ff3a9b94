"""The pictures of a sweep: what of its points and of one of its runs is drawn.

Knows what is worth showing; not how it is drawn.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

from penstock.domain.ids import InstanceId
from penstock.domain.outcomes import Interval
from penstock.domain.units import US_PER_SECOND, Micros
from penstock.pictures.loads import draw_loads
from penstock.pictures.timeline import draw_timeline
from penstock.pictures.utilisation import draw_utilisation
from penstock.pictures.values import BandPoint, UsePoint
from simulator.sweeps.files import PICTURES
from simulator.sweeps.sweep import ALL, Run, Series, Sweep
from simulator.sweeps.words import Point, held, held_words, labels_of

_MOST_MODELS = 5  # in panels of their own
_TIMELINE_US: Micros = 2 * US_PER_SECOND
_MOST_ROWS = 28
_ROUND_RPS = 100  # above, fractions say nothing


def draw_sweep(
    sweep: Sweep,
    found: Mapping[Series, Sequence[Point]],
    directory: Path,
    suffix: str,
    target: float,
) -> tuple[Path, ...]:
    """Draw all pictures of a finished sweep.

    Args:
        sweep: what was simulated.
        found: its points.
        directory: where to.
        suffix: .png, .svg or .html.
        target: attainment that is wanted.

    Raises:
        OSError: a file cannot be written.
    """
    attainment, utilisation, timeline = (directory / f"{name}{suffix}" for name in PICTURES)
    _draw_attainment(sweep, found, attainment, target)
    _draw_utilisation(sweep, found, utilisation)
    _draw_timeline(sweep, found, timeline, target)
    return attainment, utilisation, timeline


def _draw_attainment(
    sweep: Sweep, found: Mapping[Series, Sequence[Point]], path: Path, target: float
) -> None:
    labels = {
        series: f"{label} (holds {held_words(held(found[series], target))})"
        for series, label in labels_of(list(found)).items()
    }
    panels = {
        name: {
            labels[series]: [
                BandPoint(x=point.load, mean=each.mean, low=each.least, high=each.most)
                for point in points
                if (each := point.attainment.get(model)) is not None
            ]
            for series, points in found.items()
        }
        for name, model in _panels(found)
    }
    draw_loads(
        panels,
        path,
        target=target,
        title=f"Attainment against load{_of_plan(sweep)}",
        subtitle=_subtitle(sweep),
        load_label=_load_label(sweep),
    )


def _draw_utilisation(sweep: Sweep, found: Mapping[Series, Sequence[Point]], path: Path) -> None:
    labels = labels_of(list(found))
    counts: defaultdict[str, set[int]] = defaultdict(set)
    bars: defaultdict[str, dict[str, list[UsePoint]]] = defaultdict(dict)
    for series, points in found.items():
        for point in points:
            for name, use in point.uses.items():
                counts[name].add(use.gpus)
                busy = use.utilisation
                bars[name].setdefault(labels[series], []).append(
                    UsePoint(
                        load=point.load,
                        mean=busy.mean,
                        low=busy.least,
                        high=busy.most,
                        useful=use.useful.mean,
                        used=use.used,
                    )
                )
    panels = {_class_words(name, counts[name]): each for name, each in bars.items()}
    draw_utilisation(
        panels, path, title=f"Utilisation{_of_plan(sweep)}", load_label=_load_label(sweep)
    )


def _draw_timeline(
    sweep: Sweep, found: Mapping[Series, Sequence[Point]], path: Path, target: float
) -> None:
    """Draw a moment of the first series at the greatest load that it holds, or at the least."""
    series, points = next(iter(found.items()))
    load = held(points, target).up_to or points[0].load
    run = Run(series=series, load=load, seed=sweep.seeds[0])
    result = sweep.opening(run, sweep.scenario.warmup_us + _TIMELINE_US)
    shown, total = _readable(result.intervals)
    some = "" if len(shown) == total else f", {len(shown)} of {total} busy instances"
    kept = [each for each in result.intervals if each.instance in shown]
    draw_timeline(kept, path, title=f"Timeline of {run}{some}")


def _readable(intervals: Sequence[Interval]) -> tuple[set[InstanceId], int]:
    """Return the instances there is room for, the first of every pool first, and how many exist."""
    pools: defaultdict[str, list[InstanceId]] = defaultdict(list)
    for instance in sorted({each.instance for each in intervals}, key=_number):
        pools[instance.rpartition("/")[0]].append(instance)
    in_turn = [each for turn in zip_longest(*pools.values()) for each in turn if each is not None]
    return set(in_turn[:_MOST_ROWS]), len(in_turn)


def _number(instance: InstanceId) -> tuple[int, str]:
    last = instance.rpartition("/")[2]
    return (int(last) if last.isdecimal() else 0, instance)


def _panels(found: Mapping[Series, Sequence[Point]]) -> list[tuple[str, str]]:
    """Return panels and the models behind them: all, and then those that do worst."""
    worst: dict[str, float] = {}
    for points in found.values():
        for point in points:
            for model, each in point.attainment.items():
                worst[model] = min(each.mean, worst.get(model, 1.0))
    models = [each for each in worst if each != ALL]
    if len(models) <= 1:
        return [(ALL, ALL)]
    chosen = models
    if len(models) > _MOST_MODELS:
        chosen = sorted(models, key=lambda model: (worst[model], model))[:_MOST_MODELS]
    left_out = len(models) - len(chosen)
    rest = f"; beside it the {len(chosen)} worst of {len(models)}" if left_out else ""
    return [(f"all models{rest}", ALL), *((model, model) for model in chosen)]


def _of_plan(sweep: Sweep) -> str:
    return f" · {next(iter(sweep.plans))}" if len(sweep.plans) == 1 else ""


def _subtitle(sweep: Sweep) -> str:
    seeds = len(sweep.seeds)
    band = f"mean of {seeds} seeds, band from worst to best" if seeds > 1 else "one seed"
    return f"Answered within the SLO, of all requests; {band}; the axis is stretched near 100%"


def _load_label(sweep: Sweep) -> str:
    if sweep.base is None and len(sweep.plans) > 1:
        return "load (offered rate by each plan's own throughput)"
    base = next(iter(sweep.plans.values())) if sweep.base is None else sweep.base
    rate_rps = sum(model.throughput_rps for model in base.models)
    rate = f"{rate_rps:,.0f}" if rate_rps >= _ROUND_RPS else f"{rate_rps:.3g}"
    return f"load (1 = {rate} samples/s{' for every plan' if sweep.base else ' as planned'})"


def _class_words(name: str, counts: set[int]) -> str:
    least, most = min(counts), max(counts)
    plural = "" if most == 1 else "s"
    return f"{name} · {least if least == most else f'{least}–{most}'} GPU{plural}"
