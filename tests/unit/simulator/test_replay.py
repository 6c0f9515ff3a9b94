"""Logs of a dispatcher in a world of mishaps: replayed, tampered with, laid side by side."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from penstock.domain.errors import InvalidInput
from penstock.domain.ids import ModelName
from penstock.domain.outcomes import Outcome, quantile_ms, summarise
from penstock.domain.plan import Plan
from penstock.formats.runlog import open_run_log, read_run_log, write_entry
from penstock.formats.runlog_header import LogHeader
from penstock.policies import BATCHING, ROUTING
from penstock.scheduling.dispatcher import DispatcherLimits
from penstock.scheduling.effects import CompleteRequest, DropRequest, WakeAt
from penstock.scheduling.events import PlanApplied, RequestArrived, WakeUp
from simulator.replays.divergence import differences
from simulator.replays.outcomes import LatencyCounts
from simulator.replays.replay import Comparison, compare, replay
from simulator.replays.state import LogState
from tests.support.builders import a_model_plan, a_plan, a_pool, a_request, all_joined
from tests.support.recording import Recorder, a_header, a_log_of_mishaps, dispatcher_of

HEADER = a_header()


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return a_log_of_mishaps(HEADER)


def replayed(
    lines: list[str], policy: str | None = None, *, decisions_only: bool = False
) -> Comparison:
    log = open_run_log(lines, "run.jsonl")
    header = a_header(policy) if policy else log.header
    assert header is not None
    dispatcher = dispatcher_of(header)
    return replay(log.lines, "run.jsonl", dispatcher, decisions_only=decisions_only)


@pytest.mark.parametrize("routing", ROUTING)
@pytest.mark.parametrize("policy", BATCHING)
def test_every_policy_does_the_same_again(policy: str, routing: str) -> None:
    found = a_log_of_mishaps(a_header(policy, routing), requests=150, seed=1)
    result = replayed(found)
    assert result.divergence is None
    assert (result.entries, result.requests, result.open_requests) == (len(found) - 1, 150, 0)


def test_a_log_of_mishaps_has_about_everything_in_it(lines: list[str]) -> None:
    result = replayed(lines)
    assert result.divergence is None
    assert len(result.events) == 9
    assert result.events["PlanApplied"] > 1
    assert result.events["InstanceLost"] > 1
    assert set(result.overall.refusals) == {"deadline", "unavailable", "failed", "cancelled"}


@pytest.mark.parametrize("limits", [DispatcherLimits(queue_samples=3, rebookings=0, stall_us=9)])
def test_limits_are_part_of_what_is_recorded(limits: DispatcherLimits) -> None:
    found = a_log_of_mishaps(replace(HEADER, limits=limits), requests=200)
    result = replayed(found)
    assert result.divergence is None
    assert result.overall.refusals["shed"] > 0
    log = open_run_log(found, "run.jsonl")
    assert replay(log.lines, "run.jsonl", dispatcher_of(HEADER)).divergence is not None


def tampered(line: str, how: str) -> str:
    content: dict[str, Any] = json.loads(line)
    if how == "an effect too many":
        content["effects"].insert(0, {"kind": "WakeAt", "at_us": content["now_us"] + 1})
    elif how == "an effect too few":
        content["effects"].pop()
    else:
        last = content["effects"][-1]
        name = next(key for key, value in last.items() if type(value) is int)
        last[name] += 1
    return json.dumps(content) + "\n"


@pytest.mark.parametrize("how", ["an effect too many", "an effect too few", "another number"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_tampered_entry_is_where_the_runs_part(lines: list[str], how: str, part: float) -> None:
    start = int(part * len(lines))
    index = next(n for n in range(start, len(lines)) if json.loads(lines[n])["effects"])
    wrong = [*lines[:index], tampered(lines[index], how), *lines[index + 1 :]]
    found = replayed(wrong).divergence
    assert found is not None
    assert (found.number, found.lines) == (index, (index + 1, 0))  # the header is line 1
    assert found.expected is not None
    assert found.found is not None
    assert write_entry(found.found.now_us, found.found.event, found.found.effects) == lines[index]
    (difference,) = differences(found.expected, found.found)
    assert difference.place.startswith("effects[")
    beside = compare(open_run_log(lines, "a").lines, open_run_log(wrong, "b").lines).divergence
    assert beside is not None
    assert (beside.number, beside.lines) == (index, (index + 1, index + 1))
    assert beside.before == found.before
    assert beside.recent == found.recent


def test_what_was_open_is_what_the_dispatcher_has(lines: list[str]) -> None:
    state, dispatcher = LogState(), dispatcher_of(HEADER)
    waited = 0
    for entry in read_run_log(lines, "run.jsonl"):
        dispatcher.handle(entry.now_us, entry.event)
        state.take(entry)
        assert state.open_requests == dispatcher.open_requests
        for model in (ModelName("m"), ModelName("n")):
            waiting = dispatcher.waiting_samples(model)
            assert state.model(model).waiting_samples == waiting
            waited += waiting
    assert waited > 0
    assert state.model(ModelName("m")).batches == 0


def test_recent_entries_are_about_the_model_concerned(lines: list[str]) -> None:
    index = next(
        number
        for number, entry in enumerate(read_run_log(lines, "run.jsonl"), start=1)
        if number > 200 and isinstance(entry.event, RequestArrived) and entry.effects
    )
    found = replayed([*lines[:index], tampered(lines[index], "another number")]).divergence
    assert found is not None
    assert isinstance(found.expected and found.expected.event, RequestArrived)
    (model,) = found.before
    numbers = [each.number for each in found.recent]
    assert len(numbers) == 5
    assert numbers == sorted(numbers)
    assert numbers[-1] < found.number
    arrivals = [each.entry.event for each in found.recent]
    models = {each.request.model for each in arrivals if isinstance(each, RequestArrived)}
    assert models == {model}


def test_an_event_taken_out_shows_where_it_is_missed(lines: list[str]) -> None:
    index = next(n for n in range(300, 999) if '"StageFinished"' in lines[n])
    shorter = lines[:index] + lines[index + 1 :]
    beside = compare(open_run_log(lines, "a").lines, open_run_log(shorter, "b").lines)
    assert beside.divergence is not None
    assert beside.divergence.number == index
    assert replayed(lines[:index]).divergence is None  # a beginning of a log is a log


def test_a_log_that_ends_early_parts_where_it_ends(lines: list[str]) -> None:
    for one, other, numbers in ((lines, lines[:101], (102, 0)), (lines[:101], lines, (0, 102))):
        result = compare(open_run_log(one, "a").lines, open_run_log(other, "b").lines)
        assert result.entries == 100
        assert result.divergence is not None
        assert result.divergence.lines == numbers


def test_another_policy_is_stopped_at_its_first_decision(lines: list[str]) -> None:
    found = replayed(lines, "fixed:size=1,timeout_us=0", decisions_only=True).divergence
    assert found is not None
    sides = [each for each in (found.expected, found.found) if each is not None]
    kept = [[x for x in each.effects if not isinstance(x, WakeAt)] for each in sides]
    assert kept[0] != (kept[1] if len(kept) > 1 else [])
    strict = replayed(lines, "fixed:size=1,timeout_us=0").divergence
    assert strict is not None
    assert strict.number <= found.number


def test_the_same_policy_decides_the_same_however_late_it_is_woken() -> None:
    late = a_log_of_mishaps(HEADER, requests=200, wake_late_us=700)
    result = replayed(late, decisions_only=True)
    assert result.divergence is None
    assert result.entries == len(late) - 1


def test_a_policy_that_wakes_earlier_is_woken_then() -> None:
    """It alone would launch at 2 ms, which the log says nothing of."""
    plan = a_plan(a_model_plan([a_pool()]))
    lines = a_log_of(a_header("fixed:size=4,timeout_us=9000"), plan)
    found = replayed(lines, "fixed:size=4,timeout_us=2000", decisions_only=True).divergence
    assert found is not None
    assert found.expected is None
    assert found.found is not None
    assert (found.found.now_us, found.found.event) == (3_000, WakeUp())
    assert found.lines == (len(lines), 0)  # the log's next entry is the wake-up at 10 ms


def a_log_of(header: LogHeader, plan: Plan) -> list[str]:
    recorder = Recorder(dispatcher_of(header), header)
    recorder.handle(0, PlanApplied(plan))
    for joined in all_joined(plan):
        recorder.handle(0, joined)
    recorder.handle(1_000, RequestArrived(a_request(arrival_us=1_000)))
    recorder.handle(10_000, WakeUp())
    return recorder.lines


def test_an_event_that_is_refused_is_a_divergence() -> None:
    dispatcher = dispatcher_of(HEADER)
    dispatcher.handle(1, WakeUp())
    entries = open_run_log([write_entry(0, WakeUp(), [])], "x").lines
    found = replay(entries, "x", dispatcher).divergence
    assert found is not None
    assert found.found is None
    assert "time went back" in found.refusal


REQUEST = a_request(7, arrival_us=5)
PLAN = PlanApplied(a_plan(a_model_plan([a_pool()])))


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([RequestArrived(replace(REQUEST, samples=0))], "line 1: event.request.samples: expected"),
        (
            [PLAN, *[RequestArrived(replace(REQUEST, deadline_us=9))] * 2],
            "line 3: event.request.id: expected the number of a request that is not open already",
        ),
        (
            [PlanApplied(replace(PLAN.plan, models=()))],
            "line 1, event.plan: models: expected at least one",
        ),
    ],
)
def test_events_that_cannot_be_are_refused(events: list[Any], message: str) -> None:
    effects = {1: [WakeAt(9)]}  # what the dispatcher is to answer does not matter so far
    lines = [write_entry(0, each, effects.get(n, [])) for n, each in enumerate(events)]
    log = open_run_log(lines, "x")
    with pytest.raises(InvalidInput, match=message):
        replay(log.lines, "x", _Mute())


class _Mute:
    """Answers what `test_events_that_cannot_be_are_refused` has in its log."""

    def __init__(self) -> None:
        self._asked = 0

    def handle(self, now_us: int, event: object) -> list[Any]:
        self._asked += 1
        return [WakeAt(9)] if self._asked == 2 else []


def test_outcomes_are_those_of_the_requests(lines: list[str]) -> None:
    arrived, outcomes = {}, []
    for entry in read_run_log(lines, "run.jsonl"):
        if isinstance(entry.event, RequestArrived):
            arrived[entry.event.request.id] = entry.event.request
        for effect in entry.effects:
            if isinstance(effect, CompleteRequest | DropRequest):
                request = arrived[effect.request]
                cause = effect.reason.value if isinstance(effect, DropRequest) else ""
                outcomes.append(
                    Outcome(
                        model=request.model,
                        arrival_us=request.arrival_us,
                        samples=request.samples,
                        slo_us=request.deadline_us - request.arrival_us,
                        latency_us=None if cause else entry.now_us - request.arrival_us,
                        cause=cause,
                    )
                )
    instants = [each.arrival_us for each in arrived.values()]
    expected = summarise(outcomes, max(instants) - min(instants))
    result = replayed(lines)
    found = result.overall
    for name in ("requests", "answered", "in_time", "attainment", "offered_rps", "goodput_rps"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name))
    assert found.refusals == expected.refusals
    for name in ("p50_ms", "p95_ms", "p99_ms"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=0.0005)
    assert sum(each.requests for each in result.models.values()) == found.requests


@pytest.mark.parametrize("values", [[], [0], [5, 7], list(range(1, 3000)), [10**12, 3, 10**6]])
def test_quantiles_are_exact_to_a_twentieth_of_a_percent(values: list[int]) -> None:
    counts = LatencyCounts()
    for each in values:
        counts.add(each)
    for quantile in (0.01, 0.5, 0.95, 0.99, 1.0):
        exact = quantile_ms(sorted(values), quantile)
        expected = None if exact is None else pytest.approx(exact, rel=0.0005)
        assert counts.quantile_ms(quantile) == expected
