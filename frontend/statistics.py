"""Counts per model since the start, as the protocol's statistics extension wants them.

A book of the ledger; knows nothing of Prometheus.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from frontend.ledger import BatchRecord, RequestRecord, StageRecord
from penstock.domain.ids import ModelName
from penstock.rpc.oip import ModelSignature
from penstock.rpc.oip_descriptions import BatchTally, ModelTally, write_statistics
from protos.inference_pb2 import ModelStatisticsResponse


class Statistics:
    """One tally per model.

    Args:
        models: those that are served.
        wall_clock_ms: milliseconds since 1970, for the time of the last inference.
    """

    def __init__(self, models: Iterable[ModelName], wall_clock_ms: Callable[[], int]) -> None:
        self._tallies = {model: ModelTally() for model in models}
        self._wall_clock_ms = wall_clock_ms

    def of(self, model: ModelName) -> ModelTally:
        """Return the tally of a model that is served."""
        return self._tallies[model]

    async def tell(self, signatures: Sequence[ModelSignature]) -> ModelStatisticsResponse:
        """Return what was counted of these models."""
        return self.written(signatures)

    def written(self, signatures: Sequence[ModelSignature]) -> ModelStatisticsResponse:
        """Return what was counted of these models, as clients are told."""
        return write_statistics([(each, self.of(each.name)) for each in signatures])

    def request_ended(self, record: RequestRecord) -> None:
        """Count a request."""
        tally = self._tallies[record.model]
        if not record.answered:
            tally.fail.add(record.duration_us)
            return
        tally.success.add(record.duration_us)
        tally.queue.add(record.queue_us or 0)
        tally.handover.add(record.handover_us)
        tally.compute.add(record.compute_us)
        tally.samples += record.samples
        tally.last_inference_ms = self._wall_clock_ms()

    def batch_ended(self, record: BatchRecord) -> None:
        """Count a batch under its size."""
        tally = self._tallies[record.model]
        tally.batches += 1
        batch = tally.by_batch.setdefault(record.samples, BatchTally())
        batch.handover.add(record.handover_us)
        batch.compute.add(record.compute_us)

    def stage_ended(self, record: StageRecord) -> None:
        """Leave stages alone: the protocol has no place for them."""
