"""What measured servers come to: medians over rounds, ratios, bars, a table.

Pure: knows neither processes nor files. A figure that could not be measured is None.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bench.servers.outcomes import LOADS, Outcome, Round
from bench.servers.programs.models import IDENTITY

OURS, MLSERVER, TRITON = "penstock", "mlserver", "triton"


@dataclass(frozen=True, slots=True)
class Bar:
    """What a ratio should be at least or at most."""

    side: Literal["at least", "at most"]
    value: float

    def holds(self, ratio: float | None) -> bool | None:
        """Say whether a ratio is on the right side; None if there is none."""
        if ratio is None:
            return None
        return ratio >= self.value if self.side == "at least" else ratio <= self.value


BARS = {
    "unary_c32_over_mlserver": Bar("at least", 1.5),
    "unary_c1_p50_over_mlserver": Bar("at most", 1.5),
    "unary_c32_over_triton_python": Bar("at least", 0.5),
    "stream_over_unary": Bar("at least", 2.0),
}


def line(outcome: Outcome) -> dict[str, Any]:
    """Return all figures of one server with one model."""
    return {
        **_head(outcome),
        "model": outcome.model,
        "idle_cores": outcome.idle_cores,
        "loads": {name: _spread(rounds) for name, rounds in outcome.rounds.items()},
        "why_not": outcome.why_not,
    }


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the figures that bars are about, ratios, and whether bars hold (None: not known)."""
    names = dict.fromkeys(each.server.name for each in outcomes)
    servers = {name: _of_server(name, outcomes) for name in names}
    ratios = _ratios(servers)
    return {
        "summary": True,
        "servers": servers,
        **ratios,
        "bars": {name: f"{bar.side} {bar.value}" for name, bar in BARS.items()},
        "within_bars": {name: bar.holds(ratios[name]) for name, bar in BARS.items()},
    }


def table(outcomes: Sequence[Outcome]) -> str:
    """Return a table for a person: one line per server and model."""
    rows = [
        f"{'model':9}{'server':11}{'protocol':12}{'c=32 r/s':>10}{'stream r/s':>12}"
        f"{'c=1 p50 ms':>12}{'p99 ms':>9}   cores at c=32: client server others"
    ]
    for each in outcomes:
        head = f"{each.model:9}{each.server.name:11}{each.server.wire.name:12}"
        rows.append(head + (_cells(each) if each.why_not is None else f"  {_absent(each)}"))
    settings = {each.server.name: each.server for each in outcomes}
    rows += [f"{name} {each.version}: {each.setting}" for name, each in settings.items()]
    return "\n".join(rows)


def _head(outcome: Outcome) -> dict[str, str]:
    server = outcome.server
    return {
        "server": server.name,
        "version": server.version,
        "protocol": server.wire.name,
        "setting": server.setting,
    }


def _of_server(name: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    own = {each.model: each for each in outcomes if each.server.name == name}
    first = next(iter(own.values()))
    figures = {model: _figures(each) for model, each in own.items()}
    none = dict.fromkeys(_figures(first))
    head = {key: value for key, value in _head(first).items() if key != "server"}
    others = {model: each for model, each in figures.items() if model != IDENTITY}
    reasons = [_absent(each) for each in own.values() if each.why_not is not None]
    why_not = reasons[0] if reasons else None
    return {**head, **figures.get(IDENTITY, none), **others, "why_not": why_not}


def _figures(outcome: Outcome) -> dict[str, float | None]:
    return {
        "unary_c32_rps": _median(outcome, "unary_c32", lambda each: each.rate_rps),
        "unary_c1_p50_ms": _median(outcome, "unary_c1", lambda each: each.p50_ms),
        "stream_c32_rps": _median(outcome, "stream_c32", lambda each: each.rate_rps),
    }


def _ratios(servers: dict[str, dict[str, Any]]) -> dict[str, float | None]:
    def of(name: str, figure: str) -> float | None:
        value: float | None = servers.get(name, {}).get(figure)
        return value

    rate, latency, stream = "unary_c32_rps", "unary_c1_p50_ms", "stream_c32_rps"
    return {
        "unary_c32_over_mlserver": _over(of(OURS, rate), of(MLSERVER, rate)),
        "unary_c1_p50_over_mlserver": _over(of(OURS, latency), of(MLSERVER, latency)),
        "unary_c32_over_triton_python": _over(of(OURS, rate), of(TRITON, rate)),
        "stream_over_unary": _over(of(OURS, stream), of(OURS, rate)),
    }


def _over(ours: float | None, theirs: float | None) -> float | None:
    return round(ours / theirs, 3) if ours is not None and theirs else None


def _median(outcome: Outcome, load: str, figure: Callable[[Round], float]) -> float | None:
    rounds = outcome.rounds.get(load)
    return round(statistics.median(map(figure, rounds)), 3) if rounds else None


def _spread(rounds: Sequence[Round]) -> dict[str, Any]:
    def median(figure: Callable[[Round], float]) -> float:
        return round(statistics.median(map(figure, rounds)), 3)

    return {
        "rps": median(lambda each: each.rate_rps),
        "rps_by_round": [round(each.rate_rps, 1) for each in rounds],
        "p50_ms": median(lambda each: each.p50_ms),
        "p99_ms": median(lambda each: each.p99_ms),
        "client_cores": median(lambda each: each.client_cores),
        "server_cores": median(lambda each: each.server_cores),
        "other_cores": median(lambda each: each.other_cores),
    }


def _absent(outcome: Outcome) -> str:
    return f"not available: {outcome.why_not}"


def _cells(outcome: Outcome) -> str:
    at_once = [_spread(outcome.rounds[each.name]) for each in LOADS if not each.stream]
    alone, crowded = at_once
    figures = _figures(outcome)
    stream = figures["stream_c32_rps"]
    told = f"{stream:12.0f}" if stream is not None else f"{'–':>12}"
    return (
        f"{crowded['rps']:10.0f}{told}{alone['p50_ms']:12.3f}{alone['p99_ms']:9.2f}"
        f"{crowded['client_cores']:24.2f}{crowded['server_cores']:7.2f}"
        f"{crowded['other_cores']:7.2f}"
    )
