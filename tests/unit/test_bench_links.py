"""The bench of links: what it asks for, what it concludes, what it draws."""

from __future__ import annotations

import asyncio
import json
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
    report,
    summary,
)
from penstock.domain.errors import InvalidSettings
from penstock.rpc.links import LinkKind


def figures(us: float, gbps: float) -> Figures:
    return Figures([us, us, 9e9], [2 * us] * 3, [gbps, 0.0, gbps], [1.0] * 3)


def test_kinds_are_read_or_refused() -> None:
    assert kinds_of(KINDS) == list(LinkKind)
    with pytest.raises(InvalidSettings, match="same process, shared memory, gRPC"):
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


@pytest.mark.parametrize("kind", list(LinkKind))
async def test_what_is_sent_is_counted(kind: LinkKind) -> None:
    async with ends_of(kind) as ends:
        for _ in range(3):
            await ends.send(5000, memoryview(bytearray(5000)))
        counted = await asyncio.wait_for(ends.counted(), 10)
    assert (counted["frames"], counted["bytes"], len(counted["delays_us"])) == (3, 15000, 3)
