from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction

from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.placement import GpuSlot, gpu_slots
from penstock.domain.plan import Pool
from tests.support.builders import a_model_plan, a_plan, a_pool


def shared(name: str, m: int, instances: int = 1, *, position: int = 0) -> Pool:
    blocks = (position, position + 1)
    return a_pool(name, share=Fraction(1, m), instances=instances, position=position, blocks=blocks)


def pools_of(slots: tuple[GpuSlot, ...]) -> list[list[str]]:
    """Return the pool of each instance, GPU by GPU."""
    return [[each.pool for each in slot.instances] for slot in slots]


def test_instances_of_one_position_share_gpus_and_fill_them() -> None:
    slots = gpu_slots(a_plan(a_model_plan([shared("half", 2, 3)])))
    assert [len(slot.instances) for slot in slots] == [2, 1]
    assert [each.id for slot in slots for each in slot.instances] == ["half/0", "half/1", "half/2"]


def test_positions_do_not_share_a_gpu_per_stage() -> None:
    plan = a_plan(a_model_plan([shared("a", 2), shared("b", 2, position=1)]))
    assert pools_of(gpu_slots(plan)) == [["a"], ["b"]]


def test_positions_share_a_gpu_with_whole_gpu_packing() -> None:
    stages = [shared("a", 2), shared("b", 2, position=1)]
    plan = a_plan(a_model_plan(stages), packing="whole-gpu")
    assert pools_of(gpu_slots(plan)) == [["a", "b"]]


def test_models_share_a_gpu_with_whole_gpu_packing_only() -> None:
    models = [a_model_plan([shared(f"{name}.a", 2)], model=ModelName(name)) for name in "nm"]
    (slot,) = gpu_slots(a_plan(*models, packing="whole-gpu"))
    assert [(each.model, each.pool) for each in slot.instances] == [("n", "n.a"), ("m", "m.a")]
    assert pools_of(gpu_slots(a_plan(*models))) == [["n.a"], ["m.a"]]


def test_classes_never_share_a_gpu() -> None:
    pools = [replace(shared(name, 2), gpu_class=GpuClassName(name)) for name in ("slow", "fast")]
    plan = a_plan(a_model_plan(*([pool] for pool in pools)), packing="whole-gpu")
    assert [slot.gpu_class for slot in gpu_slots(plan)] == ["fast", "slow"]


def test_mixed_shares_never_overfill() -> None:
    pools = [shared(f"p{m}", m, count) for m, count in ((2, 1), (3, 4), (4, 2))]
    slots = gpu_slots(a_plan(a_model_plan(*([pool] for pool in pools))))
    assert all(sum(each.share for each in slot.instances) <= 1 for slot in slots)
    assert Counter(each.pool for slot in slots for each in slot.instances) == {
        "p2": 1,
        "p3": 4,
        "p4": 2,
    }
    assert len(slots) == 3  # ceil(1/2 + 4/3 + 2/4)


def test_a_pool_keeps_together_where_that_costs_no_gpu() -> None:
    pools = [shared(name, 4, count) for name, count in (("a", 3), ("b", 7), ("c", 1))]
    plan = a_plan(a_model_plan(*([pool] for pool in pools)), packing="whole-gpu")
    assert pools_of(gpu_slots(plan)) == [["b"] * 4, ["a", "a", "a", "c"], ["b"] * 3]


def test_a_pool_is_torn_apart_where_that_saves_a_gpu() -> None:
    pools = [shared(name, 4, 3) for name in "abcd"]
    plan = a_plan(a_model_plan(*([pool] for pool in pools)), packing="whole-gpu")
    assert pools_of(gpu_slots(plan)) == [list("aaab"), list("bbcc"), list("cddd")]


def test_first_fit_is_not_good_enough() -> None:
    pools = [shared(f"p{m}", m, m - 1) for m in (2, 3, 4)]
    plan = a_plan(a_model_plan(*([pool] for pool in pools)), packing="whole-gpu")
    assert pools_of(gpu_slots(plan)) == [["p2", "p4", "p4"], ["p3", "p3", "p4"]]


def test_equal_plans_give_equal_slots_and_each_instance_has_one() -> None:
    pools = [shared(f"p{m}", m, 5 * m - 1) for m in (7, 2, 5, 3, 6)]
    plan = a_plan(a_model_plan(*([pool] for pool in pools)), packing="whole-gpu")
    slots = gpu_slots(plan)
    assert slots == gpu_slots(replace(plan))
    ids = [each.id for slot in slots for each in slot.instances]
    assert sorted(ids) == sorted(f"{pool.id}/{n}" for pool in pools for n in range(pool.instances))
