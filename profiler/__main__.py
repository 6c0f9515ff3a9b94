"""The profiler's own door: `python -m profiler`."""

from penstock.command import run
from penstock.verbs import verbs_of

run("python -m profiler", verbs_of("profiler"))
