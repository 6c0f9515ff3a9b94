"""Measure at several shares of a GPU, each in a process of its own that is held to its share.

The same mechanisms as in a worker. Here the processes take turns, so nothing else runs meanwhile:
what a profile says of a share is how long a block takes alone on it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from penstock.domain.errors import InvalidSettings, PenstockError
from penstock.shares.base import WHOLE, ShareMechanism
from penstock.shares.choice import open_share
from penstock.shares.environment import process_environment
from penstock.shares.mechanisms import NO_SHARES, Place

Run = Callable[[Sequence[str], Mapping[str, str]], None]  # arguments, environment


def measure_at_shares(
    shares: Sequence[Fraction],
    mechanism: str,
    device: str,
    arguments: Sequence[str],
    progress: Callable[[int, int], None],
    run: Run | None = None,
) -> str:
    """Run `penstock profile` once for each share; return the name of the mechanism.

    Args:
        shares: to measure at, in this order.
        mechanism: its name, or ``auto``.
        device: ``cuda`` or ``cuda:N``.
        arguments: of each run, without those that tell share and device.
        progress: called with (shares done, shares in all).
        run: runs it in a new process.

    Raises:
        InvalidSettings: there is no such device, or nothing here can hold a process to a share.
        ShareUnavailable: the mechanism that was asked for does not work here.
        PenstockError: a run failed.
    """
    place = Place(device=device_uuid(device), own_process=True, at_once=False)
    opened = open_share(mechanism, place)
    try:
        if opened.name == NO_SHARES and any(share < WHOLE for share in shares):
            expected = "a way to hold a process to a share"
            raise InvalidSettings("profile", "--shares", expected, "none that works here")
        for done, share in enumerate(shares):
            progress(done, len(shares))
            _measure_at(share, opened, arguments, run or run_profile)
        progress(len(shares), len(shares))
    finally:
        opened.close()
    return opened.name


def run_profile(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run `penstock profile` in a new process.

    Raises:
        PenstockError: it failed; says why in its words.
    """
    result = subprocess.run(
        [sys.executable, "-P", "-m", "profiler", "profile", *arguments],
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines() or [f"exit code {result.returncode}"]
        raise PenstockError(f"measuring at a share: {lines[-1]}")


def device_uuid(device: str) -> str:
    """Return the name by which CUDA finds a device whatever else a process sees.

    Raises:
        InvalidSettings: it is no CUDA device of this machine.
    """
    import torch

    from profiler.measure import check_device

    check_device(device)
    if device.partition(":")[0] != "cuda":
        raise InvalidSettings("profile", "--shares", "a CUDA device", device)
    uuid = str(torch.cuda.get_device_properties(torch.device(device)).uuid)
    return uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"


def _measure_at(
    share: Fraction, mechanism: ShareMechanism, arguments: Sequence[str], run: Run
) -> None:
    grant = mechanism.grant("profile", share)
    options = ["--share", f"{share.numerator}/{share.denominator}", "--device", "cuda"]
    order = ["--share-order", grant.order.to_json(), "--json"]
    try:
        run([*arguments, *options, *order], process_environment(grant.environment))
    finally:
        mechanism.release("profile")
