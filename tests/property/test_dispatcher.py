"""The dispatcher under random events: validated after each one."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from penstock.domain.ids import BatchId, InstanceId, RequestId
from penstock.domain.requests import DropReason, Request
from penstock.policies import BATCHING, ROUTING
from penstock.scheduling.dispatcher import Dispatcher, DispatcherLimits
from penstock.scheduling.effects import (
    CancelBatch,
    CompleteRequest,
    DropRequest,
    Effect,
    PartHop,
    RunBatch,
    WakeAt,
)
from penstock.scheduling.events import (
    BatchFailed,
    BatchFinished,
    Event,
    InstanceJoined,
    InstanceLost,
    PlanApplied,
    RequestArrived,
    RequestCancelled,
    StageFinished,
    WakeUp,
)
from penstock.scheduling.invariants import validate
from tests.support.builders import a_model_plan, a_plan, a_pool, a_request, all_joined

# They launch nothing that is predicted to be late.
PUNCTUAL = ("reservation", "nexus", "proteus")


def gathers_and_splits(batches: tuple[int, ...]) -> bool:
    """Whether each batch divides the largest before it, or is a multiple of it."""
    largest = 1
    for batch in batches:
        if largest % batch and batch % largest:
            return False
        largest = max(largest, batch)
    return True


UNEVEN = [each for each in product((1, 2, 3, 4, 6), repeat=3) if gathers_and_splits(each)]


class DispatcherMachine(RuleBasedStateMachine):
    """A world that knows nothing but the dispatcher's effects, and answers as it likes."""

    batching = "reservation"
    routing = "least-queueing"

    @initialize(
        batches=st.one_of(
            st.integers(1, 4).map(lambda batch: (batch,) * 3),
            st.sampled_from(UNEVEN),
        ),
        pools=st.lists(st.integers(1, 3), min_size=1, max_size=3),
        pipelines=st.integers(1, 2),
        transfer_us=st.sampled_from([0, 700]),
        servers=st.sampled_from([0, 2]),
        hop_us=st.sampled_from([0, 500]),
        build_us=st.sampled_from([0, 4_000]),
    )
    def start(
        self,
        batches: tuple[int, ...],
        pools: list[int],
        pipelines: int,
        transfer_us: int,
        servers: int,
        hop_us: int,
        build_us: int,
    ) -> None:
        self.batches = batches[: len(pools)]
        routes = [
            [
                a_pool(
                    f"{line}.{stage}",
                    position=stage,
                    blocks=(stage, stage + 1),
                    latencies_us=[8_000 + 2_000 * size for size in range(batches[stage])],
                    instances=count,
                    share=Fraction(1),
                )
                for stage, count in enumerate(pools)
            ]
            for line in range(pipelines)
        ]
        model = a_model_plan(*routes, transfer_us=transfer_us, batch_build_us=build_us)
        self.plan = a_plan(model, hop_us=hop_us)
        self.dispatcher = Dispatcher(
            BATCHING[self.batching], ROUTING[self.routing], DispatcherLimits(queue_samples=24)
        )
        self.now_us = 0
        self.number = 0
        self.open: dict[RequestId, Request] = {}
        self.ended: dict[RequestId, object] = {}
        self.flying: dict[BatchId, RunBatch] = {}
        self.wake_us: int | None = None
        self.gone: list[InstanceJoined] = []
        self.up: dict[InstanceId, InstanceJoined] = {}
        self.feed(PlanApplied(self.plan))
        for joined in all_joined(self.plan, servers=servers):
            self.up[joined.instance] = joined
            self.feed(joined)

    def feed(self, event: Event) -> None:
        for effect in self.dispatcher.handle(self.now_us, event):
            self.take(effect)

    def take(self, effect: Effect) -> None:
        match effect:
            case RunBatch():
                self.take_batch(effect)
            case CompleteRequest(request, met):
                known = self.open.pop(request)
                assert met == (self.now_us <= known.deadline_us)
                self.end(request, "completed")
            case DropRequest(request, reason):
                if reason is not DropReason.SHED or request in self.open:
                    self.open.pop(request, None)
                self.end(request, reason)
            case CancelBatch(batch, instances):
                assert set(instances) <= set(self.up)
                self.flying.pop(batch, None)
            case WakeAt(at_us):
                assert at_us > self.now_us
                self.wake_us = at_us

    def take_batch(self, effect: RunBatch) -> None:
        samples = sum(each.count for each in effect.slices)
        assert 1 <= samples <= max(self.batches)
        self.check_route(effect, samples)
        assert {hop.instance for hop in effect.route} <= set(self.up)
        for each in effect.slices:
            request = self.open[each.request]
            assert 0 <= each.first < each.first + each.count <= request.samples
            if self.batching in PUNCTUAL:
                assert effect.completion_us <= request.deadline_us
        assert effect.batch not in self.flying
        self.flying[effect.batch] = effect

    def check_route(self, effect: RunBatch, samples: int) -> None:
        """Each stage takes every row once, when the rows are there, no more than its batch."""
        came_us = dict.fromkeys(range(samples), self.now_us)
        for stage, batch in enumerate(self.batches):
            left_us: dict[int, int] = {}
            for place, hop in enumerate(effect.route):
                at, rows = stage, range(samples)
                if isinstance(hop, PartHop):
                    at, rows = hop.stage, range(hop.first, hop.first + hop.count)
                elif place != stage:
                    continue
                if at == stage:
                    assert 1 <= len(rows) <= batch
                    assert not left_us.keys() & set(rows)
                    assert hop.start_us >= max(came_us[row] for row in rows)
                    left_us |= dict.fromkeys(rows, hop.end_us)
            assert left_us.keys() == came_us.keys()
            came_us = left_us

    def end(self, request: RequestId, how: object) -> None:
        assert request not in self.ended, "a request ended twice"
        self.ended[request] = how

    @rule(
        samples=st.integers(1, 9),
        slo_us=st.sampled_from([0, 15_000, 60_000, 200_000]),
        priority=st.sampled_from([0, 0, 1, 2]),
        count=st.integers(1, 6),
    )
    def arrive(self, samples: int, slo_us: int, priority: int, count: int) -> None:
        for _ in range(count):
            request = a_request(
                self.number,
                arrival_us=self.now_us,
                slo_us=slo_us,
                samples=samples,
                priority=priority,
            )
            self.number += 1
            self.open[request.id] = request
            self.feed(RequestArrived(request))

    @rule(delta_us=st.integers(1, 30_000))
    def let_time_pass(self, delta_us: int) -> None:
        target_us = self.now_us + delta_us
        while self.wake_us is not None and self.wake_us <= target_us:
            self.now_us = self.wake_us
            self.wake_us = None
            self.feed(WakeUp())
        self.now_us = target_us

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def report_stage(self, data: st.DataObject) -> None:
        batch = data.draw(st.sampled_from(sorted(self.flying)))
        stage = data.draw(st.integers(0, len(self.flying[batch].route) - 1))
        self.feed(StageFinished(batch=batch, stage=stage, compute_us=10_000))

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        batch = data.draw(st.sampled_from(sorted(self.flying)))
        del self.flying[batch]
        self.feed(BatchFinished(batch))
        self.feed(BatchFinished(batch))  # an answer that comes twice changes nothing

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), too_late=st.booleans(), retriable=st.booleans())
    def fail(self, data: st.DataObject, too_late: bool, retriable: bool) -> None:
        batch = data.draw(st.sampled_from(sorted(self.flying)))
        del self.flying[batch]
        self.feed(BatchFailed(batch=batch, detail="boom", too_late=too_late, retriable=retriable))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(sorted(self.open)))
        self.feed(RequestCancelled(request))
        assert self.ended[request] is DropReason.CANCELLED
        self.feed(RequestCancelled(request))

    @precondition(lambda self: self.up)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        instance = data.draw(st.sampled_from(sorted(self.up)))
        self.gone.append(self.up.pop(instance))
        self.feed(InstanceLost(instance))

    @precondition(lambda self: self.gone)
    @rule()
    def rejoin(self) -> None:
        joined = self.gone.pop()
        self.up[joined.instance] = joined
        self.feed(joined)

    @rule()
    def wake_too_often(self) -> None:
        self.feed(WakeUp())

    @rule()
    def apply_again(self) -> None:
        self.feed(PlanApplied(self.plan))
        for joined in self.up.values():
            self.feed(joined)

    @invariant()
    def holds_together(self) -> None:
        if hasattr(self, "dispatcher"):
            validate(self.dispatcher)
            assert self.dispatcher.open_requests == len(self.open)

    def teardown(self) -> None:
        """Everything that is open ends once time has passed, whatever was lost."""
        if not hasattr(self, "dispatcher"):
            return
        for _ in range(10_000):
            if self.wake_us is None:
                break
            self.now_us = max(self.now_us, self.wake_us)
            self.wake_us = None
            self.feed(WakeUp())
        assert not self.open
        assert len(self.ended) == self.number


# Every policy of one table with a plain one of the other, and one that tries several pipelines
# with every routing policy.
PAIRS = sorted(
    {(batching, "least-queueing") for batching in BATCHING}
    | {("fixed", routing) for routing in ROUTING}
    | {("nexus", routing) for routing in ROUTING}
)


@pytest.mark.parametrize(("batching", "routing"), PAIRS)
def test_dispatcher_holds_together(batching: str, routing: str) -> None:
    machine = type("Machine", (DispatcherMachine,), {"batching": batching, "routing": routing})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=60, stateful_step_count=40, deadline=None)
    )
