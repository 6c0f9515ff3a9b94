"""Prometheus metrics of the frontend, in base units, with histograms that can be added up.

A book of the ledger. Every labelled child is made at the start, because looking labels up for
each request costs more than counting it. Uses its own registry, never the library's global one.
Knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge

from frontend.histograms import Histogram
from frontend.ledger import ANSWERED, CANCELLED, LATE, BatchRecord, RequestRecord, StageRecord
from penstock import __version__
from penstock.domain.ids import ModelName, PoolId
from penstock.domain.plan import ModelPlan
from penstock.domain.requests import DropReason
from penstock.domain.units import US_PER_SECOND, Micros

_OUTCOMES = (ANSWERED, LATE, *(reason.value for reason in DropReason))
_MISSES = tuple(outcome for outcome in _OUTCOMES if outcome not in (ANSWERED, CANCELLED))

# Half a millisecond to ten seconds, about two steps per doubling where SLOs are usual.
_MILLISECONDS = (0.5, 1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200, 300, 400, 500, 750)
_SECONDS = (*(each / 1_000 for each in _MILLISECONDS), 1.0, 2.0, 5.0, 10.0)
_SIZES = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 128.0)


class Metrics:
    """All metrics of one frontend.

    Args:
        models: those that are served.
        registry: where they are registered.
    """

    def __init__(self, models: Iterable[ModelPlan], registry: CollectorRegistry) -> None:
        self._models = tuple(models)
        self._registry = registry
        self._info()
        self._request_metrics()
        self._batch_metrics()
        self._refused = Counter(
            "penstock_requests_refused",
            "Requests refused before they reached the dispatcher.",
            ["status"],
            registry=registry,
        )

    def watch(
        self,
        in_flight: Callable[[ModelName], float],
        waiting: Callable[[ModelName], float],
        ready_instances: Callable[[PoolId], float],
    ) -> None:
        """Read the gauges from these whenever someone asks for the metrics."""
        for plan in self._models:
            name = plan.model
            self._in_flight.labels(name).set_function(partial(in_flight, name))
            self._waiting.labels(name).set_function(partial(waiting, name))
            for pool in plan.pools:
                child = self._ready.labels(name, pool.id, pool.gpu_class)
                child.set_function(partial(ready_instances, pool.id))

    def refused(self, status: str) -> None:
        """Count a request that never reached the dispatcher."""
        self._refused.labels(status).inc()

    def overran(self, pool: PoolId, overrun_us: Micros) -> None:
        """Count a stage whose real computation took longer than the device it emulates."""
        if pool in self._overruns:
            self._overruns[pool].inc()
            self._overrun_seconds[pool].inc(overrun_us / US_PER_SECOND)

    def request_ended(self, record: RequestRecord) -> None:
        """Count a request by its outcome."""
        model = record.model
        self._requests[model, record.outcome].inc()
        if record.outcome == ANSWERED:
            self._met[model].inc()
        elif record.outcome in _MISSES:
            self._missed[model, record.outcome].inc()
        if record.answered:
            self._duration[model].observe(record.duration_us / US_PER_SECOND)
        if record.queue_us is not None:
            self._queueing[model].observe(record.queue_us / US_PER_SECOND)

    def batch_ended(self, record: BatchRecord) -> None:
        """Note a batch's size."""
        self._batch_size[record.model].observe(record.samples)

    def stage_ended(self, record: StageRecord) -> None:
        """Note how long a stage computed."""
        if record.pool in self._compute:
            self._compute[record.pool].observe(record.compute_us / US_PER_SECOND)

    def _info(self) -> None:
        info = Gauge(
            "penstock_build_info",
            "Always 1; the labels say what runs.",
            ["version"],
            registry=self._registry,
        )
        info.labels(__version__).set(1)

    def _request_metrics(self) -> None:
        requests = self._counter("requests", "Requests by how they ended.", "model", "outcome")
        met = self._counter("slo_met", "Requests answered before their deadline.", "model")
        missed = self._counter(
            "slo_missed", "Requests not answered in time, by cause.", "model", "reason"
        )
        duration = self._histogram(
            "request_duration_seconds", "Arrival to answer.", _SECONDS, "model"
        )
        queueing = self._histogram(
            "queueing_delay_seconds", "Arrival to the start of the batch.", _SECONDS, "model"
        )
        self._in_flight = self._gauge("requests_in_flight", "Requests not ended yet.", "model")
        self._waiting = self._gauge("waiting_samples", "Samples that wait for a batch.", "model")
        names = [plan.model for plan in self._models]
        self._requests = {
            (name, outcome): requests.labels(name, outcome)
            for name in names
            for outcome in _OUTCOMES
        }
        self._missed = {
            (name, reason): missed.labels(name, reason) for name in names for reason in _MISSES
        }
        self._met = {name: met.labels(name) for name in names}
        self._duration = {name: duration.labels(name) for name in names}
        self._queueing = {name: queueing.labels(name) for name in names}

    def _batch_metrics(self) -> None:
        pooled = ("model", "pool", "gpu_class")
        size = self._histogram("batch_size", "Samples in a batch.", _SIZES, "model")
        compute = self._histogram(
            "stage_compute_seconds", "Computing one stage.", _SECONDS, *pooled
        )
        overruns = self._counter(
            "emulation_overruns", "Stages slower than the device they emulate.", *pooled
        )
        overrun = self._counter(
            "emulation_overrun_seconds", "By how much they were slower, in all.", *pooled
        )
        self._ready = self._gauge("ready_instances", "Instances ready to compute.", *pooled)
        pools = [(plan.model, pool) for plan in self._models for pool in plan.pools]
        labels = {pool.id: (model, pool.id, pool.gpu_class) for model, pool in pools}
        self._batch_size = {plan.model: size.labels(plan.model) for plan in self._models}
        self._compute = {pool: compute.labels(*each) for pool, each in labels.items()}
        self._overruns = {pool: overruns.labels(*each) for pool, each in labels.items()}
        self._overrun_seconds = {pool: overrun.labels(*each) for pool, each in labels.items()}

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"penstock_{name}", text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"penstock_{name}", text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        histogram = Histogram(f"penstock_{name}", text, labels, buckets)
        self._registry.register(histogram)
        return histogram
