"""What a sweep found: attainment over load, series by series, as figures, a table and JSON.

Reads finished rows, so that it says the same of a sweep that was broken off and went on.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from simulator.sweeps.rows import Row, Rows
from simulator.sweeps.sweep import ALL, Run, Series

if TYPE_CHECKING:
    from rich.table import Table

_BELOW = " ▼"
_CELL, _WIDE_CELL, _LOAD_COLUMN = 11, 19, 9  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One figure under several seeds."""

    mean: float
    least: float
    most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """How busy one GPU class was.

    Attributes:
        utilisation: busy by all GPUs of the class in the fleet.
        useful: likewise, with what came in time.
        used: part of those that the plan uses.
    """

    utilisation: Spread
    useful: Spread
    used: float
    gpus: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One series at one load.

    Attributes:
        attainment: by model; `ALL` for all requests.
        uses: by GPU class.
    """

    load: float
    offered_rps: Spread
    goodput_rps: Spread
    attainment: Mapping[str, Spread]
    uses: Mapping[str, Use]

    @property
    def worst(self) -> tuple[str, float]:
        """Return the model with the least attainment, mean of the seeds, and that."""
        means = [(each.mean, model) for model, each in self.attainment.items() if model != ALL]
        mean, model = min(means)
        return model, mean

    def holds(self, target: float) -> bool:
        """Say whether every model reaches the target."""
        return self.worst[1] >= target


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """How far a series goes without missing the target.

    Attributes:
        up_to: the greatest load that holds, with all that were tried below; None: none does.
        fails_at: the next load tried; None: none failed.
    """

    up_to: float | None
    fails_at: float | None


def points_of(finished: Iterable[tuple[Run, Rows]]) -> dict[Series, list[Point]]:
    """Return each series' points, loads ascending."""
    gathered: defaultdict[tuple[Series, float], list[Rows]] = defaultdict(list)
    for run, rows in finished:
        gathered[run.series, run.load].append(rows)
    found: defaultdict[Series, list[Point]] = defaultdict(list)
    for (series, load), seeds in gathered.items():
        found[series].append(_point(load, seeds))
    return dict(found)


def held(points: Sequence[Point], target: float) -> Held:
    """Return how far these points, loads ascending, reach the target."""
    up_to: float | None = None
    for point in points:
        if not point.holds(target):
            return Held(up_to=up_to, fails_at=point.load)
        up_to = point.load
    return Held(up_to=up_to, fails_at=None)


def held_words(found: Held) -> str:
    """Return that in words for a table or a legend."""
    if found.up_to is None:
        return "at no load tried"
    return f"up to {found.up_to:g}" + (", all tried" if found.fails_at is None else "")


def labels_of(series: Sequence[Series]) -> dict[Series, str]:
    """Return a short name for each: what does not differ is left out."""
    aspects = [
        each
        for each in ("plan", "policy", "routing")
        if len({getattr(s, each) for s in series}) > 1
    ] or ["policy"]
    return {each: " · ".join(getattr(each, aspect) for aspect in aspects) for each in series}


def sweep_tables(found: Mapping[Series, Sequence[Point]], target: float) -> list[Table]:
    """Return one row per load, one column per series; as many tables as the series need."""
    from rich.console import Console

    labels = labels_of(list(found))
    several = _several(found)
    per_column = 3 + (_WIDE_CELL if several else _CELL)
    columns = max(1, (Console().width - _LOAD_COLUMN) // per_column)
    chosen = list(found)
    return [
        _table({each: found[each] for each in chosen[at : at + columns]}, labels, target, several)
        for at in range(0, len(chosen), columns)
    ]


def _several(found: Mapping[Series, Sequence[Point]]) -> bool:
    """Say whether a plan has more than one model."""
    return any(
        len(point.attainment) > len((ALL, "one")) for each in found.values() for point in each
    )


def _table(
    found: Mapping[Series, Sequence[Point]],
    labels: Mapping[Series, str],
    target: float,
    several: bool,
) -> Table:
    from rich.table import Table

    table = Table(
        "load",
        title="Attainment" + (" of all requests (of the worst model)" if several else ""),
        caption=f"{_BELOW.strip()} {'a model is ' if several else ''}below {target:.4g}",
    )
    for each in found:
        table.add_column(labels[each], overflow="fold")
    loads = sorted({point.load for each in found.values() for point in each})
    for load in loads:
        cells = (_cell(each, load, target, several=several) for each in found.values())
        table.add_row(f"{load:g}", *cells, end_section=load == loads[-1])
    table.add_row("held", *(held_words(held(each, target)) for each in found.values()))
    return table


def sweep_json(found: Mapping[Series, Sequence[Point]], target: float) -> dict[str, object]:
    """Return all figures, series by series."""
    return {
        "simulated": True,
        "target": target,
        "series": [
            {
                **asdict(series),
                "held": asdict(held(points, target)),
                "points": [_point_json(point, target) for point in points],
            }
            for series, points in found.items()
        ],
    }


def _point(load: float, seeds: Sequence[Rows]) -> Point:
    models: defaultdict[str, list[Row]] = defaultdict(list)
    classes: defaultdict[str, list[Row]] = defaultdict(list)
    for rows in seeds:
        for row in rows.models:
            models[row["model"]].append(row)
        for row in rows.classes:
            classes[row["gpu_class"]].append(row)
    return Point(
        load=load,
        offered_rps=_spread(models[ALL], "offered_rps"),
        goodput_rps=_spread(models[ALL], "goodput_rps"),
        attainment={name: _spread(rows, "attainment") for name, rows in models.items()},
        uses={name: _use(rows) for name, rows in classes.items()},
    )


def _use(rows: Sequence[Row]) -> Use:
    gpus = int(rows[0]["gpus"])
    return Use(
        utilisation=_spread(rows, "utilisation"),
        useful=_spread(rows, "useful_utilisation"),
        used=int(rows[0]["gpus_used"]) / gpus,
        gpus=gpus,
    )


def _spread(rows: Sequence[Row], column: str) -> Spread:
    values = [float(row[column]) for row in rows]
    return Spread(mean=statistics.fmean(values), least=min(values), most=max(values))


def _cell(points: Sequence[Point], load: float, target: float, *, several: bool) -> str:
    point = next((each for each in points if each.load == load), None)
    if point is None:
        return "-"
    worst = f" ({point.worst[1]:.2%})" if several else ""
    below = "" if point.holds(target) else _BELOW
    return f"{point.attainment[ALL].mean:.2%}{worst}{below}"


def _point_json(point: Point, target: float) -> dict[str, object]:
    model, attainment = point.worst
    return asdict(point) | {
        "holds": point.holds(target),
        "worst_model": model,
        "worst_attainment": attainment,
    }
