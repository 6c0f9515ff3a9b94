"""The worker's own door: `python -m worker`."""

from penstock.command import run
from penstock.verbs import verbs_of

run("python -m worker", verbs_of("worker"))
