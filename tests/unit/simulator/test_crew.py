"""Processes that share tasks: every result once, errors whole, nobody left behind."""

from __future__ import annotations

import multiprocessing
import os
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from penstock.domain.errors import InvalidPlan, PenstockError
from simulator.sweeps.crew import worked

PARENT = os.getpid()


def squared(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


@dataclass(frozen=True)
class Breaks:
    """Fails at a task; where it is this process that does it, with an error of its own."""

    at: int

    def __call__(self, number: int) -> int:
        if number == self.at:
            raise InvalidPlan("plan.json", "here", "sense", "none")
        return number


def die(pid: int, number: int) -> int:
    if number == 1 and os.getpid() != pid:
        os._exit(9)
    return number


def wait_for(path: Path, number: int) -> int:
    """Never end, except the first task: the test must not depend on who is faster."""
    while number > 0 and not path.exists():
        pass
    return number


@pytest.mark.parametrize("jobs", [1, 3])
def test_every_task_is_done_once(jobs: int) -> None:
    done = dict(worked(squared, range(7), jobs))
    assert {task: result for task, (result, _) in done.items()} == {n: n * n for n in range(7)}
    pids = {pid for _, pid in done.values()}
    assert (pids == {os.getpid()}) == (jobs == 1)
    assert len(pids) <= jobs
    assert multiprocessing.active_children() == []


def test_an_error_is_raised_here_as_it_was() -> None:
    results = worked(Breaks(at=3), range(6), 2)
    found = [next(results)[0], next(results)[0]]
    assert 3 not in found
    with pytest.raises(InvalidPlan, match=r"plan\.json: here: expected sense, found none"):
        list(results)
    assert multiprocessing.active_children() == []


def test_the_death_of_a_process_is_told() -> None:
    with pytest.raises(PenstockError, match="a process died while it simulated 1"):
        list(worked(partial(die, os.getpid()), range(4), 2))
    assert multiprocessing.active_children() == []


def test_nobody_is_left_when_the_caller_goes_away(tmp_path: Path) -> None:
    with closing(worked(partial(wait_for, tmp_path / "never"), range(3), 2)) as results:
        assert next(results) == (0, 0)
        assert len(multiprocessing.active_children()) == 2
    assert multiprocessing.active_children() == []
