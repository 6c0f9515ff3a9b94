"""A daemon of CUDA's multi-process service of our own: started, found again, ended.

Runs as this user in a directory of its own, without settings of root; the device's compute mode
stays as it is. A daemon that somebody else started is never spoken to. The name of each of our
directories says which process it belongs to, so that the daemon of an owner that was killed can be
ended later.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from penstock.shares.base import ShareUnavailable
from penstock.shares.environment import DEVICES, LOGS, PERCENTAGE, PIPES

CONTROL = "nvidia-cuda-mps-control"
_PREFIX = "mps-"
_LIMIT_S = 20.0
_PATIENCE_S = 10.0
_STEP_S = 0.02

_log = logging.getLogger(__name__)


def base_directory() -> Path:
    """Return the directory of all our daemons of this user; short, because sockets lie in it."""
    return Path(tempfile.gettempdir()) / f"penstock-{os.getuid()}"


class MpsDaemon:
    """One running daemon. Make it with `start`, end it with `stop`."""

    def __init__(self, directory: Path, device: str) -> None:
        self._directory = directory
        self._device = device

    @classmethod
    def start(cls, device: str, base: Path | None = None) -> MpsDaemon:
        """Start a daemon for one device; end those that killed owners left behind.

        Args:
            device: UUID of the device. An index would be counted anew behind the daemon.
            base: directory of all our daemons.

        Raises:
            ShareUnavailable: it does not start here.
        """
        if shutil.which(CONTROL) is None:
            raise ShareUnavailable(f"{CONTROL} is not installed")
        base = _private(base or base_directory())
        end_leftovers(base)
        directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{_identity(os.getpid())}-", dir=base))
        daemon = cls(directory, device)
        try:
            _control(directory, {DEVICES: device}, "-d")
            if not _comes_true(lambda: daemon.running):
                raise ShareUnavailable(f"{CONTROL} -d started nothing{_last_words(directory)}")
        except ShareUnavailable:
            daemon.stop()
            raise
        return daemon

    @property
    def environment(self) -> dict[str, str]:
        """What its clients need."""
        return {**_places(self._directory), DEVICES: self._device}

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return _daemon_of(self._directory) is not None

    def stop(self) -> None:
        """End it and delete its directory. Its clients must be gone."""
        _end(self._directory)


def end_leftovers(base: Path) -> int:
    """End the daemons under `base` whose owners are gone; return how many there were."""
    count = 0
    for directory in sorted(base.glob(f"{_PREFIX}*")):
        if not _owner_lives(directory):
            _log.warning("ending what is left of an MPS daemon in %s: its owner is gone", directory)
            _end(directory)
            count += 1
    return count


def _end(directory: Path) -> None:
    """Ask the daemon of a directory to quit, see to it, and delete the directory."""
    process = _daemon_of(directory)
    if process is not None:
        servers = _children_of(process)
        try:
            _control(directory, {}, said="quit\n")
        except ShareUnavailable as error:
            _log.warning("%s", error)
        if not _comes_true(lambda: _daemon_of(directory) is None):
            _log.warning("the MPS daemon in %s does not quit; it is killed", directory)
            for each in (process, *servers):
                _kill(each)
    shutil.rmtree(directory, ignore_errors=True)


def _places(directory: Path) -> dict[str, str]:
    """Return where daemon and clients meet. Not one place: the pipes have one called log."""
    return {PIPES: str(directory / "pipe"), LOGS: str(directory / "logs")}


def _control(
    directory: Path, environment: Mapping[str, str], *arguments: str, said: str = ""
) -> None:
    """Run the control program.

    Raises:
        ShareUnavailable: it is not there, does not end or fails.
    """
    places = _places(directory)
    clean = {name: each for name, each in os.environ.items() if name != PERCENTAGE}
    try:
        for place in places.values():
            Path(place).mkdir(mode=0o700, exist_ok=True)
        result = subprocess.run(
            [CONTROL, *arguments],
            input=said,
            env={**clean, **places, **environment},
            stdout=subprocess.DEVNULL,  # the daemon would hold a pipe open
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=_LIMIT_S,
            check=False,
            start_new_session=True,  # Ctrl-C is not for the daemon
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ShareUnavailable(f"{CONTROL}: {error}") from error
    if result.returncode != 0:
        what = " ".join((*arguments, said.strip())).strip()
        code = result.returncode
        raise ShareUnavailable(f"{CONTROL} {what}: exit code {code}{_last_words(directory)}")


def _last_words(directory: Path) -> str:
    """Return the end of what a daemon wrote to its log."""
    try:
        text = Path(_places(directory)[LOGS], "control.log").read_text(errors="replace")
    except OSError:
        return ""
    return f": {text.splitlines()[-1]}" if text else ""


def _daemon_of(directory: Path) -> int | None:
    """Return the process id of the daemon that lives in a directory, if one does.

    A number alone is not enough: after a while it may be somebody else's.
    """
    pipes = _places(directory)[PIPES]
    try:
        process = int(Path(pipes, f"{CONTROL}.pid").read_text(encoding="utf-8"))
        return process if _is_daemon(process, pipes) else None
    except (OSError, ValueError):
        return None


def _is_daemon(process: int, pipes: str) -> bool:
    """Say whether a process was started with our directory, or at least is such a program."""
    proc = Path(f"/proc/{process}")
    if (proc / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
        return False
    try:
        return f"{PIPES}={pipes}".encode() in (proc / "environ").read_bytes().split(b"\0")
    except PermissionError:
        return CONTROL.startswith((proc / "comm").read_text().strip())


def _comes_true(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_STEP_S)
    return True


def _children_of(process: int) -> list[int]:
    """Return the servers that a daemon has started."""
    try:
        listed = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="utf-8")
    except OSError:
        return []
    return [int(each) for each in listed.split()]


def _kill(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def _identity(process: int) -> str:
    """Return a process id with the moment it started: numbers come round again."""
    stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    return f"{process}-{stat.rpartition(')')[2].split()[19]}"


def _owner_lives(directory: Path) -> bool:
    owner = directory.name.removeprefix(_PREFIX).rpartition("-")[0]
    try:
        return owner == _identity(int(owner.partition("-")[0]))
    except (OSError, ValueError):
        return False


def _private(base: Path) -> Path:
    """Make the directory of all our daemons; others must not reach into it.

    Raises:
        ShareUnavailable: somebody else made it.
    """
    try:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = base.lstat()
    except OSError as error:
        raise ShareUnavailable(f"{base}: {error.strerror}") from error
    if facts.st_uid != os.getuid() or facts.st_mode & 0o077 or base.is_symlink():
        raise ShareUnavailable(f"{base}: not a directory that only we may use")
    return base
