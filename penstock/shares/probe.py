"""Tries in a process of its own what this host can do, so that nobody else has to start CUDA.

Run as ``python -P -m penstock.shares.probe green|count``: prints one line of JSON with what it
found, or ``{"failed": "…"}``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TypeAlias

from penstock.shares.base import ShareUnavailable
from penstock.shares.driver import Driver
from penstock.shares.layout import SmSplit

_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What a process like ours sees of the device.

    Attributes:
        sms: multiprocessors it may use.
        group_sms, groups: of the finest split; 0 where that was not tried.
    """

    sms: int
    group_sms: int = 0
    groups: int = 0

    @property
    def split(self) -> SmSplit:
        """The finest split."""
        return SmSplit(sms=self.sms, group_sms=self.group_sms, groups=self.groups)


Probe: TypeAlias = Callable[[str, Mapping[str, str]], Probed]  # what to try, environment


def try_count(driver: Driver) -> Probed:
    """Count the multiprocessors."""
    return Probed(sms=driver.visible_sms())


def try_green(driver: Driver) -> Probed:
    """Split the device and make a green context of one group.

    Raises:
        ShareUnavailable: it does not work.
    """
    split = driver.finest_split()
    context = driver.green_context(driver.groups(split)[:1])
    stream = driver.stream(context)
    obtained = driver.sms_of(context)
    driver.destroy(context, stream)
    if obtained != split.group_sms:
        raise ShareUnavailable(f"a group of {split.group_sms} multiprocessors has {obtained}")
    return Probed(sms=split.sms, group_sms=split.group_sms, groups=split.groups)


def run_probe(what: str, environment: Mapping[str, str]) -> Probed:
    """Try it in a new process.

    Args:
        what: ``green`` or ``count``.
        environment: of that process, whole.

    Raises:
        ShareUnavailable: it does not work here; says why.
    """
    command = [sys.executable, "-P", "-m", "penstock.shares.probe", what]
    try:
        result = subprocess.run(
            command,
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ShareUnavailable(f"trying {what} took longer than {_LIMIT_S:g} s") from None
    return _read(what, result.stdout, result.returncode)


def _read(what: str, said: str, code: int) -> Probed:
    try:
        fields = json.loads(said.splitlines()[-1])
        if "failed" in fields:
            raise ShareUnavailable(fields["failed"])
        return Probed(**fields)
    except (IndexError, ValueError, TypeError):
        raise ShareUnavailable(f"trying {what} ended with exit code {code}") from None


def main() -> None:
    """Try what the command line asks for and say what came of it."""
    try:
        found = asdict(_TRIALS[sys.argv[1]](Driver()))
    except ShareUnavailable as error:
        found = {"failed": str(error)}
    sys.stdout.write(json.dumps(found) + "\n")


_TRIALS: Mapping[str, Callable[[Driver], Probed]] = {"green": try_green, "count": try_count}


if __name__ == "__main__":
    main()
