"""A sweep's runs, rows and files, and what is read out of them."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.arrivals import Constant, Poisson, Replay
from penstock.domain.arrivals import RequestTrace
from penstock.domain.errors import InvalidInput, InvalidPlan, InvalidSettings, UnknownName
from penstock.domain.ids import ModelName
from penstock.domain.plan import Plan
from simulator.simulate import Scenario
from simulator.sweeps.asked import loads_of, names_of, once
from simulator.sweeps.files import RUNS_FILE, SETTINGS_FILE, UTILISATION_FILE, SweepFiles
from simulator.sweeps.rows import Rows, rows_of
from simulator.sweeps.sweep import ALL, SEED_STEP, Run, Series, Sweep
from simulator.sweeps.words import Held, held, held_words, labels_of, points_of
from tests.support.builders import MODEL, a_model_plan, a_plan, a_pool

SECOND_US = 1_000_000
SETTINGS: Mapping[str, object] = {"loads": [0.5], "about": {"python": "1"}}


def a_fleet(throughput_rps: float = 100.0, *, instances: int = 1) -> Plan:
    """Return 10 ms for a sample on each instance: 100 samples/s."""
    pools = [a_pool(latencies_us=(10_000,), instances=instances)]
    return a_plan(a_model_plan(pools, slo_us=20_000, throughput_rps=throughput_rps))


def two_models() -> Plan:
    pools = {name: a_pool(f"{name}-pool", latencies_us=(10_000,)) for name in ("m", "n")}
    models = [
        a_model_plan([pool], model=ModelName(name), slo_us=20_000, throughput_rps=rate)
        for (name, pool), rate in zip(pools.items(), (100.0, 50.0), strict=True)
    ]
    return a_plan(*models)


def a_sweep(plan: Plan | None = None, **changes: object) -> Sweep:
    sweep = Sweep(
        plans={"one": a_fleet() if plan is None else plan},
        base=None,
        policies=("reservation",),
        routings=("least-queueing",),
        loads=(0.5, 2.0),
        seeds=(0, SEED_STEP),
        asked=Constant(),
        span_us=SECOND_US,
        scenario=Scenario(),
    )
    return replace(sweep, **changes)  # type: ignore[arg-type]  # any field


def finished(sweep: Sweep) -> list[tuple[Run, Rows]]:
    return [(run, rows_of(sweep, run)) for run in sweep.runs()]


@pytest.mark.parametrize(
    ("text", "loads"),
    [
        ("0.9", (0.9,)),
        ("0.5:1.2:0.1", (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2)),
        ("1:2:0.4", (1.0, 1.4, 1.8)),
        ("2,1, 0.5:0.7:0.1 ,1", (0.5, 0.6, 0.7, 1.0, 2.0)),
        ("1:1:1", (1.0,)),
    ],
)
def test_loads_are_read(text: str, loads: tuple[float, ...]) -> None:
    assert loads_of(text) == loads


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--loads: expected FROM:TO:STEP or numbers between commas"),
        ("0.5:1", "--loads: expected FROM:TO:STEP .* found '0.5:1'"),
        ("a", "found 'a'"),
        ("1,,2", "found ''"),
        ("0", "--loads: load: expected a number from 0.001 to 1,000, found 0"),
        ("-1", "found -1"),
        ("nan", "found NaN"),
        ("inf", "found Infinity"),
        ("0.5:1:0", "--loads: STEP: expected a number from 0.001 to 1,000, found 0"),
        ("0.5:1:-0.1", "STEP: .* found -0.1"),
        ("0:1:0.1", "FROM: .* found 0"),
        ("1:0.5:0.1", "--loads: TO: expected at least FROM, 1, found 0.5"),
        ("0.001:2:0.001", "at most 1,000 loads, found 2,000"),
        ("0.001:0.9:0.001,1:2:0.002", "at most 1,000 loads, found 1,401"),
    ],
)
def test_wrong_loads_are_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidSettings, match=message):
        loads_of(text)


def test_plans_are_named_by_their_files() -> None:
    paths = [Path("a/x.json"), Path("b/x.json"), Path("b/y.json")]
    assert list(names_of(paths)) == ["a/x.json", "b/x.json", "y"]
    with pytest.raises(InvalidSettings, match=r"PLAN: expected each one once, found x\.json 2"):
        names_of([Path("x.json"), Path("x.json")])
    assert once("--policy", ["b", "a"]) == ("b", "a")


def test_every_plan_meets_every_policy_load_and_seed() -> None:
    plans = {"one": a_fleet(), "two": a_fleet(instances=2)}
    sweep = a_sweep(plans=plans, policies=("reservation", "fixed"), routings=("a", "b"))
    runs = sweep.runs()
    assert len(set(runs)) == 2 * 2 * 2 * 2 * 2
    assert [run.load for run in runs[:4]] == [0.5, 0.5, 2.0, 2.0]


def test_rows_say_what_can_be_worked_out_by_hand() -> None:
    light, heavy = (rows_of(a_sweep(), run) for run in a_sweep().runs() if run.seed == 0)
    every, model = light.models
    assert (every["model"], model["model"]) == (ALL, "m")
    for row in (every, model):
        assert (row["offered_rps"], row["goodput_rps"], row["attainment"]) == (
            "50.0",
            "50.0",
            "1.0",
        )
        assert (row["requests"], row["late"], row["refused_deadline"]) == ("50", "0", "0")
        assert (row["p50_ms"], row["planned_rps"]) == ("10.0", "100.0")
    assert (every["slo_ms"], model["slo_ms"]) == ("", "20.0")
    (use,) = light.classes
    assert (use["gpu_class"], use["gpus"], use["gpus_used"]) == ("fast", "8", "1")
    assert float(use["utilisation"]) == pytest.approx(1 / 16)
    # Twice of what it can do: one request in two.
    assert float(heavy.models[0]["attainment"]) == pytest.approx(0.5, abs=0.02)
    assert int(heavy.models[0]["refused_deadline"]) == pytest.approx(100, abs=3)
    assert float(heavy.classes[0]["utilisation"]) == pytest.approx(1 / 8, abs=0.002)


def test_a_run_is_the_one_that_simulate_makes_of_its_seed() -> None:
    sweep = a_sweep(asked=Poisson(), loads=(0.9,))
    first, second = (rows_of(sweep, run).models[0] for run in sweep.runs())
    assert first["requests"] != second["requests"]
    alone = replace(sweep, seeds=(SEED_STEP,))
    assert rows_of(alone, alone.runs()[0]).models[0] == second


def test_a_base_offers_the_same_to_all_plans() -> None:
    plans = {"one": a_fleet(50.0), "two": a_fleet(200.0, instances=2)}
    own, based = a_sweep(plans=plans), a_sweep(plans=plans, base=a_fleet(80.0))
    offered = {
        sweep.base is None: {
            run.series.plan: rows_of(sweep, run).models[0]["offered_rps"]
            for run in sweep.runs()
            if run.load == 0.5
        }
        for sweep in (own, based)
    }
    assert offered[True] == {"one": "25.0", "two": "100.0"}
    assert offered[False] == {"one": "40.0", "two": "40.0"}


def test_a_trace_is_fitted_to_each_load() -> None:
    trace = Replay(trace=RequestTrace(tuple(range(0, SECOND_US, 50_000))))
    sweep = a_sweep(asked=trace, loads=(0.1, 0.4), seeds=(0,))
    requests = [int(rows.models[0]["requests"]) for _, rows in finished(sweep)]
    assert requests == [10, 38]  # of 10 and of 40 requests/s in the 0.95 s of the trace
    based = replace(sweep, base=a_fleet(20.0), loads=(0.5, 2.0))
    requests = [int(rows.models[0]["requests"]) for _, rows in finished(based)]
    assert requests == [10, 38]


@pytest.mark.parametrize(
    ("sweep", "error", "message"),
    [
        (a_sweep(policies=("hope",)), UnknownName, "unknown batching policy 'hope'"),
        (a_sweep(routings=("hope",)), UnknownName, "unknown routing policy 'hope'"),
        (a_sweep(scenario=Scenario(warmup_us=SECOND_US)), InvalidInput, "less than the duration"),
        (a_sweep(base=two_models()), InvalidPlan, "one: models: expected the models of --base"),
        (
            a_sweep(a_plan(a_model_plan([a_pool()], model=ModelName(ALL)))),
            InvalidPlan,
            "no model called 'all'",
        ),
    ],
)
def test_what_cannot_be_simulated_is_refused_at_once(
    sweep: Sweep, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        sweep.check()


def test_points_gather_seeds_and_find_the_worst_model() -> None:
    sweep = a_sweep(two_models(), loads=(0.5, 1.5))
    light, heavy = points_of(finished(sweep))[sweep.series()[0]]
    assert light.worst == ("m", 1.0)
    assert heavy.attainment["n"].mean == 1.0
    assert heavy.worst[0] == "m"
    assert heavy.worst[1] == pytest.approx(2 / 3, abs=0.02)
    # Most requests of all are in time; the target is for each model.
    assert heavy.attainment[ALL].mean == pytest.approx(7 / 9, abs=0.02)
    assert not heavy.holds(0.7)
    assert held((light, heavy), 0.7) == Held(up_to=0.5, fails_at=1.5)
    assert held((light, heavy), 0.1) == Held(up_to=1.5, fails_at=None)
    assert held((heavy,), 0.7) == Held(up_to=None, fails_at=1.5)
    assert held_words(held((heavy,), 0.7)) == "at no load tried"
    assert held_words(held((light,), 0.7)) == "up to 0.5, all tried"


def test_a_load_above_one_that_fails_does_not_count_as_held() -> None:
    sweep = a_sweep(loads=(0.5, 2.0))
    light, heavy = points_of(finished(sweep))[sweep.series()[0]]
    assert held((light, heavy, replace(light, load=3.0)), 0.99) == Held(up_to=0.5, fails_at=2.0)


def test_labels_name_what_differs() -> None:
    one = Series(plan="p", policy="a", routing="r")
    assert list(labels_of([one]).values()) == ["a"]
    assert list(labels_of([one, replace(one, plan="q")]).values()) == ["p", "q"]
    both = [one, replace(one, policy="b", routing="s")]
    assert list(labels_of(both).values()) == ["a · r", "b · s"]


def test_files_hold_the_sweeps_order_whatever_ended_first(tmp_path: Path) -> None:
    sweep = a_sweep()
    done = finished(sweep)
    texts = []
    for order in (done, done[::-1]):
        files = SweepFiles(tmp_path, sweep)
        files.begin(SETTINGS)
        for run, rows in order:
            files.add(run, rows)
        files.save()
        texts.append([each.read_bytes() for each in files.paths])
    assert texts[0] == texts[1]
    table = list(csv.DictReader((tmp_path / RUNS_FILE).read_text().splitlines()))
    assert [(row["load"], row["seed"], row["model"]) for row in table[:3]] == [
        ("0.5", "0", ALL),
        ("0.5", "0", MODEL),
        ("0.5", "1000", ALL),
    ]
    assert not list(tmp_path.glob("*.part"))
    assert not list(tmp_path.glob(".*"))


def test_a_sweep_goes_on_with_what_is_whole(tmp_path: Path) -> None:
    sweep = a_sweep()
    files = SweepFiles(tmp_path, sweep)
    files.begin(SETTINGS)
    done = finished(sweep)
    for run, rows in done[:3]:
        files.add(run, rows)
    files.save()
    whole = (tmp_path / UTILISATION_FILE).read_text()
    (tmp_path / UTILISATION_FILE).write_text("".join(whole.splitlines(keepends=True)[:-1]))
    again = SweepFiles(tmp_path, sweep)
    again.take_up({**SETTINGS, "about": {"python": "2"}})
    assert again.finished() == done[:2]  # the third is in one file only
    assert again.missing() == sweep.runs()[2:]


def test_other_settings_are_refused(tmp_path: Path) -> None:
    files = SweepFiles(tmp_path, a_sweep())
    files.begin(SETTINGS)
    with pytest.raises(InvalidSettings, match=r"loads: expected \[0.6\] as asked now.*\[0.5\]"):
        files.take_up({**SETTINGS, "loads": [0.6]})
    with pytest.raises(InvalidSettings, match=r"jitter: expected 1 as .*found nothing"):
        files.take_up({**SETTINGS, "jitter": 1})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (SETTINGS_FILE, "{", "sweep.json: line 1"),
        (SETTINGS_FILE, "[]", "expected the settings of a sweep"),
        (RUNS_FILE, "a,b\n", "runs.csv: line 1: expected the header"),
        (UTILISATION_FILE, "", "utilisation.csv: line 1: expected the header"),
    ],
)
def test_damaged_files_are_told(tmp_path: Path, name: str, text: str, message: str) -> None:
    files = SweepFiles(tmp_path, a_sweep())
    files.begin(SETTINGS)
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidInput, match=message):
        files.take_up(SETTINGS)


def test_the_opening_of_a_run_is_its_beginning() -> None:
    sweep = a_sweep(asked=Poisson(), scenario=Scenario(jitter_sigma=0.2, warmup_us=100_000))
    run = sweep.runs()[0]
    whole, opening = sweep.simulated(run), sweep.opening(run, SECOND_US // 2)
    assert list(opening.intervals) == list(whole.intervals)[: len(opening.intervals)]
    assert math.isclose(len(opening.intervals) / len(whole.intervals), 0.5, abs_tol=0.2)
