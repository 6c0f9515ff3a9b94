"""Which kind of link a fleet of real processes chooses, and what is told of it."""

from __future__ import annotations

import dataclasses
from contextlib import AsyncExitStack
from fractions import Fraction
from pathlib import Path

import pytest

from penstock.scheduling.events import BatchFinished, InstanceJoined
from tests.support.builders import a_model_plan, a_plan, a_pool
from tests.support.fleet import FrontendSide, fp32, frontend_side, worker_process
from tests.support.repositories import write_shapes_model

pytestmark = pytest.mark.e2e


async def told(side: FrontendSide, count: int) -> dict[tuple[str, str], str]:
    """Run a batch through both stages; return the kind of each link that instances told of."""
    await side.inbox.count(InstanceJoined, 2)
    assert {kind and kind.value for kind in side.performer.links.kinds().values()} == {
        "shared memory"
    }
    side.payloads.inputs = [fp32("t0", 2, 3)]
    side.run_batch(0, "p0/0", "p1/0")
    await side.inbox.count(BatchFinished)
    lines = {(each.sender, each.receiver): each.kind for each in side.performer.onward.lines()}
    assert len(lines) == count
    return lines


@pytest.mark.parametrize(
    ("workers", "share", "flags", "kind"),
    [
        (2, Fraction(1), [], "shared memory"),
        (1, Fraction(1, 2), ["--process-per", "device"], "same process"),
    ],
)
async def test_the_shortest_way_is_chosen_and_told(
    workers: int, share: Fraction, flags: list[str], kind: str, tmp_path: Path
) -> None:
    digest = write_shapes_model(tmp_path)
    pools = (
        a_pool("p0", blocks=(0, 1), share=share),
        a_pool("p1", position=1, blocks=(1, 2), share=share),
    )
    model = dataclasses.replace(a_model_plan(pools), blocks_digest=digest)
    plan = a_plan(model, packing="whole-gpu")
    async with frontend_side(plan) as side, AsyncExitStack() as stack:
        for number in range(workers):
            worker = worker_process(side.control, tmp_path, worker_id=f"w{number}", flags=flags)
            await stack.enter_async_context(worker)
        assert await told(side, 1) == {("p0/0", "p1/0"): kind}
        await stack.aclose()
        await side.inbox.until(lambda _: not [*side.performer.onward.lines()])
