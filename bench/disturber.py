"""The process that `bench/stalls.py` has its clients stall in: away from those that measure.

Reads ``{"begin": [names], "seconds": s}`` and ``{}`` (end them) as lines on standard input,
answers each with a line on standard output, and leaves nothing behind when its input ends.

    python -m bench.disturber ADDRESS MODEL ROW_BYTES
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress

from bench.disturbances import Disturbance, Victim, a_victim, makers
from launcher.local import stop_on_signals
from penstock.console import show_text


def disturb(victim: Victim) -> None:
    """Do as told until standard input ends."""
    going_on: dict[str, Disturbance] = {}
    for line in sys.stdin:
        order = json.loads(line)
        if "begin" in order:
            known = makers(victim, order["seconds"])
            going_on = {name: known[name]() for name in order["begin"]}
            show_text(json.dumps({"begun": [*going_on]}))
        else:
            told = {name: each.end() for name, each in going_on.items()}
            going_on = {}
            show_text(json.dumps(told))


def main(address: str, model: str, row_bytes: str) -> None:
    """Run until standard input ends, or a signal asks for the end."""
    stop_on_signals()
    with suppress(KeyboardInterrupt), a_victim(address, model, int(row_bytes)) as victim:
        show_text(json.dumps({"ready": True}))
        disturb(victim)


if __name__ == "__main__":
    main(*sys.argv[1:])
