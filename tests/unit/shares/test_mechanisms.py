"""Which way to share is taken, and what it grants; probes and daemons are scripted."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import pytest

from penstock.domain.errors import UnknownName
from penstock.shares import choice
from penstock.shares.base import Grant, ShareMechanism, ShareUnavailable
from penstock.shares.choice import SHARES, check_share_name, open_share
from penstock.shares.environment import PERCENTAGE, PIPES, process_environment
from penstock.shares.mechanisms import Place, percentage
from penstock.shares.probe import Probed, run_probe

HALF, WHOLE = Fraction(1, 2), Fraction(1)


@dataclass
class World:
    """What works here.

    Attributes:
        daemons: those that run.
        tried: what was probed, and whether as a client of MPS.
    """

    mps: bool = True
    green: bool = True
    green_under_mps: bool = True
    limits: bool = True
    daemons: list[FakeDaemon] = field(default_factory=list)
    tried: list[tuple[str, bool]] = field(default_factory=list)

    def probe(self, what: str, environment: Mapping[str, str]) -> Probed:
        assert environment["CUDA_VISIBLE_DEVICES"] == "GPU-1"
        under_mps = PIPES in environment
        self.tried.append((what, under_mps))
        if what == "count":
            return Probed(sms=66 if PERCENTAGE in environment and self.limits else 132)
        if not (self.green_under_mps if under_mps else self.green):
            raise ShareUnavailable("no green contexts")
        return Probed(sms=132, group_sms=8, groups=16)


class FakeDaemon:
    def __init__(self, world: World) -> None:
        self._world = world
        self.running = True
        self.environment = {PIPES: "/pipes", "CUDA_VISIBLE_DEVICES": "GPU-1"}
        world.daemons.append(self)

    def stop(self) -> None:
        self._world.daemons.remove(self)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()

    class Daemons:
        @staticmethod
        def start(device: str, base: Path | None) -> FakeDaemon:
            assert device == "GPU-1"
            if not made.mps:
                raise ShareUnavailable("no MPS")
            return FakeDaemon(made)

    monkeypatch.setattr(choice, "MpsDaemon", Daemons)
    return made


def opened(world: World, name: str = "auto", *, many: bool = True) -> ShareMechanism:
    return open_share(
        name, Place(device="GPU-1", own_process=many, at_once=many, probe=world.probe)
    )


def visible(grant: Grant) -> tuple[bool, str | None]:
    assert grant.environment["CUDA_VISIBLE_DEVICES"] == "GPU-1"
    return PIPES in grant.environment, grant.environment.get(PERCENTAGE)


def test_green_contexts_come_first_and_need_mps_between_processes(world: World) -> None:
    shares = opened(world)
    assert (shares.name, len(world.daemons)) == ("green", 1)
    assert shares.note == "groups of 8 of 132 SMs, side by side through MPS"
    assert world.tried == [("green", False), ("green", True)]
    one, other = shares.grant("a", HALF), shares.grant("b", HALF)
    assert visible(one) == visible(other) == (True, None)  # a percentage would thin groups out
    assert (one.order.taken, other.order.taken) == (tuple(range(8)), tuple(range(8, 16)))
    assert one.order.group_sms * len(one.order.taken) == 64
    with pytest.raises(ShareUnavailable, match="0 of 16 are free"):
        shares.grant("c", HALF)
    shares.release("a")
    assert shares.grant("c", HALF).order.taken == tuple(range(8))
    shares.release_all()
    whole = shares.grant("d", WHOLE)
    assert (visible(whole), whole.order.taken) == ((False, None), ())
    assert not shares.lost()
    world.daemons[0].running = False
    assert shares.lost() == "the MPS daemon is gone"
    shares.close()
    assert not world.daemons


def test_green_contexts_of_one_process_need_no_daemon(world: World) -> None:
    world.mps = False
    shares = opened(world, many=False)
    assert (shares.name, shares.note) == ("green", "groups of 8 of 132 SMs")
    assert visible(shares.grant("a", HALF)) == (False, None)
    assert not shares.lost()
    shares.close()


@pytest.mark.parametrize("lacking", ["green", "green_under_mps"])
def test_mps_comes_second(world: World, lacking: str, caplog: pytest.LogCaptureFixture) -> None:
    setattr(world, lacking, False)
    shares = opened(world)
    assert (shares.name, len(world.daemons)) == ("mps", 1)
    assert "GPU shares by green do not work here: " in caplog.text
    quarter = shares.grant("a", Fraction(1, 4))
    assert visible(quarter) == (True, "25.00")
    assert (quarter.order.device_sms, quarter.order.share) == (132, Fraction(1, 4))
    assert visible(shares.grant("b", WHOLE)) == (False, None)
    shares.release("a")
    shares.release_all()
    world.daemons[0].running = False
    assert shares.lost()
    shares.close()
    assert not world.daemons


def test_none_is_left_and_says_so(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.mps = False
    shares = opened(world)
    assert shares.name == "none"
    assert "processes would take turns without MPS: no MPS" in caplog.text
    assert "shares by mps do not work here: no MPS" in caplog.text
    grant = shares.grant("a", HALF)
    assert visible(grant) == (False, None)
    assert grant.order.gpu
    assert "a is planned at 1/2 of the GPU and not held to it" in caplog.text
    shares.release("a")
    shares.release_all()
    assert not shares.lost()
    shares.close()


def test_a_daemon_that_does_not_limit_is_not_used(world: World) -> None:
    world.green = world.limits = False
    assert opened(world).name == "none"
    assert not world.daemons


def test_one_process_cannot_be_divided_by_mps(world: World) -> None:
    world.green = False
    assert opened(world, many=False).name == "none"
    with pytest.raises(ShareUnavailable, match="one process has all instances"):
        opened(world, "mps", many=False)


def test_processes_that_take_turns_need_no_daemon_for_green_contexts(world: World) -> None:
    place = Place(device="GPU-1", own_process=True, at_once=False, probe=world.probe)
    assert open_share("auto", place).name == "green"
    assert not world.daemons
    assert open_share("mps", place).name == "mps"


def test_what_a_person_asked_for_is_taken_or_refused(world: World) -> None:
    assert opened(world, "mps").name == "mps"
    assert opened(world, "none").name == "none"
    world.mps = False
    for name in ("green", "mps"):
        with pytest.raises(ShareUnavailable, match="no MPS"):
            opened(world, name)


def test_without_a_gpu_there_is_nothing_to_share(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    place = Place(device="", own_process=True, at_once=True, probe=world.probe)
    shares = open_share("auto", place)
    grant = shares.grant("a", HALF)
    assert (shares.name, grant.order.gpu, dict(grant.environment)) == ("none", False, {})
    assert not caplog.text
    for name in ("green", "mps"):
        with pytest.raises(ShareUnavailable, match="need a GPU"):
            open_share(name, place)


def test_names_are_checked() -> None:
    for name in ("auto", *SHARES):
        check_share_name(name)
    with pytest.raises(UnknownName, match="unknown way to share a GPU 'mig'; known: auto, green"):
        check_share_name("mig")
    with pytest.raises(UnknownName):
        open_share("mig", Place(device="", own_process=False, at_once=False))


def test_percentages_are_rounded_down() -> None:
    assert percentage(Fraction(1, 3)) == "33.33"
    assert percentage(Fraction(2, 3)) == "66.66"
    assert percentage(Fraction(1, 8)) == "12.50"


def test_a_real_probe_says_why_it_does_not_work() -> None:
    place = Place(device="GPU-of-nobody", own_process=True, at_once=False)
    for what in ("green", "count"):  # no bindings, no driver or no such device
        with pytest.raises(ShareUnavailable, match=r"cuda-bindings|cuInit|cuDeviceGet"):
            place.try_out(what)
    with pytest.raises(ShareUnavailable, match="trying nonsense ended with exit code 1"):
        run_probe("nonsense", process_environment())


def test_our_own_percentage_is_not_for_clients_of_our_daemon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(PERCENTAGE, "50")
    assert process_environment()[PERCENTAGE] == "50"
    assert PERCENTAGE not in process_environment({PIPES: "/pipes"})
    assert process_environment({PIPES: "/pipes", PERCENTAGE: "25"})[PERCENTAGE] == "25"
