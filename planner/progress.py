"""What is known of a search so far: the best solution, the bound, and what the time went into."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from planner.relaxation import Relaxation
from planner.solution import Solution
from planner.solve import SolverSettings
from planner.sought import Task


@dataclass(slots=True)
class Progress:
    """What is known so far; better values and bounds replace worse ones.

    Attributes:
        none: there is provably no solution.
        interrupted: by Ctrl-C.
        phases: seconds by name.
    """

    task: Task
    settings: SolverSettings
    relaxation: Relaxation
    best: Solution | None = None
    bound: float = math.inf
    none: bool = False
    interrupted: bool = False
    phases: dict[str, float] = field(default_factory=dict)

    @property
    def gap(self) -> float:
        """Distance of the best from the bound, relative; infinite without one."""
        if self.best is None:
            return math.inf
        return replace(self.best, bound=self.bound).gap

    @property
    def open(self) -> bool:
        """Whether there is something left to find, and time to find it."""
        done = self.none or self.interrupted or self.gap <= self.settings.relative_gap
        return not done and self.settings.left_s > 0

    def better(self, left: float, right: float) -> bool:
        """Tell whether one value is better than another."""
        return left > right if self.task.maximise else left < right

    def offer(self, solution: Solution) -> None:
        """Take a solution if it is the best."""
        if self.best is None or self.better(solution.value, self.best.value):
            self.best = solution

    def tighten(self, bound: float) -> None:
        """Take a bound if it is nearer."""
        if math.isfinite(bound) and self.better(self.bound, bound):
            self.bound = bound

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time of what is done within."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.phases[name] = self.phases.get(name, 0.0) + time.perf_counter() - started
