"""What the planner's benches share: plans made from values in memory, timed and verified.

A bench hands over a cluster and its profiles and says who plans; it gets back a plan, the seconds
it took and the faults that the verifier finds. Files and arguments are the benches' business.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from penstock.command import message_of
from penstock.console import note, show_error, show_text
from penstock.domain.cluster import Cluster
from penstock.domain.errors import PenstockError
from penstock.domain.plan import Plan
from planner.candidates import CandidatePath
from planner.extract import extract_plan
from planner.inputs import PlannerInputs, Profiles, gather_inputs
from planner.planning import solve_report, solver_settings
from planner.solution import Solution, totals
from planner.solve import SolverName, SolverSettings
from planner.verify import find_faults

Formulation: TypeAlias = Literal["general", "compat", "no-partition", "dart-r"]
Maker: TypeAlias = Callable[[PlannerInputs, SolverSettings], Solution]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A plan and what became of it.

    Attributes:
        seconds: from inputs in memory to the extracted plan; verification not counted.
        faults: that the verifier found.
    """

    plan: Plan
    seconds: float
    faults: tuple[str, ...]

    @property
    def verified(self) -> bool:
        """Whether there is no fault."""
        return not self.faults

    @property
    def phases(self) -> dict[str, float]:
        """Seconds by phase, as the plan tells them."""
        return {each.name: each.seconds for each in self.plan.solve.phases}


@dataclass(slots=True)
class Lines:
    """Result lines: JSON on stdout, and in a file if there is one.

    Attributes:
        out: file that gets the same lines; None: none.
    """

    out: Path | None = None
    _told: list[str] = field(default_factory=list)

    def tell(self, values: dict[str, Any]) -> None:
        """Print one line, and keep it."""
        text = json.dumps(values, allow_nan=False)
        show_text(text)
        self._told.append(text)
        if self.out is not None:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self.out.write_text("\n".join(self._told) + "\n", encoding="utf-8")


def make_timed(
    cluster: Cluster, profiles: Profiles, maker: Maker, formulation: Formulation, solver: SolverName
) -> Timed:
    """Make a plan within the options' time limit, time it and verify it.

    Args:
        cluster: with the options to plan by.
        profiles: one for every model and GPU class.
        maker: returns a solution for the inputs.
        formulation: what the plan's report calls that.
        solver: ``highs`` or ``gscip``.

    Raises:
        InvalidInput: cluster or profiles contradict themselves or each other.
        PlanningFailed: there is no plan, or none was found in time.
    """
    options = cluster.options
    started = time.perf_counter()
    settings = solver_settings(options, solver, started + options.time_limit_s)
    inputs = gather_inputs(cluster, profiles)
    solution = paced(inputs, maker(inputs, settings))
    report = solve_report(
        solution,
        settings,
        options,
        formulation=formulation,
        seconds=time.perf_counter() - started,
    )
    plan = extract_plan(inputs, solution, report, blocks_digests={}, digests=())
    seconds = time.perf_counter() - started
    return Timed(plan=plan, seconds=seconds, faults=tuple(find_faults(plan, cluster, profiles)))


def paced(inputs: PlannerInputs, solution: Solution) -> Solution:
    """Give batches the time to fill that the load takes which the solution sustains.

    Published rates, at which batches were assumed to fill, may be more than a plan then sustains.
    Paths whose SLO would not allow that time stay as they are; the verifier tells of them.
    """
    sustained = totals(solution.flows)
    factor = inputs.options.batch_build_factor
    budgets = {model.served.name: model.budget_us for model in inputs.models}
    flows: dict[CandidatePath, float] = {}
    for path, flow in solution.flows.items():
        slower = path.filling_at(sustained[path.model], factor)
        takes_it = path.latency_us < slower.latency_us <= budgets[path.model]
        flows[slower if takes_it else path] = flow
    return replace(solution, flows=flows)


def tell_faults(what: str, faults: tuple[str, ...]) -> None:
    """Tell the faults of a plan on stderr."""
    for fault in faults:
        note(f"  {what}: {fault}")


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Turn what a person can put right into one line on stderr and exit code 1.

    Raises:
        SystemExit: something was wrong.
    """
    try:
        yield
    except (PenstockError, OSError) as error:
        show_error(message_of(error))
        sys.exit(1)
