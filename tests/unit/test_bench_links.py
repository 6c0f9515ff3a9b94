"""The bench of links: what it asks for, what it concludes, what it draws."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from bench.links import (
    KIB,
    KINDS,
    MIB,
    SIZES,
    Figures,
    draw,
    ends_of,
    kinds_of,
    not_available,
    report,
    summary,
)
from penstock.cuda.calls import BINDINGS
from penstock.domain.errors import InvalidSettings
from penstock.rpc.links import LinkKind
from tests.support.cuda_memory import FakeCudaMemory, write_bindings


def figures(us: float, gbps: float) -> Figures:
    return Figures([us, us, 9e9], [2 * us] * 3, [gbps, 0.0, gbps], [1.0] * 3)


def test_kinds_are_read_or_refused() -> None:
    assert kinds_of(KINDS) == list(LinkKind)
    with pytest.raises(InvalidSettings, match="same process, shared memory, CUDA IPC, gRPC"):
        kinds_of("shared memory,pigeon")


def test_bars_are_for_the_medians() -> None:
    kinds = (LinkKind.SHARED_MEMORY, LinkKind.STREAM)
    lines = [figures(149, 0.9).line(kind, size) for kind in kinds for size in (KIB, 4 * MIB)]
    assert summary(lines)["bars_met"] == {
        "shared_memory_4_mib_gbps": False,
        "shared_memory_1_kib_us": True,
        "grpc_4_mib_gbps": True,
    }


def test_a_report_has_a_line_each_a_summary_and_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {(LinkKind.SHARED_MEMORY, size): figures(100, 9.0) for size in SIZES}
    assert report(made, tmp_path) is False
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("bytes") for line in told] == [*SIZES, None]
    assert told[-1]["summary"]
    assert (tmp_path / "links.png").stat().st_size > 1000
    draw(told[:-1], tmp_path / "again.svg")


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Play a device for this process and those that it starts."""
    monkeypatch.setitem(sys.modules, BINDINGS, FakeCudaMemory())
    monkeypatch.setenv("PYTHONPATH", str(write_bindings(tmp_path / "lib")))


async def test_a_kind_that_this_host_does_not_have_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, BINDINGS, None)
    missing = await not_available(list(LinkKind))
    reason = "cuda-bindings is not installed: pip install cuda-bindings"
    assert missing == {LinkKind.CUDA_IPC: reason}
    made = {(LinkKind.STREAM, size): figures(100, 9.0) for size in SIZES}
    report(made, tmp_path, missing)
    told = capsys.readouterr()
    assert "CUDA IPC       not available: cuda-bindings is not installed" in told.err
    lines = [json.loads(line) for line in told.out.splitlines()]
    assert lines[-2] == {"kind": "CUDA IPC", "not_available": reason}


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("kind", list(LinkKind))
async def test_what_is_sent_is_counted(kind: LinkKind) -> None:
    assert await not_available([kind]) == {}
    async with ends_of(kind) as ends:
        for _ in range(3):
            await ends.send(5000, memoryview(bytearray(5000)))
        counted = await asyncio.wait_for(ends.counted(), 10)
    assert (counted["frames"], counted["bytes"], len(counted["delays_us"])) == (3, 15000, 3)
