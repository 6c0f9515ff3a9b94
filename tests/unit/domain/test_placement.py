from __future__ import annotations

from collections import Counter
from fractions import Fraction

from penstock.domain.placement import gpu_slots
from tests.support.builders import a_model_plan, a_plan, a_pool


def test_instances_of_one_position_share_gpus_and_fill_them() -> None:
    pool = a_pool("half", share=Fraction(1, 2), instances=3)
    slots = gpu_slots(a_plan(a_model_plan([pool])))
    assert [len(slot.instances) for slot in slots] == [2, 1]
    assert [each.id for slot in slots for each in slot.instances] == ["half/0", "half/1", "half/2"]


def test_positions_do_not_share_a_gpu() -> None:
    first = a_pool("a", share=Fraction(1, 2))
    second = a_pool("b", position=1, blocks=(1, 2), share=Fraction(1, 2))
    assert len(gpu_slots(a_plan(a_model_plan([first, second])))) == 2


def test_mixed_shares_never_overfill() -> None:
    pools = [
        a_pool(f"p{m}", share=Fraction(1, m), instances=count)
        for m, count in ((2, 1), (3, 4), (4, 2))
    ]
    slots = gpu_slots(a_plan(a_model_plan(*([pool] for pool in pools))))
    assert all(sum(each.share for each in slot.instances) <= 1 for slot in slots)
    assert Counter(each.pool for slot in slots for each in slot.instances) == {
        "p2": 1,
        "p3": 4,
        "p4": 2,
    }
    assert len(slots) == 3  # ceil(1/2 + 4/3 + 2/4)
