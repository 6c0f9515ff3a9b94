"""The verb `replay`: feeds a run log to a fresh dispatcher, or lays two logs side by side."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from penstock import __version__
from penstock.console import note, show, show_json, show_text
from penstock.domain.errors import InvalidSettings

if TYPE_CHECKING:
    from penstock.formats.runlog import RunLog
    from penstock.formats.runlog_header import LogHeader
    from penstock.scheduling.dispatcher import Dispatcher, DispatcherLimits
    from simulator.replays.replay import Comparison
    from simulator.replays.report import Sides

_DIFFERENT = 1


class _Rules(NamedTuple):
    """What a log is replayed with.

    Attributes:
        as_recorded: None if the log does not say what it was recorded with.
    """

    policy: str
    routing: str
    limits: DispatcherLimits
    as_recorded: bool | None


def replay(
    log: Annotated[Path, typer.Argument(help="The run log of a frontend or a simulation.")],
    against: Annotated[
        Path | None, typer.Option(metavar="OTHER", help="Compare with this log; replay nothing.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="Batching policy, in place of the recorded one.")
    ] = None,
    routing: Annotated[
        str | None, typer.Option(help="Routing policy, in place of the recorded one.")
    ] = None,
    queue_samples: Annotated[
        int | None,
        typer.Option(min=1, help="Samples per model that may wait, in place of the recorded."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Replay a run log: do the same events give the same effects?

    The exit code is 0 if they do, else 1, with the first divergence: both sides, and what was open
    then. With another policy that is the first decision it would have taken differently.
    """
    from simulator.replays.replay import compare
    from simulator.replays.replay import replay as replayed

    if against is not None:
        given = {"--policy": policy, "--routing": routing, "--queue-samples": queue_samples}
        _refuse(given)
    with ExitStack() as stack:
        lines = _open(log, stack)
        if against is not None:
            others = _open(against, stack)
            _say_headers(lines.header, others.header)
            result = compare(lines.lines, others.lines)
            _report(result, _names(log, against), None, as_json=as_json)
        else:
            rules = _rules(log, lines.header, policy, routing, queue_samples)
            other_rules = rules.as_recorded is False
            result = replayed(lines.lines, str(log), _dispatcher(rules), decisions_only=other_rules)
            _report(result, _names(log, None), rules, as_json=as_json)
    if result.divergence is not None:
        sys.exit(_DIFFERENT)


def _refuse(given: Mapping[str, object]) -> None:
    """Refuse options that mean nothing where nothing is replayed.

    Raises:
        InvalidSettings: one was given.
    """
    for option, value in given.items():
        if value is not None:
            raise InvalidSettings("--against", "", f"no {option} beside it", str(value))


def _open(path: Path, stack: ExitStack) -> RunLog:
    from penstock.formats.runlog import open_run_log

    # Other bytes than UTF-8 come through as what no line may hold, and are told by their line.
    file = stack.enter_context(path.open(encoding="utf-8", errors="surrogateescape"))
    return open_run_log(
        file,
        str(path),
        lambda line: note(f"{path}: line {line} was cut short and is passed over"),
    )


def _rules(
    log: Path,
    header: LogHeader | None,
    policy: str | None,
    routing: str | None,
    queue_samples: int | None,
) -> _Rules:
    """Return what to replay with: what was asked for, else what was recorded.

    Raises:
        InvalidSettings: neither says.
    """
    from dataclasses import replace

    from penstock.scheduling.dispatcher import DispatcherLimits

    for option, value in (("--policy", policy), ("--routing", routing)):
        if header is None and value is None:
            found = f"neither; {log} has no header that says"
            raise InvalidSettings(option, "", "the one that the log was recorded with", found)
    limits = header.limits if header else DispatcherLimits()
    if queue_samples is not None:
        limits = replace(limits, queue_samples=queue_samples)
    if header is None:
        return _Rules(policy or "", routing or "", limits, as_recorded=None)
    if header.penstock != __version__:
        note(f"{log} was recorded with Penstock {header.penstock}; this is {__version__}")
    chosen = _spelled(policy, routing, header)
    recorded = (header.policy, header.routing, header.limits)
    return _Rules(*chosen, limits, as_recorded=(*chosen, limits) == recorded)


def _spelled(policy: str | None, routing: str | None, header: LogHeader) -> tuple[str, str]:
    from penstock.formats.runlog_header import spelled
    from penstock.policies import batching_policy, routing_policy

    return (
        header.policy if policy is None else spelled(policy, batching_policy(policy)()),
        header.routing if routing is None else spelled(routing, routing_policy(routing)()),
    )


def _dispatcher(rules: _Rules) -> Dispatcher:
    from penstock.policies import batching_policy, routing_policy
    from penstock.scheduling.dispatcher import Dispatcher

    return Dispatcher(batching_policy(rules.policy), routing_policy(rules.routing), rules.limits)


def _say_headers(one: LogHeader | None, other: LogHeader | None) -> None:
    """Tell what the logs say of themselves differently; that is no divergence yet."""
    from dataclasses import asdict

    if one is None or other is None:
        return
    facts, others = asdict(one), asdict(other)
    for name in facts:
        if facts[name] != others[name]:
            note(f"the headers differ in {name}: {facts[name]} and {others[name]}")


def _names(log: Path, against: Path | None) -> Sides:
    from simulator.replays.report import Sides

    return Sides("log", "replay") if against is None else Sides(str(log), str(against))


def _why(rules: _Rules) -> str:
    with_rules = (
        f"policy {rules.policy}, routing {rules.routing}, "
        f"queues of {rules.limits.queue_samples:,} samples"
    )
    if rules.as_recorded is None:
        reason = "The log does not say what it was recorded with; perhaps it was something else."
    elif rules.as_recorded:
        reason = "It was recorded with the same: another version of Penstock decided, or a bug did."
    else:
        reason = "It was recorded with others; here these decide differently for the first time."
    return (
        f"Replayed with {with_rules}. {reason} What comes later in the log answers to what was "
        "decided then, so the replay stops."
    )


def _report(result: Comparison, sides: Sides, rules: _Rules | None, *, as_json: bool) -> None:
    from simulator.replays import report

    if as_json:
        show_json({**_facts(rules), **report.comparison_json(result)})
        return
    divergence = result.divergence
    show_text(report.summary_words(result) + (" up to there" if divergence else ""))
    if divergence is None:
        if rules is not None and rules.as_recorded is False:
            show_text("It was recorded with other rules, which decided the same throughout.")
        if result.open_requests:
            show_text(f"{result.open_requests:,} requests had no outcome yet at the end")
        show(report.outcomes_table(result))
        return
    show_text(report.divergence_words(divergence, sides))
    show(report.divergence_table(divergence, sides))
    show_text(report.state_words(divergence, result.open_requests))
    show_text(report.recent_words(divergence))
    if rules is not None:
        show_text(_why(rules))


def _facts(rules: _Rules | None) -> dict[str, object]:
    from dataclasses import asdict

    if rules is None:
        return {}
    return {
        "policy": rules.policy,
        "routing": rules.routing,
        "limits": asdict(rules.limits),
        "as_recorded": rules.as_recorded,
    }
