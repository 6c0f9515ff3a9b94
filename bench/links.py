"""How fast are links: one-way latency and bytes per second, by kind of link and size of tensor?

The sender is this process, the receiver another (`bench/link_receiver.py`), or the same one for
links inside a process. Both ends share two cores. Latency is from before a frame is sent until its
tensor is in the receiver's hands, frames far apart; bytes per second are of frames sent as fast as
the receiver takes them. Kinds take turns, and the median of the rounds counts. Over CUDA IPC the
tensor goes from the sender's device memory into the receiver's (`bench/device_links.py`); a host
that has no device is told so.

Prints a table to stderr, one JSON line per kind and size and a summary line to stdout, and writes
lines and a picture to the output folder. Exits with 1 if a bar is missed. See docs/bench.md.

    python bench/links.py --rounds 3
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from bench.device_links import DeviceSender
from bench.link_receiver import STAMP_BYTES, Taker
from bench.planned import Lines, errors_in_one_line
from penstock.aio.loops import new_loop, usual_loop
from penstock.console import note
from penstock.cuda.memory import DeviceRefused
from penstock.domain.errors import InvalidSettings
from penstock.pictures.canvas import FAINT, GRID, PALETTE, add_axes, new_figure, save
from penstock.rpc.frames import announce
from penstock.rpc.links import LinkKind, LinkReceiver, LinkSender, LinkServer, Neighbours
from protos.link_pb2 import CancelBatch, FrameHeader

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KIB, MIB = 1 << 10, 1 << 20
KINDS = ",".join(kind.value for kind in LinkKind)
SIZES = (KIB, 64 * KIB, 600 * KIB, 4 * MIB, 16 * MIB)
BARS = {
    "shared_memory_4_mib_gbps": 5.0,
    "shared_memory_1_kib_us": 150.0,
    "grpc_4_mib_gbps": 0.8,
}
PICTURE = "links.png"

_CORES = 2
_APART_S = 0.003
_LIMIT_BYTES = 64 * MIB
_LINE_LIMIT_BYTES = 1 << 24
_P99 = 0.99

_ALL_THERE: Mapping[LinkKind, str] = MappingProxyType({})

Key: TypeAlias = tuple[LinkKind, int]


@dataclass(slots=True)
class Figures:
    """What the rounds of one kind and size gave."""

    p50_us: list[float] = field(default_factory=list)
    p99_us: list[float] = field(default_factory=list)
    gbps: list[float] = field(default_factory=list)
    frames_per_s: list[float] = field(default_factory=list)

    def line(self, kind: LinkKind, size: int) -> dict[str, Any]:
        """Return the medians."""
        return {
            "kind": kind.value,
            "bytes": size,
            "p50_us": round(statistics.median(self.p50_us), 1),
            "p99_us": round(statistics.median(self.p99_us), 1),
            "gigabytes_per_s": round(statistics.median(self.gbps), 3),
            "best_gigabytes_per_s": round(max(self.gbps), 3),
            "frames_per_s": round(statistics.median(self.frames_per_s)),
        }


@dataclass(frozen=True, slots=True)
class Ends:
    """An open link and how to hear what its receiver counted."""

    link: LinkSender
    told: asyncio.Queue[str]
    device: DeviceSender | None = None

    async def send(self, size: int, buffer: memoryview) -> None:
        """Send a tensor that says when it left."""
        if self.device is not None:
            await self.device.send(self.link, size)
            return
        buffer[:STAMP_BYTES] = time.monotonic_ns().to_bytes(STAMP_BYTES, "little")
        data = buffer[:size]
        header = FrameHeader()
        header.result.batch_id = 1
        announce(header.result.tensors, "x", "UINT8", (size,), [data])
        await self.link.send(header, [data])

    async def counted(self) -> dict[str, Any]:
        """Return what has come since the last time."""
        await self.link.send(FrameHeader(cancel=CancelBatch(batch_id=1)))
        counted: dict[str, Any] = json.loads(await self.told.get())
        return counted


def main(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; their median counts.")] = 3,
    frames: Annotated[int, typer.Option(min=10, help="Frames of each latency.")] = 100,
    seconds: Annotated[float, typer.Option(min=0.05, help="Of each rate.")] = 0.3,
    kinds: Annotated[str, typer.Option(help="Kinds of link, with commas.")] = KINDS,
    out_dir: Annotated[Path, typer.Option(help="Folder for lines and picture.")] = Path(
        "build/bench"
    ),
) -> None:
    """Measure links of each kind."""
    with errors_in_one_line():
        chosen = kinds_of(kinds)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:_CORES])
    with asyncio.Runner(loop_factory=lambda: new_loop(usual_loop())) as runner:
        missing = runner.run(not_available(chosen))
        there = [kind for kind in chosen if kind not in missing]
        figures = runner.run(measured(there, rounds, frames, seconds))
    sys.exit(report(figures, out_dir, missing))


def kinds_of(text: str) -> list[LinkKind]:
    """Read kinds of link.

    Raises:
        InvalidSettings: there is no such kind.
    """
    known = {each.value: each for each in LinkKind}
    names = [each.strip() for each in text.split(",")]
    if not set(names) <= known.keys():
        raise InvalidSettings("--kinds", "", ", ".join(known), text)
    return [known[name] for name in names]


async def not_available(kinds: Sequence[LinkKind]) -> dict[LinkKind, str]:
    """Return the kinds of link that this host does not have, and why."""
    if LinkKind.CUDA_IPC not in kinds:
        return {}
    try:
        async with ends_of(LinkKind.CUDA_IPC):
            return {}
    except (DeviceRefused, InvalidSettings) as error:
        return {LinkKind.CUDA_IPC: str(error)}


async def measured(
    kinds: Sequence[LinkKind], rounds: int, frames: int, seconds: float
) -> dict[Key, Figures]:
    """Measure all kinds in turns."""
    figures = {(kind, size): Figures() for kind in kinds for size in SIZES}
    for _ in range(rounds):
        for kind in kinds:
            async with ends_of(kind) as ends:
                for size in SIZES:
                    await _measure(ends, size, frames, seconds, figures[kind, size])
    return figures


@asynccontextmanager
async def ends_of(kind: LinkKind) -> AsyncIterator[Ends]:
    """Open a link of a kind."""
    told: asyncio.Queue[str] = asyncio.Queue()
    near, on_device = kind is LinkKind.SAME_PROCESS, kind is LinkKind.CUDA_IPC
    with _device_sender() if on_device else nullcontext() as device:
        far = _neighbour(told) if near else _far_end(told, on_device=on_device)
        async with far as (address, neighbours):
            link = LinkSender(
                address,
                "bench",
                limit_bytes=_LIMIT_BYTES,
                neighbours=neighbours,
                device=device.source if device is not None else None,
                **({"shared_bytes": 0} if kind is LinkKind.STREAM else {}),
            )
            await link.opened()
            if link.kind is not kind:
                raise InvalidSettings("--kinds", "", f"a link by {kind.value}", str(link.kind))
            yield Ends(link, told, device)
            await link.close()


@contextmanager
def _device_sender() -> Iterator[DeviceSender]:
    sender = DeviceSender()
    try:
        yield sender
    finally:
        sender.close()


@asynccontextmanager
async def _neighbour(told: asyncio.Queue[str]) -> AsyncIterator[tuple[str, Neighbours]]:
    neighbours = Neighbours()
    server = LinkServer("127.0.0.1", neighbours=neighbours)
    await server.start(LinkReceiver(Taker(told.put_nowait).on_frame, lambda _: None))
    yield server.address, neighbours
    await server.stop()


@asynccontextmanager
async def _far_end(told: asyncio.Queue[str], *, on_device: bool) -> AsyncIterator[tuple[str, None]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.link_receiver", *(["--device"] if on_device else [])),
        cwd=Path(__file__).parents[1],
        stdin=PIPE,
        stdout=PIPE,
        limit=_LINE_LIMIT_BYTES,
    )
    if process.stdout is None or process.stdin is None:
        raise RuntimeError("a process without pipes")
    address = json.loads(await process.stdout.readline())["address"]
    hearing = asyncio.create_task(_hear(process.stdout, told))
    try:
        yield address, None
    finally:
        process.stdin.close()
        await process.wait()
        await hearing


async def _hear(lines: asyncio.StreamReader, told: asyncio.Queue[str]) -> None:
    async for line in lines:
        told.put_nowait(line.decode())


async def _measure(ends: Ends, size: int, frames: int, seconds: float, figures: Figures) -> None:
    buffer = memoryview(bytearray(size))
    await _as_fast_as_taken(ends, size, buffer, seconds / 3)  # memory and windows as they will be
    await ends.counted()
    for _ in range(frames):
        await ends.send(size, buffer)
        await asyncio.sleep(_APART_S + size / 1e9)
    delays = sorted((await ends.counted())["delays_us"])
    figures.p50_us.append(statistics.median(delays))
    figures.p99_us.append(delays[int(len(delays) * _P99)])
    await _as_fast_as_taken(ends, size, buffer, seconds)
    counted = await ends.counted()
    figures.gbps.append(counted["bytes"] / counted["seconds"] / 1e9)
    figures.frames_per_s.append(counted["frames"] / counted["seconds"])


async def _as_fast_as_taken(ends: Ends, size: int, buffer: memoryview, seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        await ends.send(size, buffer)
        await asyncio.sleep(0)  # a sender does other things, too


def report(
    figures: dict[Key, Figures], out_dir: Path, missing: Mapping[LinkKind, str] = _ALL_THERE
) -> bool:
    """Print table, lines and summary, and draw; return whether a bar was missed.

    Args:
        figures: of the kinds that were measured.
        out_dir: for lines and picture.
        missing: why others were not.
    """
    told = Lines(out_dir / "links.jsonl")
    sys.stderr.write(f"{'kind':15}{'KiB':>8}{'p50 µs':>10}{'p99 µs':>10}{'GB/s':>8}{'1/s':>10}\n")
    lines = [each.line(kind, size) for (kind, size), each in figures.items()]
    for line in lines:
        latency = f"{line['p50_us']:10.0f}{line['p99_us']:10.0f}"
        rate = f"{line['gigabytes_per_s']:8.2f}{line['frames_per_s']:10,d}"
        sys.stderr.write(f"{line['kind']:15}{line['bytes'] // KIB:8,d}{latency}{rate}\n")
        told.tell(line)
    for kind, reason in missing.items():
        sys.stderr.write(f"{kind.value:15}not available: {reason}\n")
        told.tell({"kind": kind.value, "not_available": reason})
    total = summary(lines)
    told.tell(total)
    draw(lines, out_dir / PICTURE)
    note(f"wrote {out_dir / PICTURE}")
    return not all(total["bars_met"].values())


def summary(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the summary line: what the bars are about, of the kinds that were measured."""
    by_key = {(line["kind"], line["bytes"]): line for line in lines}
    shared, stream = LinkKind.SHARED_MEMORY.value, LinkKind.STREAM.value
    places = {
        "shared_memory_4_mib_gbps": (shared, 4 * MIB, "gigabytes_per_s"),
        "shared_memory_1_kib_us": (shared, KIB, "p50_us"),
        "grpc_4_mib_gbps": (stream, 4 * MIB, "gigabytes_per_s"),
    }
    found = {
        name: by_key[kind, size][figure]
        for name, (kind, size, figure) in places.items()
        if (kind, size) in by_key
    }
    met = {
        name: value <= BARS[name] if name.endswith("_us") else value >= BARS[name]
        for name, value in found.items()
    }
    return {"summary": True, **found, "bars": BARS, "bars_met": met}


def draw(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw latency and bytes per second against size, a curve for each kind.

    Raises:
        OSError: the file cannot be written.
    """
    figure = new_figure(
        10.5, 4.6, "Links by kind", "One way, both ends on two cores; dashed: the bars"
    )
    panels = (
        ("p50_us", "one-way latency, median (µs)", BARS["shared_memory_1_kib_us"]),
        ("gigabytes_per_s", "GB/s", BARS["shared_memory_4_mib_gbps"]),
    )
    for number, (key, label, bar) in enumerate(panels):
        axes = add_axes(figure, 0.85 + 5.2 * number, 0.7, 0.3 + 5.2 * (1 - number), 1.25)
        for place, kind in enumerate(dict.fromkeys(line["kind"] for line in lines)):
            points = [(line["bytes"], line[key]) for line in lines if line["kind"] == kind]
            _draw_kind(axes, points, kind, PALETTE[place])
        axes.axhline(bar, color=FAINT, linewidth=1.3, linestyle=(0, (5, 3)))
        axes.set_ylabel(label)
        if number == 0:
            axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(figure, path)


def _draw_kind(axes: Axes, points: Sequence[tuple[int, float]], kind: str, colour: str) -> None:
    sizes, values = zip(*points, strict=True)
    axes.plot(sizes, values, color=colour, marker="o", markersize=5, linewidth=2, label=kind)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(
        SIZES, [f"{each // KIB}K" if each < MIB else f"{each // MIB}M" for each in SIZES]
    )
    axes.minorticks_off()
    axes.set_xlabel("bytes of a tensor")
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


if __name__ == "__main__":
    typer.run(main)
