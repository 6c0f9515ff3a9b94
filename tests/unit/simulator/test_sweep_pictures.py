"""What of a sweep is worth a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from penstock.arrivals import Constant
from penstock.domain.ids import ModelName
from penstock.domain.outcomes import Interval
from penstock.domain.plan import Plan
from penstock.pictures.values import BandPoint, UsePoint
from simulator.simulate import Scenario
from simulator.sweeps import pictures
from simulator.sweeps.pictures import draw_sweep
from simulator.sweeps.rows import rows_of
from simulator.sweeps.sweep import Sweep
from simulator.sweeps.words import points_of
from tests.support.builders import a_model_plan, a_plan, a_pool

SECOND_US = 1_000_000


class Drawn:
    """Takes what would have been drawn."""

    panels: Mapping[str, Mapping[str, Sequence[BandPoint]]]
    bars: Mapping[str, Mapping[str, Sequence[UsePoint]]]
    intervals: Sequence[Interval]
    titles: list[str]

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.titles = []
        for name in ("loads", "utilisation", "timeline"):
            monkeypatch.setattr(pictures, f"draw_{name}", getattr(self, name))

    def loads(
        self, panels: Mapping[str, Mapping[str, Sequence[BandPoint]]], *_: Path, **words: object
    ) -> None:
        self.panels = panels
        self.titles.append(str(words["load_label"]))

    def utilisation(
        self, bars: Mapping[str, Mapping[str, Sequence[UsePoint]]], *_: Path, **words: object
    ) -> None:
        self.bars = bars

    def timeline(self, intervals: Sequence[Interval], *_: Path, **words: object) -> None:
        self.intervals = intervals
        self.titles.append(str(words["title"]))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    return Drawn(monkeypatch)


def a_fleet(rates: Sequence[float], instances: int = 1) -> Plan:
    models = []
    for number, rate in enumerate(rates):
        pool = a_pool(f"pool{number}", latencies_us=(10_000,), instances=instances)
        model = ModelName(f"m{number}")
        models.append(a_model_plan([pool], model=model, slo_us=20_000, throughput_rps=rate))
    return a_plan(*models)


def draw(plans: Mapping[str, Plan], loads: tuple[float, ...], base: Plan | None = None) -> None:
    sweep = Sweep(
        plans=plans,
        base=base,
        policies=("reservation",),
        routings=("least-queueing",),
        loads=loads,
        seeds=(0,),
        asked=Constant(),
        span_us=SECOND_US,
        scenario=Scenario(),
    )
    found = points_of((run, rows_of(sweep, run)) for run in sweep.runs())
    draw_sweep(sweep, found, Path(), ".png", 0.99)


def test_one_model_is_one_panel(drawn: Drawn) -> None:
    draw({"p": a_fleet([100.0])}, (0.5, 2.0))
    ((panel, curves),) = drawn.panels.items()
    assert (panel, list(curves)) == ("all", ["reservation (holds up to 0.5)"])
    assert [point.x for point in curves["reservation (holds up to 0.5)"]] == [0.5, 2.0]
    assert drawn.titles[0] == "load (1 = 100 samples/s as planned)"


def test_of_many_models_the_worst_are_shown(drawn: Drawn) -> None:
    draw({"p": a_fleet([50.0, 300.0, 50.0, 400.0, 200.0, 50.0, 150.0])}, (1.0,))
    assert list(drawn.panels) == [
        "all models; beside it the 5 worst of 7", "m3", "m1", "m4", "m6", "m0"
    ]  # fmt: skip


def test_the_timeline_is_of_the_greatest_load_that_holds(drawn: Drawn) -> None:
    draw({"p": a_fleet([80.0])}, (0.5, 1.0, 2.0))
    assert drawn.titles[-1] == "Timeline of p, reservation, least-queueing, load 1, seed 0"
    draw({"p": a_fleet([80.0])}, (2.0, 3.0))
    assert "load 2," in drawn.titles[-1]


def test_a_timeline_of_many_instances_shows_some_of_each_pool(drawn: Drawn) -> None:
    draw({"p": a_fleet([1_900.0, 200.0], instances=20)}, (1.0,))
    pools: dict[str, set[str]] = {}
    for each in drawn.intervals:
        pools.setdefault(each.instance.partition("/")[0], set()).add(each.instance)
    assert sum(map(len, pools.values())) == 28
    assert set(pools) == {"pool0", "pool1"}
    assert "pool0/0" in pools["pool0"]
    assert "28 of " in drawn.titles[-1]


def test_plans_of_different_fleets_are_told_apart(drawn: Drawn) -> None:
    plans = {"one": a_fleet([100.0]), "two": a_fleet([200.0], instances=2)}
    draw(plans, (0.5,))
    assert list(drawn.bars) == ["fast · 8 GPUs"]
    uses = {name: points[0] for name, points in drawn.bars["fast · 8 GPUs"].items()}
    assert {name: use.used for name, use in uses.items()} == {"one": 1 / 8, "two": 2 / 8}
    assert uses["two"].mean == pytest.approx(2 * uses["one"].mean)
    assert drawn.titles[0] == "load (offered rate by each plan's own throughput)"
    draw(plans, (0.5,), base=plans["two"])
    assert drawn.titles[2] == "load (1 = 200 samples/s for every plan)"
