"""Triton's dynamic batcher: preferred sizes, and a queue delay to reach one.

Source: NVIDIA Triton Inference Server, `dynamic_batching` of the model configuration, and the
scheduler behind it. When an instance is free: a preferred size that the queue fills is launched
at once; else what is queued is launched if there is more than a batch of it, or no delay is
configured, or the oldest request of the batch has waited for the delay; else it waits.
A request older than the delay takes everything queued with it, preferred size or not.

Deliberate differences, argued in docs/policies.md: a request's deadline is its queue timeout, with
the action REJECT; the queue is ordered by priority and deadline, not by arrival; requests of
several samples may be cut, which Triton never does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from penstock.domain.units import Micros
from penstock.policies.batching.shared import expired, until_due, until_free, window
from penstock.policies.parameters import Within
from penstock.scheduling.ports import Decision, Finished, Launch, Outlook


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonPolicy:
    """Launches preferred sizes, and anything once the queue delay has passed.

    Attributes:
        preferred: sizes launched as soon as they are reached (`preferred_batch_size`); those
            above the planned batch are ignored; without any, the planned batch alone.
        max_queue_delay_us: how long a request may be held for a preferred size, in microseconds
            (`max_queue_delay_microseconds`).
    """

    preferred: Annotated[tuple[int, ...], Within(least=1)] = ()
    max_queue_delay_us: Micros = 0

    def decide(self, outlook: Outlook) -> Decision:
        """Launch the largest preferred size that waits, or hold what there is for the delay."""
        if drop := expired(outlook):
            return drop
        planned = outlook.offers()[0]
        pending = window(outlook, planned)
        if wait := until_free(outlook, pending):
            return wait
        held = until_due(outlook, pending.size, self.max_queue_delay_us)
        sizes = [each for each in self.preferred if each <= planned.size] or [planned.size]
        best = max((each for each in sizes if each <= pending.size), default=0)
        if best and (held or self.max_queue_delay_us == 0):
            return Launch(outlook.resize(planned, best))
        return held or Launch(pending)

    def observe(self, finished: Finished) -> None:
        """Learn nothing: sizes and delay are configured."""
