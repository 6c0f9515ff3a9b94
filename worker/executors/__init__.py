"""The ways to run a stage, by name. Importing this imports no array library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from penstock.domain.errors import StageLoadFailed, UnknownName
from worker.executors.base import Executor


def _cpu(threads: int, _: int) -> Executor:
    from worker.executors.cpu import CpuExecutor

    return CpuExecutor(threads)


def _cuda(_: int, stream: int) -> Executor:
    from worker.executors.cuda import CudaExecutor

    return CudaExecutor(stream)


def _emulated(threads: int, _: int) -> Executor:
    from worker.executors.cpu import CpuExecutor
    from worker.executors.emulated import EmulatedExecutor

    return EmulatedExecutor(CpuExecutor(threads))


def _emulated_shapes(_: int, __: int) -> Executor:
    from worker.executors.emulated import EmulatedExecutor
    from worker.executors.shapes import ShapesExecutor

    return EmulatedExecutor(ShapesExecutor())


# Each takes threads and a stream, as `new_executor` does.
EXECUTORS: Mapping[str, Callable[[int, int], Executor]] = MappingProxyType(
    {
        "cpu": _cpu,
        "cuda": _cuda,
        "emulated": _emulated,
        "emulated-shapes": _emulated_shapes,
    }
)


def new_executor(name: str, threads: int = 1, stream: int = 0) -> Executor:
    """Return an executor by name.

    Args:
        name: one of `EXECUTORS`.
        threads: of the host's processor, where the executor computes with them.
        stream: handle of the CUDA stream of its share of the device; 0: it makes its own.

    Raises:
        UnknownName: there is none of that name.
        StageLoadFailed: this host lacks a package it needs.
    """
    try:
        factory = EXECUTORS[name]
    except KeyError:
        raise UnknownName("executor", name, EXECUTORS) from None
    try:
        return factory(threads, stream)
    except ModuleNotFoundError as error:
        needs = f"executor {name} needs {error.name}, which is not installed"
        raise StageLoadFailed(f"{needs}: pip install 'penstock[worker]'") from error
