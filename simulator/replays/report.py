"""A comparison of runs in words and as JSON: what is equal, and where it ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, NamedTuple

from penstock.domain.ids import ModelName
from penstock.domain.outcomes import Summary
from penstock.domain.units import US_PER_SECOND, Micros
from penstock.formats.runlog import LogEntry, tagged
from penstock.scheduling.effects import Effect
from simulator.replays.divergence import Pair, differences, paired, plain_entry
from simulator.replays.replay import Comparison, Divergence, Placed
from simulator.replays.words import (
    counted,
    effect_rows,
    effect_words,
    entry_words,
    event_words,
    instant,
)

if TYPE_CHECKING:
    from rich.table import Table

_UNEQUAL = "≠"


class Sides(NamedTuple):
    """What the two sides are called."""

    expected: str
    found: str


class Row(NamedTuple):
    """One line of a divergence."""

    place: str
    expected: str
    found: str
    mark: str


def comparison_json(comparison: Comparison) -> dict[str, object]:
    """Return all figures, and the divergence if there is one."""
    divergence = comparison.divergence
    return {
        "identical": divergence is None,
        "entries": comparison.entries,
        "events": dict(comparison.events),
        "requests": comparison.requests,
        "batches": comparison.batches,
        "effects": comparison.effects,
        "span_us": comparison.span_us,
        "open_requests": comparison.open_requests,
        "overall": asdict(comparison.overall),
        "models": {model: asdict(each) for model, each in comparison.models.items()},
        "divergence": None if divergence is None else _divergence_json(divergence),
    }


def summary_words(comparison: Comparison) -> str:
    """Return in one sentence how much is equal."""
    span = f"{comparison.span_us / US_PER_SECOND:.3f} s"
    return (
        f"{comparison.entries:,} entries over {span}: {comparison.requests:,} requests, "
        f"{comparison.batches:,} batches, {comparison.effects:,} effects, all equal"
    )


def outcomes_table(comparison: Comparison) -> Table:
    """Return what became of the requests, one column per model."""
    from rich.table import Table

    names: list[str] = [*comparison.models]
    each = [*comparison.models.values()]
    if len(names) != 1:
        names, each = ["all", *names], [comparison.overall, *each]
    table = Table("", *names, title="At the dispatcher")
    table.add_row("requests ended", *(f"{one.requests:,}" for one in each))
    table.add_row("attainment", *(f"{one.attainment:.2%}" for one in each))
    table.add_row("offered", *(f"{one.offered_rps:.1f}/s" for one in each))
    table.add_row("goodput", *(f"{one.goodput_rps:.1f}/s" for one in each))
    table.add_row("latency p50", *(_ms(one.p50_ms) for one in each))
    table.add_row("latency p95", *(_ms(one.p95_ms) for one in each))
    table.add_row("latency p99", *(_ms(one.p99_ms) for one in each))
    table.add_row("refused", *(_refusals(one) for one in each))
    return table


def divergence_words(divergence: Divergence, sides: Sides) -> str:
    """Return where two runs part, and what happened there."""
    expected, found = divergence.expected, divergence.found
    line, other = divergence.lines
    numbers = [f"line {line}"] if line else []
    numbers += [f"line {other} of {sides.found}"] if other and other != line else []
    at_us = min(each.now_us for each in (expected, found) if each is not None)
    where = f"entry {divergence.number:,} ({', '.join(numbers)})"
    lines = [f"first divergence: {where}, at {instant(at_us)}"]
    if expected is not None:
        lines.append(f"event: {event_words(expected.event)}")
    if divergence.refusal:
        lines.append(f"{sides.found} has no answer: {divergence.refusal}")
    elif found is None:
        lines.append(f"{sides.found} ends before it")
    elif expected is None:
        lines.append(
            f"{sides.expected} has nothing before this line"
            if line
            else f"{sides.expected} ends before it"
        )
    return "\n".join(lines)


def divergence_table(divergence: Divergence, sides: Sides) -> Table:
    """Return both sides field by field; what differs is marked."""
    from rich.table import Table

    table = Table("", sides.expected, sides.found, "")
    for row in divergence_rows(divergence):
        style = "bold" if row.mark else None
        table.add_row(*row, style=style)
    return table


def divergence_rows(divergence: Divergence) -> Iterator[Row]:
    """Yield what both sides have, line by line; an effect that is equal takes one."""
    expected, found = divergence.expected, divergence.found
    if expected is None or found is None:
        yield Row("entry", _entry_words(expected), _entry_words(found), _UNEQUAL)
        return
    if expected.now_us != found.now_us:
        yield Row("now_us", str(expected.now_us), str(found.now_us), _UNEQUAL)
    if expected.event != found.event:
        words = (event_words(expected.event), event_words(found.event))
        yield Row("event", *words, _UNEQUAL)
        for each in differences(expected, found):
            if each.place.startswith("event."):
                yield Row(each.place, str(each.expected), str(each.found), _UNEQUAL)
    for pair in paired(expected.effects, found.effects):
        yield from _pair_rows(pair)


def state_words(divergence: Divergence, total_open: int) -> str:
    """Return what was open just before."""
    lines = [f"just before, {counted(total_open, 'request')} in all had no outcome"]
    for model, state in divergence.before.items():
        lines.append(
            f"  {model}: {counted(state.waiting_samples, 'sample')} waiting, "
            f"{counted(state.open_requests, 'request')} open, "
            f"{counted(state.batches, 'batch', 'batches')} on the way"
        )
    return "\n".join(lines)


def recent_words(divergence: Divergence) -> str:
    """Return the last entries that are equal and about the same models."""
    if not divergence.recent:
        return "there are no entries before it"
    lines = [_recent_line(each) for each in divergence.recent]
    return "\n".join(["the last entries about the same, in both:", *lines])


def _recent_line(placed: Placed) -> str:
    return f"  {placed.number:,} at {instant(placed.entry.now_us)}: {entry_words(placed.entry)}"


def _pair_rows(pair: Pair) -> Iterator[Row]:
    place, expected, found = pair
    if expected == found:
        yield Row(place, _effect_words(expected), "the same", "")
    elif expected is None or found is None or type(expected) is not type(found):
        yield Row(place, _effect_words(expected), _effect_words(found), _UNEQUAL)
    else:
        kind = type(expected).__name__
        yield Row(place, kind, kind, "")
        one, other = effect_rows(expected), effect_rows(found)
        for key in dict.fromkeys([*one, *other]):
            values = one.get(key, "–"), other.get(key, "–")
            yield Row(f"  {key}", *values, "" if values[0] == values[1] else _UNEQUAL)


def _effect_words(effect: Effect | None) -> str:
    return "–" if effect is None else effect_words(effect)


def _entry_words(entry: LogEntry | None) -> str:
    return "–" if entry is None else f"{instant(entry.now_us)}: {entry_words(entry)}"


def _divergence_json(divergence: Divergence) -> dict[str, object]:
    expected, found = divergence.expected, divergence.found
    entry = expected or found
    return {
        "entry": divergence.number,
        "line": divergence.lines[0] or None,
        "other_line": divergence.lines[1] or None,
        "now_us": _now(entry),
        "event": tagged(entry.event) if entry else None,
        "expected": plain_entry(expected) if expected else None,
        "found": plain_entry(found) if found else None,
        "refusal": divergence.refusal,
        "differences": [each._asdict() for each in differences(expected, found)],
        "before": _states(divergence),
        "recent": [{"entry": each.number, **plain_entry(each.entry)} for each in divergence.recent],
    }


def _now(entry: LogEntry | None) -> Micros | None:
    return entry.now_us if entry else None


def _states(divergence: Divergence) -> Mapping[ModelName, dict[str, int]]:
    return {model: asdict(state) for model, state in divergence.before.items()}


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} ms"


def _refusals(summary: Summary) -> str:
    return ", ".join(f"{count} {cause}" for cause, count in sorted(summary.refusals.items())) or "0"
