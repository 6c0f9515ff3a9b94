from __future__ import annotations

from itertools import product

import pytest

from penstock.domain.ids import GpuClassName
from planner.candidates import CandidatePool
from planner.extract import pool_id
from tests.unit.planner.fleets import DIGITS, gpu_class


def pool(*route: str) -> CandidatePool:
    return CandidatePool(
        model=DIGITS,
        position=0,
        first_block=0,
        end_block=2,
        gpu_class=gpu_class("fast"),
        m=2,
        batch=3,
        latency_us=1,
        memory_bytes=1,
        route=tuple(map(GpuClassName, route)),
    )


@pytest.mark.parametrize(
    ("route", "told"),
    [
        ((), ""),
        (("fast",), ".of-fast"),
        (("fast", "slow"), ".of-fast-slow"),
        (("fast", "a100-40g"), ".of-fast-a100--40g"),
    ],
)
def test_ids_say_what_a_pool_is(route: tuple[str, ...], told: str) -> None:
    assert pool_id(pool(*route)) == f"digits.0.fast.1of2.0-1.b3{told}"


def test_no_two_routes_read_alike() -> None:
    names = ("a", "b", "a-", "a--", "a-b", "a--b", "b-a", "-".join("aba"), "--".join("aba"))
    routes = [route for length in range(4) for route in product(names, repeat=length)]
    assert len({pool_id(pool(*route)) for route in routes}) == len(routes)
