"""Servers measured side by side: the same loads in turns, each server alone at work.

A server that cannot be had, does not start or stops answering is told of with its reason and
never stops the others from being measured. Knows no particular server.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.closed_loop import ClosedLoop, Measured, run_calls, run_closed_loop
from bench.processes import host_us
from bench.servers.definition import PINS, NotAvailable, Server, Site
from bench.servers.environments import environment
from bench.servers.outcomes import LOADS, Effort, Load, Outcome, Round
from bench.servers.programs.models import load, sample
from bench.servers.running import RunningServer, descendants, free_ports, kill_newcomers
from client.infer import RequestFailed
from penstock.domain.units import US_PER_SECOND, Micros

_IDLE_S = 2.0
_CONNECT_US = 10 * US_PER_SECOND

# Share of one core above which a server that has nothing to do disturbs the others.
IDLE_BAR = 0.02


Say = Callable[[str], None]


def interpreters(
    servers: Sequence[Server], environments: Path, ours: Path, say: Say
) -> dict[str, Path | NotAvailable]:
    """Return each server's interpreter by its name, or why there is none.

    Args:
        servers: that are wanted.
        environments: folder with one environment for each; what is missing is installed.
        ours: the interpreter of servers without an environment.
        say: told each environment before it is looked at.
    """
    found: dict[str, Path | NotAvailable] = {}
    for server in servers:
        if not server.pinned:
            found[server.name] = ours
            continue
        say(f"environment of {server.name} {server.version}")
        try:
            found[server.name] = environment(
                environments / server.name, PINS / f"{server.name}.txt"
            )
        except NotAvailable as reason:
            found[server.name] = reason
    return found


async def measure(
    model: str,
    servers: Sequence[Server],
    pythons: Mapping[str, Path | NotAvailable],
    effort: Effort,
    logs: Path,
    say: Say,
) -> list[Outcome]:
    """Start all servers with one model, measure them in turns and stop them."""
    outcomes = [Outcome(server=server, model=model) for server in servers]
    with ExitStack() as stack:
        stack.callback(kill_newcomers, descendants())
        say(f"{model}: starting {', '.join(each.name for each in servers)}")
        running = _start(stack, outcomes, pythons, logs)
        try:
            await _settle(running)
            for number in range(effort.rounds):
                say(f"{model}: round {number + 1} of {effort.rounds}")
                await _take_round(_rotated(running, number), effort)
        finally:
            say(f"{model}: stopping")
            for _, process in running:
                process.ask_to_stop()  # all at once; the stack waits for each
    return outcomes


def _start(
    stack: ExitStack,
    outcomes: Sequence[Outcome],
    pythons: Mapping[str, Path | NotAvailable],
    logs: Path,
) -> list[tuple[Outcome, RunningServer]]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peers-")))
    logs.mkdir(parents=True, exist_ok=True)
    running = []
    for outcome in outcomes:
        try:
            process = _started(outcome, pythons[outcome.server.name], folder, logs)
            running.append((outcome, stack.enter_context(process)))
        except NotAvailable as reason:
            outcome.fail(str(reason))
    return running


def _started(
    outcome: Outcome, python: Path | NotAvailable, folder: Path, logs: Path
) -> RunningServer:
    if isinstance(python, NotAvailable):
        raise python
    server, model = outcome.server, outcome.model
    first, second, third = free_ports(3)
    site = Site(
        folder=folder / server.name, python=python, model=model, ports=(first, second, third)
    )
    site.folder.mkdir()
    expected = load(model)(sample(model))
    return RunningServer(server, site, expected, logs / f"{server.name}-{model}.log")


async def _settle(running: Sequence[tuple[Outcome, RunningServer]]) -> None:
    """Wait until all are ready, then see what they use with nothing to do."""
    for outcome, process in running:
        try:
            await process.wait_ready()
        except NotAvailable as reason:
            outcome.fail(str(reason))
    before = [process.processor_us() for _, process in running]
    await asyncio.sleep(_IDLE_S)
    for (outcome, process), used_us in zip(running, before, strict=True):
        idle_us = max(0, process.processor_us() - used_us)
        outcome.idle_cores = idle_us / US_PER_SECOND / _IDLE_S
        if outcome.idle_cores > IDLE_BAR:
            process.pause()


def _rotated(
    running: Sequence[tuple[Outcome, RunningServer]], number: int
) -> Sequence[tuple[Outcome, RunningServer]]:
    """Begin each round with another server: none always follows the same one."""
    start = number % max(1, len(running))
    return [*running[start:], *running[:start]]


async def _take_round(running: Sequence[tuple[Outcome, RunningServer]], effort: Effort) -> None:
    for outcome, process in running:
        if outcome.why_not is None:
            await _take_turn(outcome, process, effort)


async def _take_turn(outcome: Outcome, process: RunningServer, effort: Effort) -> None:
    with _awake(outcome, process):
        for each in LOADS:
            if each.stream and not outcome.server.streams:
                continue
            if outcome.why_not is not None:
                break
            try:
                outcome.rounds.setdefault(each.name, []).append(await _take(process, each, effort))
            except* RequestFailed as failures:
                outcome.fail(f"{each.name}: {failures.exceptions[0]}")


@contextmanager
def _awake(outcome: Outcome, process: RunningServer) -> Iterator[None]:
    """Let a server run that does not rest by itself, as long as the block."""
    restless = (outcome.idle_cores or 0.0) > IDLE_BAR
    if restless:
        process.resume()
    try:
        yield
    finally:
        if restless:
            process.pause()


async def _take(process: RunningServer, load: Load, effort: Effort) -> Round:
    asked = ClosedLoop(
        address=process.address,
        request=process.request,
        callers=load.callers,
        stream=load.stream,
        seconds=effort.seconds,
        warm_up_s=effort.warm_up_s,
    )
    before = _Busy.now(process)
    measured = await _run(process, asked)
    if not measured.latencies_us:
        raise RequestFailed("DEADLINE_EXCEEDED", "not one answer in the time that counts")
    busy = _Busy.now(process).since(before)
    return Round(
        rate_rps=measured.rate_rps,
        p50_ms=measured.quantile_ms(0.5),
        p99_ms=measured.quantile_ms(0.99),
        client_cores=busy.client_us / busy.at_us,
        server_cores=busy.server_us / busy.at_us,
        other_cores=max(0, busy.host_us - busy.client_us - busy.server_us) / busy.at_us,
    )


@dataclass(frozen=True, slots=True)
class _Busy:
    """Processor time used so far by client, server and the whole host, and when."""

    client_us: Micros
    server_us: Micros
    host_us: Micros
    at_us: Micros

    @classmethod
    def now(cls, process: RunningServer) -> _Busy:
        client_us, at_us = time.process_time_ns() // 1_000, time.monotonic_ns() // 1_000
        return cls(client_us, process.processor_us(), host_us(), at_us)

    def since(self, before: _Busy) -> _Busy:
        return _Busy(
            self.client_us - before.client_us,
            self.server_us - before.server_us,
            self.host_us - before.host_us,
            self.at_us - before.at_us,
        )


async def _run(process: RunningServer, asked: ClosedLoop) -> Measured:
    if asked.stream:
        return await run_closed_loop(asked)
    async with process.server.wire.client(process.address, asked.callers) as client:
        await client.wait_connected(_CONNECT_US)
        return await run_calls(asked, client)
