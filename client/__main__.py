"""The client's own door: `python -m client`."""

from penstock.command import run
from penstock.verbs import verbs_of

run("python -m client", verbs_of("client"))
