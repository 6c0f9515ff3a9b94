"""What do stalled clients, workers and memory do to everybody else, and what do they leave behind?

Serves two identity models, each on a worker of its own, and measures one of them under a steady
open-loop load while something goes wrong beside it:

* ``half-sent``: ten connections that send half of some messages and stall
* ``unread``: a client that reads nothing from its socket, one that opens no window for its answers
* ``stopped``: SIGSTOP for 5 s to the other model's instance, which has load of its own
* ``memory-full``: large requests; links and clients' regions get no more shared memory
* ``all`` at once

Quiet and disturbed windows take turns; medians over the windows count. Prints a table to stderr,
one JSON line per window and a summary to stdout; draws the latencies. Exits with 1 if a bar is
missed. See docs/bench.md.

    python bench/stalls.py
    python bench/stalls.py --cases half-sent,unread --rounds 5 --wire grpcio
"""

from __future__ import annotations

import asyncio
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from bench.footprint import Footprint
from bench.overhead import tell_row
from bench.planned import Lines, errors_in_one_line
from bench.stall_windows import CASES, MEMORY_FULL, MIB, Stage, Window, a_stage, run_window
from penstock.domain.errors import InvalidSettings
from penstock.options import finite
from penstock.pictures.bars import Panel, draw_bars

PICTURE, LINES = "stalls.png", "stalls.jsonl"

BAR_RATIO = 2.0  # of the others' p99, disturbed over quiet
# Of resident memory: a first round may make pools larger once, further ones must not.
BAR_KEPT_BYTES, BAR_GROWTH_BYTES = 32 * MIB, 8 * MIB
# gRPC's pools have a thread more or less as they like.
BAR_MORE = {"open_files": 0, "threads": 2, "segments": 0}

Held: TypeAlias = Mapping[str, Footprint]

OK, LOST = "OK", "DEADLINE_EXCEEDED"
_WARM_UP_S = 1.0


def main(
    *,
    cases: Annotated[str, typer.Option(help="What goes wrong, with commas.")] = ",".join(CASES),
    rounds: Annotated[int, typer.Option(min=2, help="Quiet and disturbed windows of each.")] = 3,
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
        chosen = cases_of(cases)
        lines = Lines(out_dir / LINES)
        with a_stage(rate, ("--wire", wire)) as stage:
            windows, held = measured(stage, chosen, rounds, seconds, lines)
            left = leaks(held, stage.open_requests())
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


def measured(
    stage: Stage, cases: Sequence[str], rounds: int, seconds: float, lines: Lines
) -> tuple[list[Window], list[Held]]:
    """Return all windows, and what the processes held before them and after each round."""
    asyncio.run(run_window(stage, cases[0], disturbed=False, seconds=_WARM_UP_S, seed=0))
    stage.settle()
    held: list[Held] = [stage.footprints()]
    windows: list[Window] = []
    tell_row("case         window      p50 ms   p99 ms  within SLO/s  refused")
    for number in range(rounds):
        for case in cases:
            for disturbed in (False, True) if number % 2 == 0 else (True, False):
                windows.append(one_window(stage, case, disturbed, seconds, number))
                tell(windows[-1], number, lines)
        stage.settle(held[0])
        held.append(stage.footprints())
        lines.tell(
            {"round": number, "held": {name: each.line() for name, each in held[-1].items()}}
        )
    return windows, held


def one_window(stage: Stage, case: str, disturbed: bool, seconds: float, seed: int) -> Window:
    """Return a window, once nothing is left of the one before."""
    stage.settle()
    return asyncio.run(run_window(stage, case, disturbed=disturbed, seconds=seconds, seed=seed))


def tell(window: Window, number: int, lines: Lines) -> None:
    """Print a window: a row for people, a line for programs."""
    steady = window.steady
    kind = "disturbed" if window.disturbed else "quiet"
    tell_row(
        f"{window.case:12} {kind:9} {steady.p50_ms or 0:8.2f} {steady.p99_ms or 0:8.2f} "
        f"{steady.goodput_rps:13.1f} {steady.requests - steady.answered:8}"
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
        }
    )


def summary(windows: Sequence[Window], left: Mapping[str, Any], wire: str) -> dict[str, Any]:
    """Return the figures that have bars, and whether they are met."""
    cases = {
        case: figures([each for each in windows if each.case == case])
        for case in dict.fromkeys(each.case for each in windows)
    }
    bars_met = {
        "p99_ratio": all(each["p99_ratio"] < BAR_RATIO for each in cases.values()),
        "others_answered": all(each["others_refused"] == 0 for each in cases.values()),
        "none_lost": all(each["lost"] == 0 for each in cases.values()),
        "recovered": all(each["recovered"] for each in cases.values()),
        "nothing_leaks": not left["leaks"],
    }
    return {
        "summary": True,
        "wire": wire,
        "cases": cases,
        **left,
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


def leaks(held: Sequence[Held], open_requests: int) -> dict[str, Any]:
    """Return what is left of all the trouble.

    Args:
        held: what processes held before the first round, and after each.
        open_requests: when all is over.
    """
    before, first, last = held[0], held[1], held[-1]
    found = [f"{name} is not what it was" for name in {*before} ^ {*last}]
    if open_requests:
        found.append(f"{open_requests} requests are open")
    for name in sorted({*before} & {*first} & {*last}):
        found += [f"{name}: {each}" for each in left_of(before[name], first[name], last[name])]
    return {
        "held_before": {name: each.line() for name, each in before.items()},
        "held_first": {name: each.line() for name, each in first.items()},
        "held_last": {name: each.line() for name, each in last.items()},
        "leaks": found,
    }


def left_of(before: Footprint, first: Footprint, last: Footprint) -> list[str]:
    """Return what a process holds that it should not: in words, nothing if all is well."""
    found = [
        f"{getattr(last, what)} {what}, {getattr(before, what)} before"
        for what, more in BAR_MORE.items()
        if getattr(last, what) > getattr(before, what) + more
    ]
    for since, held, allowed in (
        ("before", before, BAR_KEPT_BYTES),
        ("after the first round", first, BAR_GROWTH_BYTES),
    ):
        grown = last.resident_bytes - held.resident_bytes
        if grown > allowed:
            found.append(f"{grown / MIB:.1f} MiB more memory than {since}")
    return found


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
