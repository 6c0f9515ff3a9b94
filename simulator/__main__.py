"""The simulator's own door: `python -m simulator`."""

from penstock.command import run
from penstock.verbs import verbs_of

run("python -m simulator", verbs_of("simulator"))
