"""Holding shares against a driver that is not there."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest

from penstock.domain.errors import InvalidSettings, UnknownName
from penstock.shares.base import Obtained, ShareOrder, ShareUnavailable
from penstock.shares.driver import Driver
from penstock.shares.held import ShareHolder
from penstock.shares.layout import SmSplit
from penstock.shares.probe import Probed, try_count, try_green
from tests.support.cuda import FakeCuda


def a_holder(cuda: FakeCuda) -> ShareHolder:
    return ShareHolder(lambda: Driver(bindings=cuda))


def green(*taken: int, of: int = 16) -> ShareOrder:
    return ShareOrder(
        mechanism="green",
        gpu=True,
        denominator=of,
        device_sms=132,
        group_sms=8,
        groups=16,
        taken=taken,
    )


def test_green_shares_of_one_process_are_disjoint_and_stay() -> None:
    cuda = FakeCuda()
    holder = a_holder(cuda)
    held = [holder.hold(green(0, 1)), holder.hold(green(2)), holder.hold(green(3, 5, 15))]
    assert [each.obtained.sms for each in held] == [16, 8, 24]
    assert held[0].obtained == Obtained("green", 16, 132)
    assert held[0].obtained.words == "16 of 132 SMs by green"
    for one, other in combinations(cuda.alive.values(), 2):
        assert not one & other
    assert {cuda.streams[each.stream] for each in held} == set(cuda.alive)
    # One split for all: the groups of two splits would be the same multiprocessors.
    assert cuda.calls.count("cuDevSmResourceSplitByCount") == 1
    assert cuda.calls.count("cuDevicePrimaryCtxRetain") == 1
    held[1].close()
    held[1].close()
    assert len(cuda.alive) == 2
    assert cuda.calls[-2:] == ["cuStreamDestroy", "cuGreenCtxDestroy"]


def test_two_processes_take_their_own_groups() -> None:
    one, other = FakeCuda(), FakeCuda()
    a_holder(one).hold(green(0, 1))
    a_holder(other).hold(green(2, 3))
    (first,), (second,) = one.alive.values(), other.alive.values()
    assert (min(first), min(second)) == (0, 16)
    assert not first & second


def test_a_driver_that_splits_otherwise_is_noticed() -> None:
    with pytest.raises(ShareUnavailable, match=r"expected 16 groups of 8 .* made 15 of"):
        a_holder(FakeCuda(lost_groups=1)).hold(green(0))
    with pytest.raises(ShareUnavailable, match=r"expected 16 groups of 8 .* made 8 of \[16\]"):
        a_holder(FakeCuda(minimum=16, alignment=16)).hold(green(0))


def test_the_whole_device_needs_no_context() -> None:
    cuda = FakeCuda()
    held = a_holder(cuda).hold(green(of=1))
    assert (held.stream, held.obtained) == (0, Obtained("green", 132, 132))
    assert not cuda.alive
    held.close()


def test_mps_says_what_is_left() -> None:
    order = ShareOrder(mechanism="mps", gpu=True, denominator=4, device_sms=132)
    held = a_holder(FakeCuda(visible=32)).hold(order)
    assert (held.stream, held.obtained) == (0, Obtained("mps", 32, 132))
    with pytest.raises(ShareUnavailable, match=r"left all 132 .* to a share of 1/4"):
        a_holder(FakeCuda()).hold(order)
    assert a_holder(FakeCuda()).hold(replace(order, denominator=1)).obtained.sms == 132


def test_without_shares_a_driver_that_is_not_there_does_no_harm() -> None:
    order = ShareOrder(mechanism="none", gpu=True, denominator=2)
    assert a_holder(FakeCuda()).hold(order).obtained == Obtained("none", 132, 132)
    held = a_holder(FakeCuda(fails={"cuInit"})).hold(order)
    assert held.obtained == Obtained("none")
    assert held.obtained.words == ""


def test_without_a_gpu_nothing_is_asked() -> None:
    def no_driver() -> Driver:
        raise AssertionError

    assert ShareHolder(no_driver).hold(ShareOrder()).obtained == Obtained()


def test_an_unknown_mechanism_is_told() -> None:
    with pytest.raises(UnknownName, match="unknown share mechanism 'mig'; known: green, mps"):
        a_holder(FakeCuda()).hold(ShareOrder(mechanism="mig", gpu=True))


@pytest.mark.parametrize("call", ["cuInit", "cuGreenCtxCreate", "cuDevSmResourceSplitByCount"])
def test_a_call_that_fails_is_named(call: str) -> None:
    with pytest.raises(ShareUnavailable, match=f"{call}: CUDA_ERROR_INVALID_VALUE"):
        a_holder(FakeCuda(fails={call})).hold(green(0))


def test_a_driver_that_lacks_a_call_is_told() -> None:
    class Old:
        def cuInit(self, flags: int) -> tuple[int]:
            raise RuntimeError("Failed to load libcuda.so.1")

    with pytest.raises(ShareUnavailable, match="cuInit: Failed to load"):
        Driver(bindings=Old())


def test_probing_finds_the_finest_split_that_is_really_made() -> None:
    assert try_count(Driver(bindings=FakeCuda(visible=66))) == Probed(sms=66)
    cuda = FakeCuda()
    assert try_green(Driver(bindings=cuda)).split == SmSplit(sms=132, group_sms=8, groups=16)
    assert not cuda.alive
    assert try_green(Driver(bindings=FakeCuda(lost_groups=2))).groups == 14
    old = FakeCuda(sms=108, minimum=4, alignment=2, capability=8, version=12_060, told=False)
    assert try_green(Driver(bindings=old)).split == SmSplit(sms=108, group_sms=4, groups=27)


@pytest.mark.parametrize(
    ("cuda", "reason"),
    [
        (FakeCuda(version=12_030), "need CUDA 12.4 or newer, the driver has 12.3"),
        (FakeCuda(sms=4), "4 multiprocessors cannot be split"),
        (FakeCuda(lost_groups=16), "132 multiprocessors cannot be split"),
        (FakeCuda(fails={"cuGreenCtxCreate"}), "cuGreenCtxCreate: CUDA_ERROR"),
    ],
)
def test_probing_says_why_not(cuda: FakeCuda, reason: str) -> None:
    with pytest.raises(ShareUnavailable, match=reason):
        try_green(Driver(bindings=cuda))


@pytest.mark.parametrize("fields", [{}, {"taken": 3}, {"taken": [], "nonsense": 1}])
def test_other_orders_are_told(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidSettings, match="expected the order of a share"):
        ShareOrder.from_fields(fields)
