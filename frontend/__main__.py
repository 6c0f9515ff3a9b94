"""The frontend's own door: `python -m frontend`."""

from penstock.command import run
from penstock.verbs import verbs_of

run("python -m frontend", verbs_of("frontend"))
