"""The identity model behind a frontend and one worker process, measured and watched.

What `overhead` does with it is its own business. Knows no table, line or bar.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.closed_loop import ClosedLoop, Measured, run_closed_loop
from bench.identity import DATATYPE, write_identity
from bench.processes import family, processor_us, resident_bytes
from client.inputs import random_inputs
from client.load import LoadSettings, Target, run_load
from client.messages import infer_message
from launcher.local import FleetSettings, LocalFleet, read_counter
from penstock.aio.loops import new_loop, usual_loop
from penstock.arrivals import Poisson, instants_of
from penstock.domain.arrivals import Arrival
from penstock.domain.blocks import DYNAMIC, TensorSpec
from penstock.domain.ids import ModelName
from penstock.domain.tensors import Tensor
from penstock.domain.units import US_PER_SECOND, Bytes, Micros
from penstock.formats.plans import read_plan

MODEL = ModelName("identity")
CLIENT = "client"

_ELEMENT_BYTES = 4
_READY_S = 60.0
_LARGEST_BATCH, _LARGEST_BATCH_BYTES = 32, 16 << 20
_SLO_US = 10 * US_PER_SECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A fleet that answers.

    Attributes:
        processes: ids by name.
    """

    payload_bytes: Bytes
    inference: str
    metrics: str
    processes: Mapping[str, int]

    def request(self) -> bytes:
        """Return an encoded request of one row."""
        row = Tensor("x", DATATYPE, (1, self.payload_bytes // _ELEMENT_BYTES), self._row())
        return infer_message(MODEL, [row]).SerializeToString()

    def _row(self) -> bytes:
        return random.Random(0).randbytes(self.payload_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One load on one fleet.

    Attributes:
        processor_us: what each process used, per answer.
        batch: samples in a batch, on average; None if the server does not count them.
    """

    payload_bytes: Bytes
    stream: bool
    callers: int
    measured: Measured
    processor_us: Mapping[str, float]
    batch: float | None

    @property
    def mode(self) -> str:
        """How requests travel."""
        return "stream" if self.stream else "unary"


@contextmanager
def serving(
    payload_bytes: Bytes, *, real: bool, options: tuple[str, ...] = ()
) -> Iterator[Serving]:
    """Serve the identity model until the block ends.

    Args:
        payload_bytes: of one row, a multiple of four.
        real: run exported blocks on the processor; else only shapes are computed.
        options: further ones of the frontend.

    Raises:
        LaunchFailed: it does not come up.
    """
    batch = min(_LARGEST_BATCH, max(1, _LARGEST_BATCH_BYTES // payload_bytes))
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        plan_file = write_identity(directory, ((MODEL, payload_bytes),), batch, real=real)
        settings = FleetSettings(
            plan=plan_file,
            repository=directory / "models",
            executor="cpu" if real else "emulated-shapes",
            logs=directory / "logs",
            frontend_options=options,
        )
        plan = read_plan(plan_file.read_text(encoding="utf-8"), str(plan_file))
        with LocalFleet(settings, plan) as fleet:
            addresses = fleet.start(_READY_S)
            yield Serving(
                payload_bytes=payload_bytes,
                inference=addresses.inference,
                metrics=addresses.metrics,
                processes=family(fleet.process_ids),
            )


def measure(served: Serving, callers: int, *, stream: bool, seconds: float) -> Point:
    """Offer a closed loop for some seconds, warm-up not counted.

    Raises:
        RequestFailed: a request was not answered.
    """
    load = ClosedLoop(
        address=served.inference,
        request=served.request(),
        callers=callers,
        stream=stream,
        seconds=seconds,
        warm_up_s=min(1.0, seconds / 2),
    )
    before = {name: processor_us(each) for name, each in served.processes.items()}
    batches = _batches(served)
    measured = _run(load)
    after = {name: processor_us(each) for name, each in served.processes.items()}
    # The warm-up has its part in what the processes used, and in the answers.
    answers = measured.rate_rps * (load.seconds + load.warm_up_s)
    used = {name: (after[name] - before[name]) / answers for name in after}
    return Point(
        payload_bytes=served.payload_bytes,
        stream=stream,
        callers=callers,
        measured=measured,
        processor_us={CLIENT: measured.processor_us / measured.answers, **used},
        batch=_mean_batch(batches, _batches(served)),
    )


def soak(
    served: Serving,
    rate_rps: float,
    seconds: float,
    on_sample: Callable[[Mapping[str, Bytes]], None],
) -> int:
    """Offer Poisson arrivals at a rate, and tell the resident memory every few seconds.

    Returns:
        How many requests were not answered.
    """
    lost, span_us = 0, 5 * US_PER_SECOND
    for seed in range(max(1, round(seconds * US_PER_SECOND / span_us))):
        lost += asyncio.run(_offer(served, rate_rps, span_us, seed))
        on_sample({name: resident_bytes(each) for name, each in served.processes.items()})
    return lost


async def _offer(served: Serving, rate_rps: float, span_us: Micros, seed: int) -> int:
    width = served.payload_bytes // _ELEMENT_BYTES
    spec = TensorSpec(name="x", datatype=DATATYPE, shape=(DYNAMIC, width))
    instants = instants_of(Poisson(), rate_rps, span_us, random.Random(seed))
    arrivals = tuple(Arrival(arrival_us=each, model=MODEL, samples=1) for each in instants)
    target = Target(inputs=random_inputs((spec,), seed), slo_us=_SLO_US)
    settings = LoadSettings(
        address=served.inference, arrivals=arrivals, targets={MODEL: target}, duration_us=span_us
    )
    outcomes = (await run_load(settings)).outcomes
    return sum(not each.answered for each in outcomes)


def _run(load: ClosedLoop) -> Measured:
    with asyncio.Runner(loop_factory=lambda: new_loop(usual_loop())) as runner:
        return runner.run(run_closed_loop(load))


def _batches(served: Serving) -> tuple[float, float] | None:
    try:
        samples, batches = (
            read_counter(served.metrics, f"penstock_batch_size_{each}") for each in ("sum", "count")
        )
    except OSError:  # metrics may be off
        return None
    return samples, batches


def _mean_batch(
    before: tuple[float, float] | None, after: tuple[float, float] | None
) -> float | None:
    if before is None or after is None or after[1] == before[1]:
        return None
    return (after[0] - before[0]) / (after[1] - before[1])
