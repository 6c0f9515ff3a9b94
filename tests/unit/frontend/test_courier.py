"""Rows of several couriers in one batch: whatever the cuts, each request gets its own back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.courier import Courier, Errand, Reply
from frontend.ingress import Answer, Ingress
from frontend.instance_links import InstanceLinks
from penstock.domain.ids import BatchId, InstanceId, ModelName, RequestId
from penstock.domain.requests import Slice
from penstock.domain.tensors import Buffer, Tensor
from penstock.rpc.frames import pack, unpack
from penstock.rpc.links import LinkFull, LinkLost
from penstock.scheduling.effects import CompleteRequest, Hop, PartHop
from penstock.scheduling.parts import Part, cut
from protos.link_pb2 import BatchResult, FrameHeader, RunStage, TensorHeader

BATCH = BatchId(7)
ROW_BYTES = 2


class FakeLinks(InstanceLinks):
    """Keeps what is sent, or refuses it."""

    def __init__(self) -> None:
        super().__init__("acceptor", lambda _instance, _address: None)
        self.frames: list[tuple[RunStage, bytes]] = []
        self.refusal: Exception | None = None

    def address(self, instance: InstanceId) -> str:
        return f"{instance}:1"

    def send(self, instance: InstanceId, header: FrameHeader, parts: Iterable[Buffer] = ()) -> None:
        if self.refusal is not None:
            raise self.refusal
        sent, (data,) = unpack(pack(header, parts))
        self.frames.append((sent.run_stage, bytes(data)))


@dataclass
class Place:
    """A process that holds requests, with its courier."""

    ingress: Ingress = field(default_factory=Ingress)
    links: FakeLinks = field(default_factory=FakeLinks)
    ends: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.courier = Courier(self.ingress, self.links, lambda: 0, self, "here:1")

    def delivered(self, batch: BatchId) -> None:
        self.ends.append(f"delivered {batch}")

    def failed(self, batch: BatchId, detail: str, *, retriable: bool) -> None:
        self.ends.append(f"failed {batch}, retriable {retriable}: {detail}")

    def unreachable(self, instance: InstanceId) -> None:
        self.ends.append(f"unreachable {instance}")


def rows_of(place: int, request: int, count: int) -> bytes:
    return b"".join(bytes([16 * place + request, row]) for row in range(count))


def a_route(size: int, batches: Sequence[int]) -> tuple[PartHop | Hop, ...]:
    """Return a route through stages that take at most so many rows at once."""
    if all(each >= size for each in batches):
        return tuple(
            Hop(instance=InstanceId(f"i{stage}"), start_us=0, end_us=0, sequence=0)
            for stage in range(len(batches))
        )
    return tuple(
        PartHop(
            instance=InstanceId(f"i{part.stage}"),
            start_us=0,
            end_us=0,
            sequence=place,
            stage=part.stage,
            first=part.first,
            count=part.count,
        )
        for place, part in enumerate(cut(size, batches).parts)
    )


def a_result(first: int, data: bytes, *, whole: bool = False) -> tuple[BatchResult, memoryview]:
    count = len(data) // ROW_BYTES
    head = TensorHeader(name="y", datatype="UINT8", shape=[count, 2], byte_size=len(data))
    result = BatchResult(batch_id=BATCH, tensors=[head])
    if not whole:
        result.first, result.count = first, count
    return result, memoryview(data)


def an_errand(*counts: int, first: int = 0, samples: int = 0) -> Errand:
    samples = samples or sum(counts)
    slices = tuple(Slice(RequestId(number), 0, count) for number, count in enumerate(counts))
    return Errand(
        batch=BATCH,
        model=ModelName("m"),
        samples=samples,
        route=a_route(samples, (samples,)),
        slices=slices,
        abandon_us=1_000,
        first=first,
        replies=(Reply(address="here:1", first=first, count=sum(counts)),),
    )


def sent_whole(frames: Iterable[tuple[RunStage, bytes]], size: int) -> bytes:
    """Return the batch that the frames to the first stage make, each row brought once."""
    rows: dict[int, bytes] = {}
    for run, data in frames:
        assert run.samples == size
        assert len(data) == run.count * ROW_BYTES
        for row in range(run.count):
            assert run.first + row not in rows
            rows[run.first + row] = data[row * ROW_BYTES : (row + 1) * ROW_BYTES]
    assert sorted(rows) == list(range(size))
    return b"".join(rows[row] for row in range(size))


@given(
    st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=3), min_size=1, max_size=3),
    st.lists(st.integers(1, 8), min_size=1, max_size=3),
    st.randoms(use_true_random=False),
)
def test_every_request_gets_its_own_rows(
    held: list[list[int]], batches: list[int], dice: Random
) -> None:
    asyncio.run(_check_rows(held, batches, dice))


async def _check_rows(held: list[list[int]], batches: list[int], dice: Random) -> None:
    """Send one batch of requests held in several places through stages that change nothing.

    Args:
        held: samples of each request, place by place.
        batches: how many rows each stage takes at once.
        dice: in which order results come back.
    """
    size = sum(map(sum, held))
    route = a_route(size, batches)
    places = [Place() for _ in held]
    futures = []
    replies, first = [], 0
    for number, counts in enumerate(held):
        replies.append(Reply(address=f"place{number}", first=first, count=sum(counts)))
        first += sum(counts)
    for number, (place, counts) in enumerate(zip(places, held, strict=True)):
        for request, count in enumerate(counts):
            data = rows_of(number, request, count)
            inputs = (Tensor("x", "UINT8", (count, 2), data),)
            futures.append((data, place.ingress.open(RequestId(request), count, inputs)))
        place.courier.carry(
            Errand(
                batch=BATCH,
                model=ModelName("m"),
                samples=size,
                route=route,
                slices=tuple(Slice(RequestId(r), 0, c) for r, c in enumerate(counts)),
                abandon_us=1_000,
                first=replies[number].first,
                replies=tuple(replies),
            )
        )
    batch = sent_whole([each for place in places for each in place.links.frames], size)
    for place in places:
        assert all(list(run.replies) for run, _ in place.links.frames)
    last = route[-1]
    parts = [Part(0, 0, size)]
    if isinstance(last, PartHop):
        parts = [
            Part(0, hop.first, hop.count)
            for hop in route
            if isinstance(hop, PartHop) and hop.stage == last.stage
        ]
    arrivals = [
        (place, part.rows_of(Part(0, reply.first, reply.count)))
        for part in parts
        for place, reply in zip(places, replies, strict=True)
    ]
    arrivals = [each for each in arrivals if each[1].count > 0]
    dice.shuffle(arrivals)
    for place, rows in [*arrivals, *arrivals]:  # what comes twice is taken once
        data = batch[rows.first * ROW_BYTES : rows.end * ROW_BYTES]
        result, view = a_result(rows.first, data)
        place.courier.take(result, [view])
    for place, counts in zip(places, held, strict=True):
        assert place.ends == [f"delivered {BATCH}"]
        for request in range(len(counts)):
            place.ingress.finish(CompleteRequest(RequestId(request), met_deadline=True))
    for data, future in futures:
        answer = future.result()
        assert isinstance(answer, Answer)
        (output,) = answer.outputs
        assert bytes(output.data) == data


async def a_place(*counts: int) -> Place:
    place = Place()
    for request, count in enumerate(counts):
        inputs = (Tensor("x", "UINT8", (count, 2), rows_of(0, request, count)),)
        place.ingress.open(RequestId(request), count, inputs)
    return place


async def test_the_only_courier_says_nothing_of_rows() -> None:
    place = await a_place(2)
    errand = an_errand(2)
    place.courier.carry(
        Errand(
            batch=BATCH,
            model=errand.model,
            samples=2,
            route=errand.route,
            slices=errand.slices,
            abandon_us=1_000,
        )
    )
    ((run, _),) = place.links.frames
    assert (run.first, run.count, list(run.replies), run.reply_to) == (0, 0, [], "here:1")
    result, view = a_result(0, rows_of(0, 0, 2), whole=True)
    place.courier.take(result, [view])
    assert place.ends == [f"delivered {BATCH}"]


async def test_rows_of_a_forgotten_batch_reach_no_request() -> None:
    place = await a_place(2)
    place.courier.carry(an_errand(2))
    place.courier.forget(BATCH)
    result, view = a_result(0, rows_of(0, 0, 2))
    place.courier.take(result, [view])
    assert place.ends == []
    result, view = a_result(0, rows_of(0, 0, 2), whole=True)
    place.courier.take(result, [view])
    assert place.ends == [f"delivered {BATCH}"]  # frees what is still booked


async def test_rows_that_do_not_fit_fail_the_batch() -> None:
    place = await a_place(2)
    place.courier.carry(an_errand(2))
    result, view = a_result(0, rows_of(0, 0, 1))
    result.count = 2
    place.courier.take(result, [view])
    (end,) = place.ends
    assert end.startswith(f"failed {BATCH}, retriable False: stage result: y: expected 2 rows")


@pytest.mark.parametrize(
    ("refusal", "end"),
    [
        (LinkLost("gone"), "unreachable i0"),
        (LinkFull("full"), f"failed {BATCH}, retriable True: full"),
    ],
)
async def test_rows_that_cannot_be_sent_are_told(refusal: Exception, end: str) -> None:
    place = await a_place(2)
    place.links.refusal = refusal
    place.courier.carry(an_errand(2))
    assert place.ends == [end]
