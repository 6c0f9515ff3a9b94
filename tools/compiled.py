"""Compiles the scheduling core and the simulator's inner loop with mypyc, beside the source.

The Python files stay the only source: packages are copied to build/compiled, the modules listed
here become extension modules there, and nothing in the checkout changes. What `@dataclass` would
make only at run time is written out in the copies (`tools.spelled_out`). Put that folder first to
use them; build again after a change.

    python -m tools.compiled
    PYTHONPATH=build/compiled penstock simulate plan.json --find-max-load 0.99
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path

from tools.spelled_out import spelled_out

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "build" / "compiled"
PACKAGES = ("penstock", "simulator")
MODULES = (
    "penstock/domain/arrivals.py",
    "penstock/domain/requests.py",
    "penstock/domain/outcomes.py",
    "penstock/scheduling/*.py",
    "penstock/policies/draws.py",
    "penstock/policies/batching/*.py",
    "penstock/policies/routing/*.py",
    "simulator/engine.py",
    "simulator/incoming.py",
    "simulator/noise.py",
    "simulator/parts.py",
    "simulator/record.py",
    "simulator/world.py",
)
# What batches, requests and instances keep; nothing that any of it refers to refers back. (An entry
# of the engine refers to actions that may know the engine, which lets go of all when a run ends.)
ACYCLIC = frozenset(
    {
        "Entry",
        "Flight",
        "Lane",
        "Leg",
        "NetworkCard",
        "OpenRequest",
        "StageRunner",
        "Timeline",
        "Travel",
    }
)


def main() -> int:
    """Build; return the compiler's exit code."""
    shutil.rmtree(TARGET, ignore_errors=True)
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(ROOT / package, TARGET / package, ignore=ignored)
    paths = sorted(chain.from_iterable(TARGET.glob(pattern) for pattern in MODULES))
    for path in paths:
        written = spelled_out(path.read_text(encoding="utf-8"), ACYCLIC)
        path.write_text(written, encoding="utf-8")
    modules = [str(path.relative_to(TARGET)) for path in paths]
    command = [sys.executable, "-m", "mypyc", *modules]
    done = subprocess.run(command, cwd=TARGET, capture_output=True, text=True, check=False)
    shutil.rmtree(TARGET / "build", ignore_errors=True)
    if done.returncode:
        print(done.stdout[-4_000:], done.stderr[-4_000:], sep="\n", file=sys.stderr)
        return done.returncode
    print(f"{len(modules)} modules compiled; use them with PYTHONPATH={TARGET.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
