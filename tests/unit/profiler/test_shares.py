"""Measuring at shares: a process for each, held to it; the mechanism is scripted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import pytest

from penstock.domain.errors import InvalidSettings, PenstockError
from penstock.shares.base import Grant, ShareMechanism, ShareOrder
from penstock.shares.environment import process_environment
from penstock.shares.layout import split_of
from penstock.shares.mechanisms import GreenShares, NoShares, Place
from profiler import shares as shares_module
from profiler.shares import device_uuid, measure_at_shares, run_profile

SHARES = (Fraction(1), Fraction(1, 2), Fraction(1, 4))


class Watched(GreenShares):
    closed = 0

    def grant(self, instance: str, share: Fraction) -> Grant:
        grant = super().grant(instance, share)
        return Grant(grant.order, {**grant.environment, "GRANTED": str(share)})

    def close(self) -> None:
        Watched.closed += 1


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> list[Place]:
    """Let there be a GPU that can be divided; return where it was looked for."""
    seen: list[Place] = []

    def opened(name: str, place: Place) -> ShareMechanism:
        seen.append(place)
        return Watched(place, split_of(132, 8, 8), None) if name == "green" else NoShares(place)

    monkeypatch.setattr(shares_module, "open_share", opened)
    monkeypatch.setattr(shares_module, "device_uuid", lambda device: f"GPU-{device}")
    monkeypatch.setattr(Watched, "closed", 0)
    return seen


def ignore(_done: int, _in_all: int) -> None:
    pass


def test_each_share_is_measured_in_a_process_that_is_held_to_it(places: list[Place]) -> None:
    runs: list[tuple[Sequence[str], Mapping[str, str]]] = []
    seen: list[Any] = []
    name = measure_at_shares(
        SHARES,
        "green",
        "cuda",
        ["m", "--gpu-class", "H200"],
        lambda *done: seen.append(done),
        lambda arguments, environment: runs.append((arguments, environment)),
    )
    assert name == "green"
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert [each.device for each in places] == ["GPU-cuda"]
    assert (places[0].own_process, places[0].at_once) == (True, False)
    for (arguments, environment), share, groups in zip(runs, SHARES, (0, 8, 4), strict=True):
        assert list(arguments[:3]) == ["m", "--gpu-class", "H200"]
        options = dict(zip(arguments[3:-1:2], arguments[4:-1:2], strict=True))
        assert options["--share"] == f"1/{share.denominator}"
        assert options["--device"] == "cuda"
        order = ShareOrder.from_json(options["--share-order"])
        assert (order.share, order.taken) == (share, tuple(range(groups)))
        assert environment["GRANTED"] == str(share)
        assert environment["PYTHONPATH"]
        assert arguments[-1] == "--json"
    assert Watched.closed == 1


def test_a_run_that_fails_ends_it_and_leaves_nothing(places: list[Place]) -> None:
    def fail(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        raise PenstockError("out of memory")

    with pytest.raises(PenstockError, match="out of memory"):
        measure_at_shares(SHARES, "green", "cuda", [], ignore, fail)
    assert Watched.closed == 1


def test_shares_that_nothing_holds_to_are_not_measured(places: list[Place]) -> None:
    runs: list[Sequence[str]] = []

    def run(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        runs.append(arguments)

    with pytest.raises(InvalidSettings, match="a way to hold a process to a share, found none"):
        measure_at_shares(SHARES, "none", "cuda", [], ignore, run)
    assert not runs
    assert measure_at_shares(SHARES[:1], "none", "cuda", [], ignore, run) == "none"
    assert len(runs) == 1


def test_a_run_that_fails_says_why() -> None:
    with pytest.raises(PenstockError, match=r"measuring at a share: .*--gpu-class"):
        run_profile(["nobody"], process_environment())


@pytest.mark.parametrize("device", ["cpu", "cuda:77", "tpu"])
def test_a_device_that_cannot_be_shared_is_told(device: str) -> None:
    with pytest.raises(InvalidSettings, match="CUDA device"):
        device_uuid(device)


def test_an_order_survives_the_way_to_the_process() -> None:
    order = ShareOrder(mechanism="green", gpu=True, denominator=3, groups=16, taken=(4, 5))
    assert ShareOrder.from_json(order.to_json()) == order
    assert json.loads(order.to_json())["taken"] == [4, 5]
    for text in ("", "[]", "{}"):
        with pytest.raises(InvalidSettings, match="expected the order of a share"):
            ShareOrder.from_json(text)
