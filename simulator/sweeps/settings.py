"""``sweep.json``: all that decides the rows of a sweep, so that it can be done again.

Under ``about`` stands what may differ when a sweep goes on: where files were, and which Python ran.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

from penstock import __version__
from penstock.arrivals import Replay
from penstock.formats.codec import digest, plain_fields
from simulator.sweeps.rows import RUNS_HEADER, UTILISATION_HEADER
from simulator.sweeps.sweep import Sweep

SCHEMA = "penstock.sweep/1"

_VARIED = ("batching", "routing", "seed")  # fields of a scenario that each run has its own of


def settings_of(
    sweep: Sweep, plans: Mapping[str, Path], base: Path | None, arrivals: str | Path
) -> dict[str, object]:
    """Return the settings of a sweep as plain data.

    Args:
        sweep: what is to be simulated.
        plans: its plans' files by name.
        base: file of the plan whose throughput is a load of 1.
        arrivals: the law, or the trace's file.

    Raises:
        OSError: a file cannot be opened.
    """
    scenario = plain_fields(sweep.scenario)
    return {
        "schema": SCHEMA,
        "penstock": __version__,
        "plans": {name: _digest(path) for name, path in plans.items()},
        "base": None if base is None else _digest(base),
        "policies": list(sweep.policies),
        "routings": list(sweep.routings),
        "loads": list(sweep.loads),
        "seeds": list(sweep.seeds),
        "arrivals": _arrivals(sweep, arrivals),
        "scenario": {name: value for name, value in scenario.items() if name not in _VARIED},
        "columns": {"runs": list(RUNS_HEADER), "utilisation": list(UTILISATION_HEADER)},
        "about": {
            "plans": {name: str(path) for name, path in plans.items()},
            "base": None if base is None else str(base),
            "trace": str(arrivals) if isinstance(arrivals, Path) else None,
            "python": platform.python_version(),
        },
    }


def _arrivals(sweep: Sweep, arrivals: str | Path) -> dict[str, object]:
    if isinstance(sweep.asked, Replay) and isinstance(arrivals, Path):
        return {"trace": _digest(arrivals), "window": plain_fields(sweep.asked.window)}
    return {"law": str(arrivals), "span_us": sweep.span_us}


def _digest(path: Path) -> str:
    return digest(path.read_bytes())
