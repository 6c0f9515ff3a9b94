"""What do stalled clients, workers and memory do to everybody else, and what do they leave behind?

Serves two identity models, each on a worker of its own, and measures one of them under a steady
open-loop load while something goes wrong beside it:

* ``half-sent``: ten connections that send half of some messages and stall
* ``unread``: a client that reads nothing from its socket, one that opens no window for its answers
* ``stopped``: SIGSTOP for 5 s to the other model's instance, which has load of its own
* ``memory-full``: large requests; links and clients' regions get no more shared memory
* ``all`` at once

Quiet and disturbed windows take turns; medians over the windows count. The processes run as
anybody's do, but for the last two cases, which have little shared memory. What leaks is counted in
processes apart, whose heaps keep nothing. Prints a table to stderr, one JSON line per window and a
summary to stdout; draws the latencies. Exits with 1 if a bar is missed. See docs/bench.md.

    python bench/stalls.py
    python bench/stalls.py --cases half-sent,unread --rounds 5 --wire grpcio
"""

from __future__ import annotations

import asyncio
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.footprint import Footprint
from bench.leftovers import Held, leftovers
from bench.overhead import tell_row
from bench.planned import Lines, errors_in_one_line
from bench.stall_stage import Stage, a_stage
from bench.stall_windows import CASES, MEMORY_FULL, SCARCE_CASES, Window, run_window
from penstock.domain.errors import InvalidSettings
from penstock.domain.units import BYTES_PER_MIB
from penstock.options import finite
from penstock.pictures.bars import Panel, draw_bars

PICTURE, LINES = "stalls.png", "stalls.jsonl"

BAR_RATIO = 2.0  # of the others' p99, disturbed over quiet
ROUNDS_COUNTED = 2  # for each that is timed: pools grow in the first half

PLENTY, SCARCE = "plenty", "scarce"  # of shared memory for links
OK, LOST = "OK", "DEADLINE_EXCEEDED"
_WARM_UP_S = 1.0


def main(
    *,
    cases: Annotated[str, typer.Option(help="What goes wrong, with commas.")] = ",".join(CASES),
    rounds: Annotated[int, typer.Option(min=2, help="Quiet and disturbed windows of each.")] = 5,
    seconds: Annotated[
        float, typer.Option(min=1, max=60, callback=finite, help="Of a window.")
    ] = 1.5,
    rate: Annotated[
        float, typer.Option(min=1, max=2000, callback=finite, help="Requests/s that are measured.")
    ] = 150.0,
    wire: Annotated[str, typer.Option(help="The frontend's: own or grpcio.")] = "own",
    out_dir: Annotated[Path, typer.Option(help="Where lines and picture go.")] = Path(
        "build/bench"
    ),
) -> None:
    """Measure how far one client's trouble is everybody's."""
    with errors_in_one_line():
        lines = Lines(out_dir / LINES)
        windows: list[Window] = []
        left: dict[str, Any] = {}
        for place, group in by_memory(cases_of(cases)).items():
            fleet = partial(a_stage, rate, ("--wire", wire), scarce=place == SCARCE)
            with fleet() as stage:
                windows += timed(stage, group, rounds, seconds, lines)
            with fleet(frugal=True) as stage:
                left[place] = counted(stage, group, ROUNDS_COUNTED * rounds, seconds)
        total = summary(windows, left, wire)
        lines.tell(total)
        draw(total["cases"], out_dir / PICTURE)
    sys.exit(not total["within_bars"])


def cases_of(text: str) -> list[str]:
    """Return the cases that a text such as ``unread,all`` lists.

    Raises:
        InvalidSettings: one is unknown.
    """
    found = text.split(",")
    if not set(found) <= set(CASES):
        raise InvalidSettings("--cases", "", f"some of {', '.join(CASES)}", repr(text))
    return list(dict.fromkeys(found))


def by_memory(cases: Sequence[str]) -> dict[str, list[str]]:
    """Return the cases by how much shared memory there is for links."""
    places = {
        PLENTY: [each for each in cases if each not in SCARCE_CASES],
        SCARCE: [each for each in cases if each in SCARCE_CASES],
    }
    return {place: group for place, group in places.items() if group}


def timed(
    stage: Stage, cases: Sequence[str], rounds: int, seconds: float, lines: Lines
) -> list[Window]:
    """Return windows of each case, quiet and disturbed, by turns."""
    warm_up(stage, cases)
    windows: list[Window] = []
    tell_row("case         window      p50 ms   p99 ms  within SLO/s  refused  frontend MiB")
    for number in range(rounds):
        for case in cases:
            for disturbed in (False, True) if number % 2 == 0 else (True, False):
                windows.append(
                    one_window(stage, case, disturbed=disturbed, seconds=seconds, seed=number)
                )
                tell(windows[-1], number, stage.footprints()["frontend"], lines)
    return windows


def counted(stage: Stage, cases: Sequence[str], rounds: int, seconds: float) -> dict[str, Any]:
    """Return what is left of disturbed windows of each case."""
    warm_up(stage, cases)
    held: list[Held] = [stage.footprints()]
    for number in range(rounds):
        for case in cases:
            one_window(stage, case, disturbed=True, seconds=seconds, seed=number)
        stage.settle(held[0])
        held.append(stage.footprints())
    return leftovers(held, stage.open_requests())


def warm_up(stage: Stage, cases: Sequence[str]) -> None:
    """Have every process do once what it will do: memory that is new to it costs page faults."""
    asyncio.run(run_window(stage, "", disturbed=False, seconds=_WARM_UP_S, seed=0))
    for case in cases:
        one_window(stage, case, disturbed=True, seconds=_WARM_UP_S, seed=0)
    stage.settle()


def one_window(stage: Stage, case: str, *, disturbed: bool, seconds: float, seed: int) -> Window:
    """Return a window, once nothing is left of the one before."""
    stage.settle()
    return asyncio.run(run_window(stage, case, disturbed=disturbed, seconds=seconds, seed=seed))


def tell(window: Window, number: int, frontend: Footprint, lines: Lines) -> None:
    """Print a window: a row for people, a line for programs."""
    steady = window.steady
    kind = "disturbed" if window.disturbed else "quiet"
    tell_row(
        f"{window.case:12} {kind:9} {steady.p50_ms or 0:8.2f} {steady.p99_ms or 0:8.2f} "
        f"{steady.goodput_rps:13.1f} {steady.requests - steady.answered:8} "
        f"{frontend.resident_bytes / BYTES_PER_MIB:13.1f}"
    )
    lines.tell(
        {
            "case": window.case,
            "round": number,
            "disturbed": window.disturbed,
            "requests": steady.requests,
            "p50_ms": steady.p50_ms,
            "p99_ms": steady.p99_ms,
            "goodput_rps": round(steady.goodput_rps, 1),
            "attainment": round(steady.attainment, 5),
            "refusals": dict(steady.refusals),
            "victim": dict(window.victim),
            "told": {name: dict(each) for name, each in window.told.items()},
            "frontend_bytes": frontend.resident_bytes,
        }
    )


def summary(windows: Sequence[Window], left: Mapping[str, Any], wire: str) -> dict[str, Any]:
    """Return the figures that have bars, and whether they are met.

    Args:
        windows: the timed ones.
        left: what `leftovers` says, by how much shared memory there was.
        wire: the frontend's.
    """
    leaks = [f"{place}: {each}" for place, found in left.items() for each in found["leaks"]]
    cases = {
        case: figures([each for each in windows if each.case == case])
        for case in dict.fromkeys(each.case for each in windows)
    }
    bars_met = {
        "p99_ratio": all(each["p99_ratio"] < BAR_RATIO for each in cases.values()),
        "others_answered": all(each["others_refused"] == 0 for each in cases.values()),
        "none_lost": all(each["lost"] == 0 for each in cases.values()),
        "recovered": all(each["recovered"] for each in cases.values()),
        "nothing_leaks": not leaks,
    }
    return {
        "summary": True,
        "wire": wire,
        "cases": cases,
        "counted": dict(left),
        "leaks": leaks,
        "bars_met": bars_met,
        "within_bars": all(bars_met.values()),
    }


def figures(windows: Sequence[Window]) -> dict[str, Any]:
    """Return what the windows of one case say, quiet and disturbed."""
    quiet = [each for each in windows if not each.disturbed]
    disturbed = [each for each in windows if each.disturbed]
    quiet_ms, disturbed_ms = p99_ms(quiet), p99_ms(disturbed)
    own = Counter[str]()
    for each in disturbed:
        own.update(each.told.get(MEMORY_FULL, {}).get("statuses", {}))
    victim = sum((Counter(each.victim) for each in disturbed), Counter[str]())
    afterwards = [each.told[MEMORY_FULL]["afterwards"] for each in disturbed if own]
    return {
        "quiet_p99_ms": quiet_ms,
        "disturbed_p99_ms": disturbed_ms,
        "p99_ratio": round(disturbed_ms / quiet_ms, 3),
        "quiet_goodput_rps": goodput_rps(quiet),
        "disturbed_goodput_rps": goodput_rps(disturbed),
        "disturbed_attainment": round(
            statistics.median(each.steady.attainment for each in disturbed), 5
        ),
        "others_refused": sum(each.steady.requests - each.steady.answered for each in disturbed),
        "victim": dict(victim),
        "large_requests": dict(own),
        "lost": victim[LOST] + sum(count for name, count in own.items() if name.endswith(LOST)),
        "recovered": set(afterwards) <= {OK},
    }


def p99_ms(windows: Iterable[Window]) -> float:
    """Return the median of the windows' p99; one without answers has an infinite one."""
    found = statistics.median(
        float("inf") if each.steady.p99_ms is None else each.steady.p99_ms for each in windows
    )
    return round(found, 3)


def goodput_rps(windows: Iterable[Window]) -> float:
    """Return the median of the windows' goodput."""
    return round(statistics.median(each.steady.goodput_rps for each in windows), 1)


def draw(cases: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw latencies: quiet, disturbed, and how they compare."""
    panels = [
        Panel(title, {case: each[field] for case, each in cases.items()})
        for title, field in (
            ("p99 quiet, ms", "quiet_p99_ms"),
            ("p99 disturbed, ms", "disturbed_p99_ms"),
            ("disturbed / quiet", "p99_ratio"),
        )
    ]
    draw_bars(
        panels,
        path,
        title="What somebody else's stall costs",
        subtitle=f"Medians over windows; the bar is a ratio below {BAR_RATIO:g}",
    )


if __name__ == "__main__":
    typer.run(main)
