"""Processes that work through a list of tasks.

Knows nothing of the tasks. Whatever ends the work, an interrupt too, no process is left; should
this one be killed outright, the others end with the task they are at.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Generic, TypeVar

from penstock.domain.errors import PenstockError

T = TypeVar("T")
R = TypeVar("R")

_PATIENCE_S = 2.0


@dataclass(frozen=True, slots=True)
class Done(Generic[R]):
    """What a process sends back."""

    result: R


def worked(
    work: Callable[[T], R], tasks: Sequence[T], jobs: int
) -> Generator[tuple[T, R], None, None]:
    """Yield each task with its result, as they end.

    What fails is done again in this process, so that its error is raised here as it was.

    Args:
        work: can be sent to a process, as its tasks and results can.
        tasks: given out in this order.
        jobs: processes; 1: this one alone.

    Raises:
        PenstockError: a process died.
        Exception: what the work raises.
    """
    if min(jobs, len(tasks)) <= 1:
        for task in tasks:
            yield task, work(task)
        return
    left = deque(tasks)
    with _crew(work, min(jobs, len(tasks))) as members:
        busy = {member: left.popleft() for member in members}
        for member, task in busy.items():
            member.send(task)
        while busy:
            for member in _ready(busy):
                task = busy.pop(member)
                done: Done[R] | None = _received(member, task)
                if left:
                    busy[member] = left.popleft()
                    member.send(busy[member])
                yield task, work(task) if done is None else done.result


def _ready(busy: dict[Connection, T]) -> list[Connection]:
    """Wait for answers; of those that are there at once, the task given out first comes first."""
    there = set(wait(list(busy)))
    return [member for member in busy if member in there]


def _received(member: Connection, task: object) -> Done[R] | None:
    try:
        done: Done[R] | None = member.recv()
    except (EOFError, ConnectionError):
        raise PenstockError(
            f"a process died while it simulated {task}; too little memory for so many at once?"
        ) from None
    return done


@contextmanager
def _crew(work: Callable[[T], R], jobs: int) -> Iterator[list[Connection]]:
    """Hold processes that take tasks from their connections and answer on them."""
    context = multiprocessing.get_context("spawn")
    processes: list[SpawnProcess] = []
    members: list[Connection] = []
    try:
        with _no_interrupts():
            for _ in range(jobs):
                ours, theirs = context.Pipe()
                members.append(ours)
                process = context.Process(target=_serve, args=(theirs, work), daemon=True)
                process.start()
                processes.append(process)
                theirs.close()
        yield members
    finally:
        for member in members:
            member.close()
        _end(processes)


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back, and start processes that never see it: ending them is up to this one."""
    resource_tracker.ensure_running()  # it would let Ctrl-C through when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(processes: Sequence[SpawnProcess]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(_PATIENCE_S)
        if process.exitcode is None:
            process.kill()
            process.join()
        process.close()


def _serve(tasks: Connection, work: Callable[[T], R]) -> None:
    """Answer tasks until nobody sends any; None stands for a failure."""
    with suppress(EOFError, ConnectionError):
        while True:
            task: T = tasks.recv()
            try:
                done = Done(work(task))
            except Exception:  # raised again, whole, where the work was asked for
                tasks.send(None)
            else:
                tasks.send(done)
