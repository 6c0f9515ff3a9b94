"""Shares of a real GPU: who computes where, what is obtained, and a worker on top."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import pytest

from penstock.domain.plan import Plan
from penstock.formats.codec import digest
from penstock.formats.layout import BLOCKS_FILE
from penstock.scheduling.events import BatchFinished, InstanceJoined
from penstock.shares.base import Grant, ShareMechanism, ShareOrder
from penstock.shares.choice import open_share
from penstock.shares.environment import process_environment
from penstock.shares.held import ShareHolder
from penstock.shares.mechanisms import Place
from penstock.shares.mps import CONTROL
from tests.support.builders import a_model_plan, a_plan, a_pool
from tests.support.fleet import children_of, fp32, frontend_side, worker_process
from tests.support.repositories import write_tiny_model
from tests.support.smid import sms_of
from worker.devices import cuda_facts

pytestmark = [pytest.mark.gpu, pytest.mark.e2e]

HALF, QUARTER = Fraction(1, 2), Fraction(1, 4)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def device() -> str:
    """Return the UUID of the first GPU."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    pytest.importorskip("cuda.bindings.driver")
    return cuda_facts("0").uuid


@pytest.fixture
def in_turns(device: str) -> Iterator[ShareMechanism]:
    shares = open_share("green", Place(device=device, own_process=True, at_once=False))
    yield shares
    shares.close()


def needs_mps() -> None:
    if shutil.which(CONTROL) is None:
        pytest.skip(f"needs {CONTROL}")


def started(grant: Grant) -> subprocess.Popen[str]:
    """Start a process that holds a share and says where it computes."""
    command = [sys.executable, "-m", "tests.support.smid", grant.order.to_json()]
    environment = process_environment(grant.environment)
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def answered(process: subprocess.Popen[str]) -> tuple[set[int], int]:
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 0
    fields = json.loads(said.splitlines()[-1])
    return set(fields["sms"]), fields["obtained"]


def assert_disjoint(seen: list[tuple[set[int], int]], order: ShareOrder) -> None:
    for sms, obtained in seen:
        assert len(sms) == obtained == len(order.taken) * order.group_sms
    for (one, _), (other, _) in combinations(seen, 2):
        assert not one & other


def test_shares_of_one_process_compute_on_sms_of_their_own(in_turns: ShareMechanism) -> None:
    import torch

    torch.cuda.init()  # type: ignore[no-untyped-call]
    holder = ShareHolder()
    orders = [in_turns.grant(str(each), QUARTER).order for each in range(4)]
    held = [holder.hold(order) for order in orders]
    assert_disjoint([(sms_of(each), each.obtained.sms) for each in held], orders[0])
    whole = holder.hold(in_turns.grant("whole", Fraction(1)).order)
    assert whole.obtained.sms == whole.obtained.device_sms == orders[0].device_sms
    for each in held:
        each.close()
    torch.cuda.synchronize()  # the primary context lives on


def test_shares_of_two_processes_are_groups_of_one_agreed_split(in_turns: ShareMechanism) -> None:
    grants = [in_turns.grant(str(each), HALF) for each in range(2)]
    processes = [started(each) for each in grants]
    assert_disjoint([answered(each) for each in processes], grants[0].order)


def test_a_graph_stays_on_the_share_that_it_was_captured_on(in_turns: ShareMechanism) -> None:
    import torch

    held = ShareHolder().hold(in_turns.grant("a", QUARTER).order)
    stream = torch.cuda.ExternalStream(held.stream)  # type: ignore[no-untyped-call]
    left, right = (torch.randn(256, 256, device="cuda") for _ in range(2))
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.mm(left, right)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            product = torch.mm(left, right)
        graph.replay()
    stream.synchronize()
    torch.testing.assert_close(product, torch.mm(left, right))
    del graph, product  # before the context
    held.close()


def test_green_shares_side_by_side_under_mps(device: str) -> None:
    needs_mps()
    shares = open_share("green", Place(device=device, own_process=True, at_once=True))
    try:
        grants = [shares.grant(str(each), HALF) for each in range(2)]
        processes = [started(each) for each in grants]
        assert_disjoint([answered(each) for each in processes], grants[0].order)
    finally:
        shares.close()


def test_mps_leaves_a_process_its_percentage(device: str) -> None:
    needs_mps()
    shares = open_share("mps", Place(device=device, own_process=True, at_once=True))
    try:
        grant = shares.grant("a", QUARTER)
        _, obtained = answered(started(grant))
        total = grant.order.device_sms
        assert 0 < obtained <= total // 4 + 8
    finally:
        shares.close()


def halves(blocks_digest: str) -> Plan:
    pool = a_pool("p0", blocks=(0, 2), instances=2, share=HALF, latencies_us=(1_000, 1_000))
    return a_plan(dataclasses.replace(a_model_plan((pool,)), blocks_digest=blocks_digest))


@pytest.mark.slow
@pytest.mark.parametrize("process_per", ["instance", "device"])
async def test_a_worker_serves_two_instances_on_halves(
    device: str, tmp_path: Path, process_per: str
) -> None:
    if process_per == "instance":
        needs_mps()
    write_tiny_model(tmp_path, blocks=2, width=3)
    plan = halves(digest((tmp_path / "m" / "1" / BLOCKS_FILE).read_text(encoding="utf-8")))
    flags = ("--share", "green", "--process-per", process_per, "--device", device)
    async with (
        frontend_side(plan) as side,
        worker_process(side.control, tmp_path, executor="cuda", flags=flags) as worker,
    ):
        async with asyncio.timeout(100):
            await side.inbox.count(InstanceJoined, 2)
        (status,) = side.membership.snapshot()
        assert [each.share.partition(" of ")[0] for each in status.instances] == (
            [status.instances[0].share.partition(" of ")[0]] * 2
        )
        assert all(each.share.endswith("SMs by green") for each in status.instances)
        assert len(children_of(worker.pid)) == (2 if process_per == "instance" else 1)
        side.payloads.inputs = [fp32("t0", 2, 3)]
        side.run_batch(0, "p0/0")
        side.run_batch(1, "p0/1")
        await side.inbox.count(BatchFinished, 2)


@pytest.mark.slow
def test_a_profile_says_what_its_shares_were(device: str, tmp_path: Path) -> None:
    from penstock.domain.execution import ExecutionOptions
    from penstock.domain.ids import GpuClassName, ModelName
    from penstock.formats.layout import profile_paths
    from profiler.files import load_profile

    write_tiny_model(tmp_path, blocks=2, width=3)
    command = [sys.executable, "-m", "profiler", "profile", "m", "--gpu-class", "here"]
    options = ["--repository", str(tmp_path), "--profiles", str(tmp_path / "profiles")]
    options += ["--device", "cuda", "--shares", "1,1/2,1/4", "--batches", "1,2", "--repeats", "5"]
    options += ["--compile", "off"]  # which is quicker
    environment = process_environment({"CUDA_VISIBLE_DEVICES": device})
    subprocess.run([*command, *options], cwd=ROOT, env=environment, check=True, timeout=300)
    paths = profile_paths(tmp_path / "profiles", ModelName("m"), GpuClassName("here"))
    provenance = load_profile(*paths).provenance
    assert provenance.computed == ExecutionOptions(compile="off").on("cuda")
    shares = provenance.shares
    assert [each.share for each in shares] == [Fraction(1), HALF, QUARTER]
    assert shares[0].sms > shares[1].sms > shares[2].sms > 0
    assert {each.mechanism for each in shares} <= {"green", "mps"}
