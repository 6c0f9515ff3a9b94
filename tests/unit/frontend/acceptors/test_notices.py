"""What is written as a notice is read as what it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.acceptors import notices
from frontend.courier import Errand, Reply
from penstock.domain.errors import InvalidInput
from penstock.domain.ids import BatchId, InstanceId, ModelName, RequestId
from penstock.domain.requests import DropReason, Request, Slice
from penstock.formats.plans import write_plan
from penstock.scheduling.effects import DropRequest, Hop, PartHop
from protos import acceptors_pb2 as pb
from tests.support.builders import a_plan
from tests.support.frontends import a_catalogue

COUNTS = st.integers(1, (1 << 32) - 1)
PLACES = st.integers(0, (1 << 32) - 1)
NUMBERS = st.integers(0, (1 << 64) - 1)
INSTANTS = st.integers(-(1 << 62), 1 << 62)
INSTANCES = st.text().map(InstanceId)
BOOKED = {"instance": INSTANCES, "start_us": INSTANTS, "end_us": INSTANTS, "sequence": NUMBERS}
HOPS = st.lists(st.builds(Hop, **BOOKED), min_size=1, max_size=3).map(tuple)
PARTS = st.lists(
    st.builds(PartHop, **BOOKED, stage=PLACES, first=PLACES, count=COUNTS), min_size=1, max_size=4
).map(tuple)
ERRANDS = st.builds(
    Errand,
    batch=NUMBERS.map(BatchId),
    model=st.text().map(ModelName),
    samples=COUNTS,
    route=st.one_of(HOPS, PARTS),
    slices=st.lists(
        st.builds(Slice, NUMBERS.map(RequestId), PLACES, COUNTS), min_size=1, max_size=4
    ).map(tuple),
    abandon_us=INSTANTS,
    first=PLACES,
    replies=st.lists(
        st.builds(Reply, address=st.text(), first=PLACES, count=COUNTS), max_size=3
    ).map(tuple),
)
REQUESTS = st.builds(
    Request,
    id=NUMBERS.map(RequestId),
    model=st.text().map(ModelName),
    samples=COUNTS,
    arrival_us=INSTANTS,
    deadline_us=INSTANTS,
    priority=NUMBERS,
)


@given(ERRANDS)
def test_an_errand_stays_what_it_is(errand: Errand) -> None:
    wire = pb.Errand.FromString(notices.write_errand(errand).SerializeToString())
    assert notices.read_errand(wire) == errand


@given(REQUESTS, NUMBERS)
def test_a_request_only_changes_its_number(request: Request, number: int) -> None:
    wire = pb.RequestArrival.FromString(notices.write_arrival(request).SerializeToString())
    assert wire.request == request.id
    assert notices.read_arrival(wire, RequestId(number)) == replace(request, id=RequestId(number))


@given(st.sampled_from(DropReason), st.text(), NUMBERS)
def test_a_drop_keeps_its_reason(reason: DropReason, detail: str, number: int) -> None:
    wire = notices.write_drop(DropRequest(RequestId(3), reason, detail), number)
    assert notices.read_drop(wire) == DropRequest(RequestId(number), reason, detail)


def test_contradictions_are_refused() -> None:
    with pytest.raises(InvalidInput, match="samples: expected at least 1, found 0"):
        notices.read_arrival(pb.RequestArrival(model="m"), RequestId(0))
    with pytest.raises(InvalidInput, match="reason: expected deadline, shed"):
        notices.read_drop(pb.RequestDropped(reason="boredom"))
    with pytest.raises(InvalidInput, match="route, slices"):
        notices.read_errand(pb.Errand(batch=1))


def test_a_catalogue_stays_what_it_is() -> None:
    catalogue = a_catalogue()
    plan = a_plan(*(model.plan for model in catalogue))
    settings = pb.AcceptorSettings(plan=write_plan(plan), models=notices.write_models(catalogue))
    assert list(notices.read_catalogue(settings)) == list(catalogue)
