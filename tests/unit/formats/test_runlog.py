from __future__ import annotations

import json
from fractions import Fraction
from typing import get_args

import pytest

from penstock.domain.errors import InvalidTrace
from penstock.domain.ids import BatchId, InstanceId, ModelName, PipelineId, RequestId
from penstock.domain.requests import DropReason, Slice
from penstock.formats.runlog import (
    EFFECTS,
    EVENTS,
    LogEntry,
    open_run_log,
    read_run_log,
    write_entry,
    write_run_log,
)
from penstock.formats.runlog_header import LogHeader, spelled, write_header
from penstock.policies import BATCHING, ROUTING, batching_policy, routing_policy
from penstock.scheduling.dispatcher import DispatcherLimits
from penstock.scheduling.effects import (
    CancelBatch,
    CompleteRequest,
    DropRequest,
    Effect,
    Hop,
    RunBatch,
    WakeAt,
)
from penstock.scheduling.events import Event, PlanApplied, RequestArrived, WakeUp
from tests.support.builders import a_model_plan, a_plan, a_pool, a_request

RUN = RunBatch(
    batch=BatchId(1),
    model=ModelName("m"),
    pipeline=PipelineId("m.0"),
    route=(Hop(instance=InstanceId("p0/0"), start_us=5, end_us=9, sequence=0),),
    slices=(Slice(RequestId(0), 0, 1),),
    abandon_us=100,
    completion_us=9,
)
ENTRIES = (
    LogEntry(0, PlanApplied(a_plan(a_model_plan([a_pool(share=Fraction(1, 2))]))), ()),
    LogEntry(5, RequestArrived(a_request(arrival_us=5)), (RUN, WakeAt(7))),
    LogEntry(
        7,
        WakeUp(),
        (
            CompleteRequest(RequestId(0), met_deadline=True),
            DropRequest(RequestId(1), DropReason.SHED, "queue\nfull"),
            CancelBatch(BatchId(2), (InstanceId("p0/0"), InstanceId("p0/1"))),
        ),
    ),
)


def test_reading_back_gives_equal_entries() -> None:
    text = write_run_log(ENTRIES)
    assert len(text.splitlines()) == 3
    assert tuple(read_run_log(text.splitlines(), "run.jsonl")) == ENTRIES


def test_one_line_has_kinds_and_plain_fields() -> None:
    line = write_entry(3, RequestArrived(a_request()), [DropRequest(RequestId(0), DropReason.SHED)])
    assert line == (
        '{"now_us":3,"event":{"kind":"RequestArrived","request":{"id":0,"model":"m","samples":1,'
        '"arrival_us":0,"deadline_us":100000,"priority":0},"followed":false},"effects":'
        '[{"kind":"DropRequest","request":0,"reason":"shed","detail":""}]}\n'
    )


def test_every_event_and_effect_has_a_kind() -> None:
    assert set(EVENTS.values()) == set(get_args(Event))
    assert set(EFFECTS.values()) == set(get_args(Effect))


GOOD = json.loads(write_entry(9, WakeUp(), [WakeAt(10)]))


@pytest.mark.parametrize(
    ("content", "place", "expected", "found"),
    [
        ([], "", "an object of now_us, event and effects", "an empty list"),
        ({**GOOD, "now": 1}, "", "an object of now_us, event", "now_us, event, effects, now"),
        ({}, "", "an object of now_us, event and effects", "nothing"),
        ({**GOOD, "now_us": -1}, "now_us", "an integer of at least 0", "-1"),
        ({**GOOD, "now_us": True}, "now_us", "an integer of at least 0", "true"),
        ({**GOOD, "now_us": 3}, "now_us", "at least 8, as before", "3"),
        ({**GOOD, "event": None}, "event", "an object with a kind", "null"),
        ({**GOOD, "event": {}}, "event.kind", "one of RequestArrived, RequestCanc", "null"),
        ({**GOOD, "event": {"kind": "WakeAt"}}, "event.kind", "one of RequestArr", "'WakeAt'"),
        ({**GOOD, "effects": {}}, "effects", "a list", "an empty object"),
        ({**GOOD, "effects": [{"kind": "WakeAt"}]}, "effects[0].at_us", "a value, which", "none"),
        ({**GOOD, "effects": [{"kind": "WakeAt", "at_us": "1"}]}, "effects[0].at_us", "an", "'1'"),
        (
            {**GOOD, "effects": [{"kind": "DropRequest", "request": 1, "reason": "bored"}]},
            "effects[0].reason",
            "'deadline', 'shed', 'unavailable', 'failed' or 'cancelled'",
            "'bored'",
        ),
    ],
)
def test_a_bad_line_is_named(content: object, place: str, expected: str, found: str) -> None:
    lines = [write_entry(8, WakeUp(), []), "\n", json.dumps(content)]
    with pytest.raises(InvalidTrace) as caught:
        list(read_run_log(lines, "run.jsonl"))
    assert (caught.value.source, caught.value.place) == ("run.jsonl, line 3", place)
    assert expected in caught.value.expected
    assert found in caught.value.found


def test_a_line_cut_short_is_named() -> None:
    line = write_entry(8, WakeUp(), [])[:20]
    with pytest.raises(InvalidTrace, match=r"run\.jsonl, line 1: line 1, column 21: expected JSON"):
        list(read_run_log([line], "run.jsonl"))


HEADER = LogHeader(
    penstock="9.9",
    simulated=True,
    policy="fixed:size=4,timeout_us=10",
    routing="round-robin:weighted=true",
    limits=DispatcherLimits(queue_samples=5, rebookings=1, stall_us=7),
)


def test_a_header_comes_first_and_is_read_back() -> None:
    text = write_run_log(ENTRIES, HEADER)
    assert text.startswith('{"schema":"penstock.run-log/1","penstock":"9.9","simulated":true,')
    log = open_run_log(text.splitlines(), "run.jsonl")
    assert log.header == HEADER
    assert [(each.line, each.entry) for each in log.lines] == list(enumerate(ENTRIES, start=2))
    assert tuple(read_run_log(text.splitlines(), "run.jsonl")) == ENTRIES


def test_a_log_may_lack_a_header_or_everything() -> None:
    log = open_run_log(["\n", *write_run_log(ENTRIES).splitlines()], "run.jsonl")
    assert log.header is None
    assert [each.line for each in log.lines] == [2, 3, 4]
    empty = open_run_log([], "run.jsonl")
    assert (empty.header, list(empty.lines)) == (None, [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "penstock.run-log/2"}, "schema: expected 'penstock.run-log/1', the one"),
        ({"policy": 3}, "policy: expected text, found 3"),
        ({"limits": {"stall": 1}}, "limits: expected only the fields queue_samples, reb"),
        ({"speed": 1}, "expected only the fields penstock, simulated, policy"),
    ],
)
def test_a_bad_header_is_named(changes: dict[str, object], message: str) -> None:
    line = json.dumps({**json.loads(write_header(HEADER)), **changes})
    with pytest.raises(InvalidTrace) as caught:
        open_run_log([line], "run.jsonl")
    assert str(caught.value).startswith("run.jsonl, line 1: " + message)


def test_a_header_further_down_is_no_entry() -> None:
    lines = [write_entry(8, WakeUp(), []), write_header(HEADER)]
    with pytest.raises(InvalidTrace, match="line 2: expected an object of now_us"):
        list(read_run_log(lines, "run.jsonl"))


@pytest.mark.parametrize("torn", ['{"now_us":9,"ev', "\0\0\0", "{"])
def test_a_last_line_cut_short_is_told_where_that_is_asked_for(torn: str) -> None:
    told: list[int] = []
    lines = [write_entry(8, WakeUp(), []), torn]
    assert len(list(open_run_log(lines, "run.jsonl", told.append).lines)) == 1
    assert told == [2]
    with pytest.raises(InvalidTrace):
        list(open_run_log(lines, "run.jsonl").lines)
    with pytest.raises(InvalidTrace):  # it ends as a line does: nothing was cut
        list(open_run_log([lines[0], torn + "\n"], "run.jsonl", told.append).lines)
    with pytest.raises(InvalidTrace):  # nor here
        list(open_run_log([lines[0], "[]"], "run.jsonl", told.append).lines)
    assert told == [2]


@pytest.mark.parametrize("name", BATCHING)
def test_a_batching_policy_is_spelled_with_all_its_parameters(name: str) -> None:
    text = spelled(name, batching_policy(name)())
    assert spelled(text, batching_policy(text)()) == text
    assert spelled(name, batching_policy(text)()) == text


@pytest.mark.parametrize("name", ROUTING)
def test_a_routing_policy_is_spelled_with_all_its_parameters(name: str) -> None:
    text = spelled(name, routing_policy(name)())
    assert spelled(text, routing_policy(text)()) == text


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("fixed", "fixed:size=none,timeout_us=5000"),
        ("fixed:size=4", "fixed:size=4,timeout_us=5000"),
        ("round-robin:weighted=true", "round-robin:weighted=true"),
        ("triton:preferred=2+4", "triton:preferred=2+4,max_queue_delay_us=0"),
        ("triton", "triton:max_queue_delay_us=0"),
        ("least-queueing", "least-queueing"),
    ],
)
def test_parameters_are_spelled_as_options_are(spec: str, text: str) -> None:
    policy = (
        routing_policy(spec)() if spec.partition(":")[0] in ROUTING else batching_policy(spec)()
    )
    assert spelled(spec, policy) == text
