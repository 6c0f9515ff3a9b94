"""How much of a GPU's bare speed is left when a stage is executed, served, and spread over shares?

ResNet-50 in half precision, built from its configuration with weights that mean nothing. Three
parts: `executor` sends batches through the CUDA executor as a worker does, copies included, beside
a bare loop that replays the same compiled model as one CUDA graph; `served` asks a frontend and a
worker for whole batches; `shares` serves it as one to four stages, and as two copies, on equal
shares of this GPU, at 95 % of what its plan says, and tells by which kind of link its stages hand
tensors over: on the device it is CUDA IPC. Prints a table to stderr, one JSON line per
measurement and a summary line to stdout. Needs a CUDA device: without one it says so and exits
with 3.

    python bench/gpu.py --batches 8,32 --seconds 3
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.closed_loop import ClosedLoop, run_closed_loop
from bench.gpu_plans import Layout, plan_layout
from bench.planned import Lines, errors_in_one_line
from client.inputs import Inputs, random_inputs
from client.load import LoadSettings, Target, run_load
from client.status import Json, fetch_status
from launcher.local import Addresses, FleetSettings, LocalFleet
from penstock.arrivals import Poisson
from penstock.console import note, show_error
from penstock.domain.execution import ExecutionOptions
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.outcomes import summarise
from penstock.domain.plan import Plan
from penstock.domain.profiles import LatencyProfile
from penstock.domain.tensors import Tensor
from penstock.domain.units import micros_from_seconds
from penstock.formats.layout import model_directory, profile_paths
from penstock.formats.plans import write_plan
from penstock.options import finite, profile_arguments
from penstock.rpc.links import FRONTEND
from profiler.cli import parse_batches
from simulator.simulate import planned_load

if TYPE_CHECKING:
    import torch

    from worker.computing import Started

MODEL, VERSION, GPU_CLASS = ModelName("resnet50"), "1", GpuClassName("gpu")
# As exported (half precision) but in the order GPUs like; compiling reorders sums of halves.
COMPILED = ExecutionOptions(memory_format="channels_last", max_error=0.02)
LAYOUTS = (Layout(), Layout(stages=2), Layout(stages=3), Layout(stages=4), Layout(copies=2))
SIDE = 224
OFFERED, SEED = 0.95, 7
BAR_EXECUTOR, BAR_SERVED, BAR_ATTAINMENT = 0.97, 0.90, 0.99
PARTS = ("executor", "served", "shares")
NO_DEVICE = 3
_AHEAD = 3  # batches under way at once, as in a worker
_START_S = 600.0  # compiling takes its time when nothing is cached
_CALLERS = 6
_PROFILED_S = "0.3"


def main(
    batches: Annotated[str, typer.Option(metavar="LIST", help="Batch sizes.")] = "8,32",
    seconds: Annotated[
        float, typer.Option(min=0.5, callback=finite, help="Of each measurement.")
    ] = 3.0,
    parts: Annotated[str, typer.Option(metavar="LIST", help="Which parts.")] = ",".join(PARTS),
    shares_batch: Annotated[int, typer.Option(min=1, help="Batch size of part `shares`.")] = 8,
    work: Annotated[Path, typer.Option(help="Folder for models, profiles and logs.")] = Path(
        "build/bench-gpu"
    ),
    out: Annotated[Path | None, typer.Option(help="Also write the lines to this file.")] = None,
) -> None:
    """Measure the CUDA path on this machine's GPU.

    Raises:
        Exit: there is no GPU.
    """
    if not _has_gpu():
        show_error("bench/gpu.py needs a CUDA device, and this machine shows none: nothing was run")
        raise typer.Exit(NO_DEVICE)
    with errors_in_one_line():
        lines: list[dict[str, Any]] = []
        printer = Lines(out)
        for line in _measure(parse_batches(batches), parts.split(","), seconds, shares_batch, work):
            lines.append(line)
            printer.tell(line)
            note("  ".join(f"{name} {_short(value)}" for name, value in line.items()))
        printer.tell(summary_of(lines))


def summary_of(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the last line: the worst of each part, beside its bar."""

    def worst(part: str, key: str) -> float | None:
        return min((each[key] for each in lines if each["part"] == part), default=None)

    return {
        "summary": True,
        "executor_over_bare": worst("executor", "over_bare"),
        "served_over_bare": worst("served", "over_bare"),
        "shares_attainment": worst("shares", "attainment"),
        "shares_over_planned": worst("shares", "over_planned"),
        "stage_links": sorted({each["links"] for each in lines if each.get("links")}),
        "bar": {
            "executor_over_bare": BAR_EXECUTOR,
            "served_over_bare": BAR_SERVED,
            "shares_attainment": BAR_ATTAINMENT,
        },
    }


def _measure(
    batches: tuple[int, ...], parts: list[str], seconds: float, shares_batch: int, work: Path
) -> Iterator[dict[str, Any]]:
    import torch

    device = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    repository = work / "models"
    _write_model(repository)
    bare = {batch: bare_rps(batch, seconds) for batch in batches} if _needs_bare(parts) else {}
    torch.cuda.empty_cache()
    for batch, rps in bare.items():
        common = {"batch": batch, "bare_rps": rps, **device}
        if "executor" in parts:
            found = executor_rps(repository, batch, seconds)
            yield {"part": "executor", **common, **found, "over_bare": found["rps"] / rps}
        if "served" in parts:
            found = served_rps(work, batch, seconds, rps)
            yield {"part": "served", **common, **found, "over_bare": found["rps"] / rps}
    if "shares" in parts:
        profile = _profile(work, shares_batch)
        for layout in LAYOUTS:
            plan = plan_layout(profile, layout, shares_batch, _memory_bytes(), COMPILED)
            found = shared_rps(work, plan, layout, seconds)
            yield {"part": "shares", "layout": layout.words, **found, **device}


def _needs_bare(parts: list[str]) -> bool:
    return bool({"executor", "served"} & set(parts))


def bare_rps(batch: int, seconds: float) -> float:
    """Return images per second of one compiled and captured graph that is replayed."""
    import torch

    model = _resnet().cuda().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    compiled: Callable[..., object] = torch.compile(model, dynamic=False)
    images = torch.randn(batch, 3, SIDE, SIDE, device="cuda", dtype=torch.float16)
    images = images.contiguous(memory_format=torch.channels_last)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode():
        for _ in range(3):
            compiled(images)
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            compiled(images)
    return batch * _replays_per_second(graph.replay, torch.cuda.synchronize, seconds)


def _replays_per_second(
    replay: Callable[[], None], wait: Callable[[], None], seconds: float
) -> float:
    """Count replays in rounds, so that the queue stays full but never long."""
    wait()
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for _ in range(50):
            replay()
        wait()
        done += 50
    return done / (time.perf_counter() - began)


def executor_rps(repository: Path, batch: int, seconds: float) -> dict[str, Any]:
    """Return images per second through the executor, from host memory to host memory."""
    from worker.executors import new_executor
    from worker.stages import StageOrder, open_stage

    blocks = len(_partition(repository).blocks)
    order = StageOrder(
        model=MODEL,
        version=VERSION,
        first_block=0,
        end_block=blocks,
        batch=batch,
        latency_us_by_batch=(1,) * batch,
        execution=COMPILED,
    )
    executor = new_executor("cuda")
    began = time.monotonic()
    how = executor.load(open_stage(repository, order))
    load_s = time.monotonic() - began
    try:
        with ThreadPoolExecutor(1) as compute:
            rps = asyncio.run(_pump(executor, compute, _images(repository, batch), batch, seconds))
    finally:
        executor.close()
    return {"rps": rps, "load_s": load_s, "how": how.words}


async def _pump(
    executor: Any,  # noqa: ANN401 - rooms stay lazy here: worker.executors.base.Executor
    compute: ThreadPoolExecutor,
    images: tuple[Tensor, ...],
    batch: int,
    seconds: float,
) -> float:
    from worker.computing import new_computing

    computing = new_computing(executor, compute)
    under_way: deque[Started] = deque()
    copied = computing.copy_in(lambda: images, batch)
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        started = computing.start(lambda: images, batch, copied, queued=True)
        copied = computing.copy_in(lambda: images, batch)
        under_way.append(started)
        await started.accepted
        while len(under_way) >= _AHEAD:
            await under_way.popleft().result
            done += 1
    for each in under_way:
        await each.result
    return batch * (done + len(under_way)) / (time.perf_counter() - began)


def served_rps(work: Path, batch: int, seconds: float, rate_rps: float) -> dict[str, Any]:
    """Return images per second of callers who ask a frontend for whole batches."""
    repository = work / "models"
    profile = _assumed_profile(repository, batch, rate_rps)
    plan = plan_layout(profile, Layout(), batch, _memory_bytes(), COMPILED)
    plan = replace(plan, models=tuple(replace(each, slo_us=30_000_000) for each in plan.models))
    with _fleet(work, plan, f"served-{batch}") as addresses:
        inputs = Inputs(tensors=_images(repository, batch))
        (request,) = inputs.encode(MODEL, batch, 1, None)
        load = ClosedLoop(
            address=addresses.inference,
            request=request.message,
            callers=_CALLERS,
            stream=False,
            seconds=seconds,
            connections=_CALLERS,
        )
        measured = asyncio.run(run_closed_loop(load))
    return {"rps": batch * measured.rate_rps, "p50_ms": measured.quantile_ms(0.5)}


def shared_rps(work: Path, plan: Plan, layout: Layout, seconds: float) -> dict[str, Any]:
    """Return what a plan over shares sustains when it is offered nearly what it promises."""
    model = plan.model(MODEL)
    batch = model.pools[0].batch
    duration_us = micros_from_seconds(seconds)
    arrivals = planned_load(plan, OFFERED / batch, duration_us, Poisson(), SEED)
    inputs = Inputs(tensors=_images(work / "models", batch))
    with _fleet(work, plan, f"{layout.stages}x{layout.copies}") as addresses:
        settings = LoadSettings(
            address=addresses.inference,
            arrivals=tuple(replace(each, samples=batch) for each in arrivals),
            targets={MODEL: Target(inputs=inputs, slo_us=model.slo_us)},
            duration_us=duration_us,
        )
        outcomes = asyncio.run(run_load(settings)).as_outcomes()
        links = stage_links(fetch_status(addresses.metrics)["links"])
    summary = summarise(outcomes, duration_us)
    return {
        "planned_rps": model.throughput_rps,
        "offered_rps": summary.offered_rps,
        "rps": summary.goodput_rps,
        "over_planned": summary.goodput_rps / model.throughput_rps,
        "attainment": summary.attainment,
        "p99_ms": summary.p99_ms,
        "links": links,
    }


def stage_links(links: Json) -> str:
    """Return of which kinds the links between stages are; empty if there are none.

    Args:
        links: of the frontend's status.
    """
    known = links if isinstance(links, list) else []
    between = [each for each in known if FRONTEND not in (each["sender"], each["receiver"])]
    return ", ".join(sorted({each["kind"] for each in between}))


@contextmanager
def _fleet(work: Path, plan: Plan, name: str) -> Iterator[Addresses]:
    path = work / f"plan-{name}.json"
    path.write_text(write_plan(plan), encoding="utf-8")
    settings = FleetSettings(
        plan=path, repository=work / "models", executor="cuda", logs=work / "logs" / name
    )
    with LocalFleet(settings, plan) as fleet:
        yield fleet.start(_START_S)


def _profile(work: Path, batch: int) -> LatencyProfile:
    """Measure the blocks, as they will be served, on every share that a layout needs."""
    from profiler.files import load_profile
    from profiler.shares import measure_at_shares

    shares = sorted({each.share for each in LAYOUTS}, reverse=True)
    arguments = [
        MODEL, "--gpu-class", GPU_CLASS, "--batches", f"1-{batch}", "--seconds", _PROFILED_S,
        "--repository", str(work / "models"), "--profiles", str(work / "profiles"),
        *profile_arguments(COMPILED),
    ]  # fmt: skip
    measure_at_shares(shares, "auto", "cuda", arguments, lambda _done, _in_all: None)
    return load_profile(*profile_paths(work / "profiles", MODEL, GPU_CLASS))


def _assumed_profile(repository: Path, batch: int, rate_rps: float) -> LatencyProfile:
    """Return a profile that says what the bare loop said, spread over the blocks."""
    from fractions import Fraction

    from penstock.domain.profiles import ProfileRow, Provenance
    from profiler.files import load_partition

    partition, digest = load_partition(model_directory(repository, MODEL, VERSION))
    count = len(partition.blocks)
    block_us = max(1, round(batch * 1e6 / rate_rps / count))
    rows = tuple(
        ProfileRow(
            block=block,
            batch=size,
            share=Fraction(1),
            latency_mean_us=block_us,
            latency_p99_us=block_us,
            samples=1,
        )
        for block in range(count)
        for size in range(1, batch + 1)
    )
    return LatencyProfile(
        model=MODEL,
        gpu_class=GPU_CLASS,
        blocks=count,
        rows=rows,
        cut_bytes=partition.cut_bytes,
        weight_bytes=tuple(each.weight_bytes for each in partition.blocks),
        activation_bytes=tuple(each.activation_bytes for each in partition.blocks),
        provenance=Provenance(
            kind="estimated", device="bare loop", driver="", torch="", date="2026-01-01"
        ),
        blocks_digest=digest,
    )


def _write_model(repository: Path) -> None:
    """Cut the model, unless an earlier run did; its answers are not checked here."""
    import torch

    from profiler.capture import capture
    from profiler.cut import cut_captured

    if (model_directory(repository, MODEL, VERSION) / "blocks.json").exists():
        return
    example = {"images": torch.randn(2, 3, SIDE, SIDE, dtype=torch.float16)}
    captured = capture(_resnet(), example, ["scores"], source=MODEL)
    cut_captured(captured, MODEL, VERSION, repository)


def _resnet() -> torch.nn.Module:
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification

    class Scores(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = ResNetForImageClassification(ResNetConfig(num_labels=1000))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = self.net(images).logits
            return scores

    torch.manual_seed(SEED)
    return Scores().half().eval()


def _partition(repository: Path) -> Any:  # noqa: ANN401 - a BlockPartition, imported late
    from profiler.files import load_partition

    return load_partition(model_directory(repository, MODEL, VERSION))[0]


def _images(repository: Path, batch: int) -> tuple[Tensor, ...]:
    tensors = random_inputs(_partition(repository).inputs, SEED)
    return Inputs(tensors=tensors.tensors).take(0, batch)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _memory_bytes() -> int:
    import torch

    return int(torch.cuda.mem_get_info()[1])


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    typer.run(main)
