"""A backend without workers: every planned instance is there at once, and answers at once.

An output whose name and shape match an input is that input; every other output is zeros. What a
test wants to be slow, lost or wrong it says through `LoopbackBackend`'s attributes.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from frontend.backend import Wiring, WorkerLine
from frontend.ingress import JoinedTensor
from frontend.link_lines import LinkLine
from penstock.domain.blocks import TensorSpec
from penstock.domain.ids import InstanceId, ServerId
from penstock.domain.placement import gpu_slots
from penstock.domain.tensors import DATATYPE_BYTES, Tensor
from penstock.scheduling.effects import CompleteRequest, DropRequest, Effect, RunBatch
from penstock.scheduling.events import (
    BatchFailed,
    BatchFinished,
    InstanceJoined,
    InstanceLost,
    StageFinished,
)


@dataclass(slots=True, eq=False)
class LoopbackBackend:
    """Performs effects by itself.

    Attributes:
        delay_s: from launch to answer.
        failure: what a batch fails with; empty: it does not fail.
        hold: keep every batch for ever.
        batches: samples of each batch launched.
    """

    wiring: Wiring
    delay_s: float = 0.0
    failure: str = ""
    hold: bool = False
    join: bool = True
    emulated: bool = False
    batches: list[int] = field(default_factory=list)
    _timers: set[asyncio.TimerHandle] = field(default_factory=set)

    def perform(self, effect: Effect) -> None:
        match effect:
            case RunBatch():
                self._run(effect)
            case CompleteRequest():
                self.wiring.ingress.finish(effect)
            case DropRequest():
                self.wiring.ingress.drop(effect)
            case _:
                pass

    def workers(self) -> Sequence[WorkerLine]:
        return [
            WorkerLine(
                worker="loopback",
                gpu_class="none",
                server="here",
                executor="loopback",
                device="none",
                instances=tuple(self.instances()),
            )
        ]

    def links(self) -> Sequence[LinkLine]:
        return []

    async def start(self) -> str:
        if self.join:
            self.join_all()
        return ""

    async def stop(self, grace_s: float) -> None:
        del grace_s
        for timer in self._timers:
            timer.cancel()

    def instances(self) -> list[InstanceId]:
        return [each.id for slot in gpu_slots(self.wiring.plan) for each in slot.instances]

    def join_all(self) -> None:
        for slot in gpu_slots(self.wiring.plan):
            for each in slot.instances:
                self.wiring.post(
                    InstanceJoined(
                        instance=each.id,
                        model=each.model,
                        pool=each.pool,
                        server=ServerId("here"),
                    )
                )

    def lose_all(self) -> None:
        for instance in self.instances():
            self.wiring.post(InstanceLost(instance))

    def _run(self, effect: RunBatch) -> None:
        inputs = self.wiring.ingress.gather(effect.slices)
        self.batches.append(sum(each.count for each in effect.slices))
        if not self.hold:
            loop = asyncio.get_running_loop()
            self._timers.add(loop.call_later(self.delay_s, self._answer, effect, inputs))

    def _answer(self, effect: RunBatch, inputs: list[JoinedTensor]) -> None:
        post = self.wiring.post
        if self.failure:
            post(BatchFailed(batch=effect.batch, detail=self.failure))
            return
        for stage in range(len(effect.route)):
            post(StageFinished(batch=effect.batch, stage=stage, compute_us=1000))
        signature = self.wiring.catalogue.find(effect.model).signature
        samples = sum(each.count for each in effect.slices)
        outputs = [_output(spec, samples, inputs) for spec in signature.outputs]
        self.wiring.ingress.scatter(effect.slices, outputs)
        post(BatchFinished(effect.batch))


def _output(spec: TensorSpec, samples: int, inputs: list[JoinedTensor]) -> Tensor:
    shape = (samples, *spec.shape[1:])
    for each in inputs:
        if (each.datatype, each.shape) == (spec.datatype, shape):
            return Tensor(spec.name, spec.datatype, shape, b"".join(each.parts))
    size = DATATYPE_BYTES[spec.datatype] * math.prod(shape)
    return Tensor(spec.name, spec.datatype, shape, bytes(size))
