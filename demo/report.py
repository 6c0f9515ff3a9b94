"""The demo's result: in words for a person, as ``report.json`` for a program, as pictures."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import dataclass

from demo.drive import Run
from demo.prepare import MODEL, Prepared
from penstock import __version__

ATTAINMENT_BAR = 0.99
LOAD_BAR = 0.90
_PACKAGES = ("torch", "grpcio", "protobuf", "ortools", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """All runs of one demo.

    Attributes:
        partitioned: the plan at (nearly) its planned load.
        whole: the plan without partitioning at (nearly) its own planned load.
        whole_overloaded: that same plan, offered what the partitioned one was.
    """

    prepared: Prepared
    partitioned: Run
    whole: Run
    whole_overloaded: Run

    @property
    def wrong_answers(self) -> int:
        """Wrong answers over all runs."""
        runs = (self.partitioned, self.whole, self.whole_overloaded)
        return sum(run.checked.wrong for run in runs)

    @property
    def load_bar(self) -> float:
        """Part of the planned rate that has to be offered; a real GPU can do more than we ask."""
        return LOAD_BAR if self.prepared.emulated else 0.0

    def failures(self) -> list[str]:
        """Return what falls short of the demo's promises; empty if all is well."""
        run, whole = self.partitioned, self.whole
        shortfalls = (
            (self.wrong_answers > 0, f"{self.wrong_answers} answers are wrong"),
            (
                run.summary.attainment < ATTAINMENT_BAR or run.offered_load < self.load_bar,
                f"attainment {run.summary.attainment:.2%} at {run.offered_load:.0%} of the plan, "
                f"wanted {ATTAINMENT_BAR:.0%} at {self.load_bar:.0%}",
            ),
            (
                self.prepared.emulated and run.summary.goodput_rps <= whole.summary.goodput_rps,
                f"{run.summary.goodput_rps:.1f}/s partitioned is no more than "
                f"{whole.summary.goodput_rps:.1f}/s without",
            ),
        )
        return [words for falls_short, words in shortfalls if falls_short]


def report_of(result: DemoResult) -> dict[str, object]:
    """Return the content of ``report.json``."""
    run, whole, over = result.partitioned, result.whole, result.whole_overloaded
    return {
        "emulated": result.prepared.emulated,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {
            "penstock": __version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
        "slo_ms": result.prepared.plan.model(MODEL).slo_us / 1_000,
        "planned_rps": run.planned_rps,
        "offered_load": run.offered_load,
        "sustained_rps": run.summary.goodput_rps,
        "attainment": run.summary.attainment,
        "simulated_attainment": run.simulated.attainment,
        "p50_ms": run.summary.p50_ms,
        "p99_ms": run.summary.p99_ms,
        "simulated_p50_ms": run.simulated.p50_ms,
        "simulated_p99_ms": run.simulated.p99_ms,
        "refusals": dict(run.summary.refusals),
        "accuracy": run.checked.accuracy,
        "unsplit_accuracy": result.prepared.accuracy,
        "answers": run.checked.answers,
        "wrong_answers": result.wrong_answers,
        "largest_relative_error": run.checked.largest_error,
        "emulation_overruns": run.overruns,
        "no_partition_planned_rps": whole.planned_rps,
        "no_partition_sustained_rps": whole.summary.goodput_rps,
        "no_partition_attainment": whole.summary.attainment,
        "no_partition_overloaded_attainment": over.summary.attainment,
        "no_partition_overloaded_goodput_rps": over.summary.goodput_rps,
        "shortfalls": result.failures(),
    }


def words_of(result: DemoResult) -> str:
    """Return the result in words."""
    run, whole, over = result.partitioned, result.whole, result.whole_overloaded
    checked = run.checked
    lines = [
        f"Served ({devices_of(result.prepared)}, real answers)",
        _line("with the plan", run),
        _line("without partitioning", whole),
        _line("… offered as much as the plan", over),
        _comparison(result),
        f"  Simulated attainment of the same arrivals: {run.simulated.attainment:.2%} "
        f"(live {run.summary.attainment:.2%}).",
        "",
        "Answers",
        f"  {checked.answers} checked against the unsplit model, {result.wrong_answers} wrong in "
        f"all runs; largest relative error {checked.largest_error:.1e}",
        f"  accuracy {checked.accuracy:.2%} served, {result.prepared.accuracy:.2%} for the "
        "unsplit model on the whole test set",
    ]
    if run.overruns:
        lines.append(
            f"  {run.overruns} stages took longer on this CPU than on the device they emulate"
        )
    return "\n".join(lines)


def devices_of(prepared: Prepared) -> str:
    """Say what the demo serves on."""
    return "emulated devices" if prepared.emulated else "shares of one GPU"


def _comparison(result: DemoResult) -> str:
    run, whole = result.partitioned, result.whole
    if not result.prepared.emulated:
        gain = run.planned_rps / whole.planned_rps
        return f"  By what was measured, shares sustain {gain:.2f} × what the whole GPU does."
    gain = run.summary.goodput_rps / whole.summary.goodput_rps
    return f"  The plan sustains {gain:.2f} × what the fleet sustains without partitioning."


def _line(name: str, run: Run) -> str:
    summary = run.summary
    told = _refusals(summary.refusals)
    return (
        f"  {name + ':':32}planned {run.planned_rps:6.1f}/s, offered {summary.offered_rps:6.1f}/s, "
        f"in time {summary.goodput_rps:6.1f}/s, attainment {summary.attainment:7.2%}, "
        f"p50 {_ms(summary.p50_ms)}, p99 {_ms(summary.p99_ms)}{told}"
    )


def _refusals(refusals: Mapping[str, int]) -> str:
    told = ", ".join(f"{count} {cause}" for cause, count in sorted(refusals.items()))
    return f" ({told})" if told else ""


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"
