"""Slots of a pool, taken, sent, forgotten and given back in any order."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from penstock.cuda.memory import BLOCK_BYTES, DeviceMemory
from penstock.rpc.device_pool import DevicePool, Slot
from penstock.rpc.device_wire import RESERVED_BYTES
from tests.support.cuda_memory import FakeCudaMemory

STEP_NAMES = ("take", "take", "send", "forget", "return")
STEPS = st.lists(
    st.tuples(st.sampled_from(STEP_NAMES), st.integers(0, 1 << 20)),
    max_size=60,
)


@given(STEPS)
def test_places_that_are_out_never_overlap_and_all_come_back(steps: list[tuple[str, int]]) -> None:
    pool = DevicePool(DeviceMemory(bindings=FakeCudaMemory()), BLOCK_BYTES - RESERVED_BYTES)
    ours: list[Slot] = []
    out: dict[int, tuple[int, int]] = {}
    newest = 0
    for step, value in steps:
        if step == "take":
            slot = pool.take(value)
            ours += [slot] if slot is not None else []
            del slot
        elif step == "send" and ours:
            size = ours[value % len(ours)].size
            region = pool.send(ours.pop(value % len(ours)))
            assert region.generation > newest
            newest = region.generation
            out[newest] = (region.start, region.start + size)
        elif step == "forget" and ours:
            del ours[value % len(ours)]
        elif step == "return" and out:
            number = sorted(out)[value % len(out)]
            pool.give_back(number)
            del out[number]
        places = sorted([*out.values(), *[place_of(each) for each in ours]])
        assert all(end <= start for (_, end), (start, _) in pairwise(places))
        assert all(start >= RESERVED_BYTES and end <= BLOCK_BYTES for start, end in places)
        assert pool.held_bytes >= sum(end - start for start, end in places)
    for number in out:
        pool.give_back(number)
    ours.clear()
    assert pool.held_bytes == 0
    whole = pool.take(BLOCK_BYTES - RESERVED_BYTES)
    assert whole is not None
    del whole
    pool.close()


def place_of(slot: Slot) -> tuple[int, int]:
    assert slot.region is not None
    start = slot.region.start + RESERVED_BYTES
    return start, start + slot.size
