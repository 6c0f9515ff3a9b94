"""What every executor promises. Knows tensors as bytes, no array library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from penstock.domain.blocks import DYNAMIC, TensorSpec
from penstock.domain.devices import DeviceRoom, DeviceTensor
from penstock.domain.errors import InvalidInput
from penstock.domain.execution import Computation
from penstock.domain.tensors import Tensor, byte_size
from penstock.domain.units import Micros
from worker.stages import Stage


@dataclass(frozen=True, slots=True)
class Handover:
    """Rows of a batch's outputs that go to one instance, and might stay on the device.

    Attributes:
        room: where they are left for it; None: it takes nothing there.
        first, count: which rows.
    """

    room: DeviceRoom | None
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class StageResult:
    """Outputs of one batch.

    Attributes:
        tensors: in host memory; none if all were handed over.
        overrun_us: emulation only: how much longer the real computation took than the emulated
            device would have.
        compute_us: how long the device computed, where the device itself tells; else None.
        handed: for each handover that was asked for, what stayed on the device; None: nothing.
    """

    tensors: tuple[Tensor, ...]
    overrun_us: Micros = 0
    compute_us: Micros | None = None
    handed: tuple[tuple[DeviceTensor, ...] | None, ...] = ()


class Executor(Protocol):
    """Runs one stage in one process.

    `load` is called first and once, `run` perhaps in another thread, never two at once. Errors
    of `run` concern that batch only; the executor must be ready for the next one.
    """

    def load(self, stage: Stage) -> Computation:
        """Bring the stage up and run it, so that the first batch takes no longer than others.

        Raises:
            StageLoadFailed: it cannot run here.
        """
        ...

    def run(self, tensors: Sequence[Tensor], samples: int, *, queued: bool = False) -> StageResult:
        """Return the stage's outputs for one batch.

        Args:
            tensors: the stage's inputs, in any order; only read.
            samples: batch size, 1 to the planned one.
            queued: the batch was waiting when the one before it ended. An emulated device
                starts it then, not when this process got round to it.

        Raises:
            InvalidInput: the tensors do not fit the stage.
        """
        ...

    def close(self) -> None:
        """Give the device back."""
        ...


class Flight(Protocol):
    """One batch on its way through an executor; may be forgotten at any point."""

    def launch(self) -> None:
        """Queue the computation; return when the batch before it is computed.

        So a device that is done with one batch finds the next in its queue.
        """
        ...

    def result(self, handovers: Sequence[Handover] = ()) -> StageResult:
        """Wait for the outputs; after `launch`.

        Args:
            handovers: what need not come to host memory, where there is room for it.
        """
        ...


@runtime_checkable
class OverlappingExecutor(Executor, Protocol):
    """One that copies a batch in and another one out while a third computes.

    `copy_in`, `launch` and `result` may each be called in a thread of its own; launches are in
    order and by one thread. `run` is the three after each other.
    """

    def copy_in(self, tensors: Sequence[Tensor], samples: int) -> Flight:
        """Start copying a batch to the device.

        Raises:
            InvalidInput: the tensors do not fit the stage.
        """
        ...


def shape_at(spec: TensorSpec, samples: int) -> tuple[int, ...]:
    """Return a tensor's shape at a batch size."""
    return tuple(samples if axis == DYNAMIC else axis for axis in spec.shape)


def zeros(specs: Sequence[TensorSpec], samples: int) -> tuple[Tensor, ...]:
    """Return tensors of zeros that fit the specs: for warm-up and for shapes-only emulation."""
    tensors: list[Tensor] = []
    for spec in specs:
        shape = shape_at(spec, samples)
        data = bytes(byte_size(spec.datatype, shape))
        tensors.append(Tensor(spec.name, spec.datatype, shape, data))
    return tuple(tensors)


def ordered(
    tensors: Sequence[Tensor], specs: Sequence[TensorSpec], samples: int
) -> tuple[Tensor, ...]:
    """Return the tensors in the order of the specs.

    Raises:
        InvalidInput: one is missing, superfluous or of another type or shape.
    """
    by_name = {tensor.name: tensor for tensor in tensors}
    wanted = [spec.name for spec in specs]
    if len(by_name) != len(tensors) or by_name.keys() != set(wanted):
        found = ", ".join(tensor.name for tensor in tensors) or "none"
        raise InvalidInput("batch", "tensors", ", ".join(wanted), found)
    for spec in specs:
        _check(by_name[spec.name], spec, samples)
    return tuple(by_name[name] for name in wanted)


def _check(tensor: Tensor, spec: TensorSpec, samples: int) -> None:
    shape = shape_at(spec, samples)
    if (tensor.datatype, tensor.shape) != (spec.datatype, shape):
        expected = f"{spec.datatype} {list(shape)}"
        found = f"{tensor.datatype} {list(tensor.shape)}"
        raise InvalidInput("batch", f"tensor {tensor.name!r}", expected, found)
    size = byte_size(tensor.datatype, shape)
    if tensor.size != size:
        found = f"{tensor.size}"
        raise InvalidInput("batch", f"tensor {tensor.name!r}", f"{size} bytes", found)
