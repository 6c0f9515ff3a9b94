"""Starts a frontend and its workers as processes of this host, and stops every one of them.

Knows processes, addresses and log files; nothing of plans beyond which GPU classes they need.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import FrameType, TracebackType

from penstock.domain.errors import PenstockError
from penstock.domain.placement import gpu_slots
from penstock.domain.plan import Plan

_POLL_S = 0.05
_ANSWER_S = 5.0
_STOP_S = 15.0  # a drain may take this long before a process is killed


class LaunchFailed(PenstockError):
    """A process of the fleet did not come up, or ended by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSettings:
    """What to start.

    Attributes:
        plan: plan file.
        repository: model repository the workers load blocks from.
        executor: what the workers compute with.
        logs: directory for one log file per process.
        port, metrics_port, control_port: 0 lets the system choose.
        acceptors: processes of the frontend that take requests; 0: it has one process.
        policy: batching policy of the frontend.
        run_log: file for the dispatcher's events and effects, if wanted.
        frontend_options: further ones of its command line.
    """

    plan: Path
    repository: Path
    executor: str
    logs: Path
    port: int = 0
    metrics_port: int = 0
    control_port: int = 0
    acceptors: int = 0
    policy: str = "reservation"
    run_log: Path | None = None
    frontend_options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where the frontend listens, as ``host:port``."""

    inference: str
    metrics: str
    control: str


class LocalFleet:
    """A frontend and one worker per GPU that the plan uses. A context manager: leaving stops all.

    Invariant: a process is in `_processes` from its start until it has been waited for.
    """

    def __init__(self, settings: FleetSettings, plan: Plan) -> None:
        self._settings = settings
        self._classes = Counter(slot.gpu_class for slot in gpu_slots(plan))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> LocalFleet:
        """Return the fleet; `start` starts it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop every process, whatever happened."""
        self.stop()

    @property
    def process_ids(self) -> Mapping[str, int]:
        """Ids of the processes started, by name."""
        return {name: process.pid for name, process in self._processes.items()}

    def start(self, timeout_s: float) -> Addresses:
        """Start everything and return when every instance is ready.

        Raises:
            LaunchFailed: a process ended, or not all was ready in time; names the log to read.
        """
        until_s = time.monotonic() + timeout_s
        self._settings.logs.mkdir(parents=True, exist_ok=True)
        addresses = self._start_frontend(until_s)
        for gpu_class, count in sorted(self._classes.items()):
            for number in range(count):
                self._start_worker(gpu_class, number, addresses.control)
        while not _is_ready(addresses.metrics):
            self._check(until_s, "not all instances became ready")
            time.sleep(_POLL_S)
        return addresses

    def wait(self) -> None:
        """Block until a process ends by itself.

        Raises:
            LaunchFailed: always, saying which.
        """
        while True:
            self._check(None, "")
            time.sleep(4 * _POLL_S)

    def stop(self) -> None:
        """Stop the frontend first, so that it drains, then the workers; kill what hangs."""
        frontend = self._processes.get("frontend")
        workers = [each for each in self._processes.values() if each is not frontend]
        for group in ([frontend] if frontend else [], workers):
            _end(group)
        self._processes.clear()

    def _start_frontend(self, until_s: float) -> Addresses:
        settings = self._settings
        arguments = [
            "frontend", "--plan", str(settings.plan), "--repository", str(settings.repository),
            "--port", str(settings.port), "--metrics-port", str(settings.metrics_port),
            "--control-port", str(settings.control_port), "--policy", settings.policy,
            "--acceptors", str(settings.acceptors), "--drain-pause-s", "0", "--json",
        ]  # fmt: skip
        if settings.run_log is not None:
            arguments += ["--run-log", str(settings.run_log)]
        arguments += settings.frontend_options
        self._spawn("frontend", arguments)
        log = self._settings.logs / "frontend.log"
        while (said := _said(log, "listening")) is None:
            self._check(until_s, "the frontend did not say where it listens")
            time.sleep(_POLL_S)
        return Addresses(
            inference=said["inference"], metrics=said["metrics"], control=said["control"]
        )

    def _start_worker(self, gpu_class: str, number: int, control: str) -> None:
        name = f"{gpu_class}-{number}"
        self._spawn(
            f"worker-{name}",
            [
                "worker", "--frontend", control, "--gpu-class", gpu_class,
                "--executor", self._settings.executor, "--worker-id", name, "--server", name,
                "--repository", str(self._settings.repository),
            ],
        )  # fmt: skip

    def _spawn(self, name: str, arguments: list[str]) -> None:
        log = self._settings.logs / f"{name}.log"
        with log.open("wb") as sink:
            # A session of its own: Ctrl-C reaches this process alone, which then stops the rest
            # in order.
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "launcher.child", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PENSTOCK_PARENT": str(os.getpid())},
            )

    def _check(self, until_s: float | None, complaint: str) -> None:
        for name, process in self._processes.items():
            code = process.poll()
            if code is not None:
                log = self._settings.logs / f"{name}.log"
                raise LaunchFailed(f"{name} ended with exit code {code}; {_last_line(log)}")
        if until_s is not None and time.monotonic() > until_s:
            raise LaunchFailed(f"{complaint} in time; see the logs in {self._settings.logs}")


def stop_on_signals() -> None:
    """Let SIGTERM and SIGINT unwind this process, so that its fleet is stopped in order.

    SIGINT too: a shell starts background jobs with it ignored.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)


def read_counter(metrics: str, name: str) -> float:
    """Return the sum of a counter of the frontend over its labels; 0 if it never counted.

    Raises:
        OSError: the metrics page cannot be reached.
    """
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=_ANSWER_S) as answer:
        page = answer.read().decode()
    values = (line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    return sum(float(value) for series, value in values if series.partition("{")[0] == name)


def _is_ready(metrics: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{metrics}/readyz", timeout=_ANSWER_S) as answer:
            return bool(answer.status == HTTPStatus.OK)
    except urllib.error.HTTPError:
        return False


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    until_s = time.monotonic() + _STOP_S
    for process in processes:
        try:
            process.wait(max(0.0, until_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _said(log: Path, event: str) -> dict[str, str] | None:
    """Return the frontend's report of an event, or None if it has not come yet."""
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("{") and line.endswith("}"):
            report: dict[str, str] = json.loads(line)
            if report.get("event") == event:
                return report
    return None


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    said = lines[-1] if lines else "it said nothing"
    return f"its log {log} ends with: {said}"
