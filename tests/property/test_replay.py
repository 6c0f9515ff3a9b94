"""Whatever happens to a dispatcher: its log, fed to a fresh one, gives the same effects."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from penstock.domain.ids import ModelName
from penstock.formats.runlog import open_run_log
from penstock.policies import BATCHING, ROUTING
from penstock.scheduling.dispatcher import Dispatcher, DispatcherLimits
from penstock.scheduling.events import Event
from simulator.replays.replay import replay
from simulator.replays.state import LogState
from tests.property.test_dispatcher import PAIRS, DispatcherMachine
from tests.support.recording import Recorder

LIMITS = DispatcherLimits(queue_samples=24)
M = ModelName("m")


class RecordedMachine(DispatcherMachine):
    """Writes the log of the world it plays, and replays it at the end."""

    def feed(self, event: Event) -> None:
        if not hasattr(self, "recorder"):
            self.recorder = Recorder(self.dispatcher, None)
        for effect in self.recorder.handle(self.now_us, event):
            self.take(effect)

    def teardown(self) -> None:
        super().teardown()
        if not hasattr(self, "recorder"):
            return
        again = Dispatcher(BATCHING[self.batching], ROUTING[self.routing], LIMITS)
        lines = self.recorder.lines
        result = replay(open_run_log(lines, "log").lines, "log", again)
        assert result.divergence is None
        assert (result.entries, result.requests) == (len(lines), self.number)
        assert result.open_requests == 0
        state = LogState()
        followed = Dispatcher(BATCHING[self.batching], ROUTING[self.routing], LIMITS)
        for line in open_run_log(lines, "log").lines:
            followed.handle(line.entry.now_us, line.entry.event)
            state.take(line.entry)
            assert state.model(M).waiting_samples == followed.waiting_samples(M)
            assert state.open_requests == followed.open_requests


@pytest.mark.parametrize(("batching", "routing"), PAIRS)
def test_any_log_replays_to_identical_effects(batching: str, routing: str) -> None:
    machine = type("Machine", (RecordedMachine,), {"batching": batching, "routing": routing})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=15, stateful_step_count=30, deadline=None)
    )
