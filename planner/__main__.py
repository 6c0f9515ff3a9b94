"""The planner's own door: `python -m planner`."""

from penstock.command import run
from penstock.verbs import verbs_of

run("python -m planner", verbs_of("planner"))
