"""Running solvers: programs in, values and proven bounds out, until a deadline or Ctrl-C.

Solvers run beside the main thread, so that Ctrl-C reaches it at once and several programs are
solved at a time. A solver that can be interrupted (SCIP) then hands over what it has; one that
cannot (HiGHS) is left behind. HiGHS must not be given a thread count through MathOpt (it fails),
so no solver is.
"""

from __future__ import annotations

import datetime
import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ortools.math_opt.python import mathopt
from ortools.util.python.solve_interrupter import SolveInterrupter

from penstock.domain.errors import InvariantViolation
from planner.formulation import Variable
from planner.quiet import native_output_on_stderr

SolverName: TypeAlias = Literal["highs", "gscip"]

_LEAST_TIME_S = 0.2  # a solve that has begun gets this much even when the limit has passed
_GRACE_S = 2.0  # interrupted solvers have this long to hand over what they have
_KINDS = {"highs": mathopt.SolverType.HIGHS, "gscip": mathopt.SolverType.GSCIP}
_NONE = (
    mathopt.TerminationReason.INFEASIBLE,
    mathopt.TerminationReason.INFEASIBLE_OR_UNBOUNDED,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SolverSettings:
    """How to solve, and until when.

    Attributes:
        deadline: instant of `time.perf_counter`.
        relative_gap: stop this close to the bound.
        node_limit: of every search tree, whatever a job allows; None: none.
        stopped: set by Ctrl-C, which ends the time for all that is still to be solved.
    """

    solver: SolverName
    deadline: float
    relative_gap: float
    seed: int
    node_limit: int | None = None
    stopped: threading.Event = field(default_factory=threading.Event, compare=False)

    @property
    def left_s(self) -> float:
        """Seconds until the deadline; negative once it has passed."""
        return -1.0 if self.stopped.is_set() else self.deadline - time.perf_counter()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A program to solve.

    Attributes:
        node_limit: stop after so many nodes of the search tree: a limit that, unlike time,
            gives equal results on every machine.
        hint: a solution to start from.
    """

    program: mathopt.Model
    node_limit: int | None = None
    hint: Mapping[Variable, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a solver found.

    Attributes:
        values: of the program's variables; empty if it found no solution.
        value, bound: of the objective; the bound is proven.
        none: proven that there is no solution.
        finished: it stopped because it was done, not because it was told to.
        interrupted: Ctrl-C was pressed.
    """

    values: Mapping[Variable, float]
    value: float
    bound: float
    none: bool = False
    finished: bool = False
    interrupted: bool = False


def run(job: Job, settings: SolverSettings) -> Answer:
    """Solve one program."""
    return run_all([job], settings)[0]


def run_all(jobs: Sequence[Job], settings: SolverSettings) -> list[Answer]:
    """Solve programs side by side; their answers do not depend on each other."""
    runners = [_Runner(job, settings) for job in jobs]
    with native_output_on_stderr(muted=settings.solver == "gscip"):
        interrupted = _wait(runners)
    if interrupted:
        settings.stopped.set()
    return [runner.answer(interrupted=interrupted) for runner in runners]


def _wait(runners: Sequence[_Runner]) -> bool:
    """Run to the end, or to Ctrl-C; tell which."""
    try:
        for runner in runners:
            runner.start()
        for runner in runners:
            runner.done.wait()
    except KeyboardInterrupt:
        until = time.perf_counter() + _GRACE_S
        for runner in runners:
            runner.interrupter.interrupt()
        for runner in runners:
            runner.done.wait(max(0.0, until - time.perf_counter()))
        return True
    return False


def _fewer(left: int | None, right: int | None) -> int | None:
    limits = [each for each in (left, right) if each is not None]
    return min(limits, default=None)


class _Runner:
    """One solver in a thread of its own."""

    def __init__(self, job: Job, settings: SolverSettings) -> None:
        self.done = threading.Event()
        self.interrupter = SolveInterrupter()
        self._job, self._settings = job, settings
        self._result: mathopt.SolveResult | None = None
        self._failure: Exception | None = None

    def start(self) -> None:
        threading.Thread(target=self._go, daemon=True).start()

    def _go(self) -> None:
        try:
            self._result = self._solve()
        except Exception as error:  # told to the thread that waits
            self._failure = error
        finally:
            self.done.set()

    def _solve(self) -> mathopt.SolveResult:
        job, settings = self._job, self._settings
        hints = [mathopt.SolutionHint(variable_values=dict(job.hint))] if job.hint else []
        return mathopt.solve(
            job.program,
            _KINDS[settings.solver],
            params=mathopt.SolveParameters(
                time_limit=datetime.timedelta(seconds=max(_LEAST_TIME_S, settings.left_s)),
                relative_gap_tolerance=settings.relative_gap,
                random_seed=settings.seed,
                node_limit=_fewer(job.node_limit, settings.node_limit),
            ),
            model_params=mathopt.ModelSolveParameters(solution_hints=hints),
            interrupter=self.interrupter,
        )

    def answer(self, *, interrupted: bool) -> Answer:
        if self._failure is not None:
            raise InvariantViolation(f"the solver failed: {self._failure}") from self._failure
        loose = math.inf if self._job.program.objective.is_maximize else -math.inf
        result = self._result
        if result is None:
            return Answer(values={}, value=-loose, bound=loose, interrupted=True)
        reason = result.termination.reason
        found = result.has_primal_feasible_solution()
        return Answer(
            values=result.variable_values() if found else {},
            value=result.objective_value() if found else -loose,
            bound=result.termination.objective_bounds.dual_bound,
            none=reason in _NONE,
            finished=reason in (mathopt.TerminationReason.OPTIMAL, *_NONE),
            interrupted=interrupted,
        )
