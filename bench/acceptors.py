"""What do acceptors cost, and what do they bring? The identity model, with none, one, and more.

Everything shares the cores of this host, the client too. Numbers of acceptors take turns, and all
rounds count together. Prints a table to stderr, one JSON line per case and a summary line to
stdout, and writes them to the output folder. See docs/bench.md.

    python bench/acceptors.py --rounds 2 --seconds 3
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from bench.closed_loop import ClosedLoop, Measured, run_closed_loop, together
from bench.identity import Model, write_identity
from bench.planned import Lines, errors_in_one_line
from bench.processes import family, processor_us
from launcher.local import Addresses, FleetSettings, LocalFleet
from penstock.console import note
from penstock.domain.errors import InvalidSettings
from penstock.formats.plans import read_plan
from protos import inference_pb2 as pb

KIB = 1 << 10
MODELS: tuple[Model, ...] = (("kib1", KIB), ("kib150", 150 * KIB))

_BATCH = 32
_START_S = 60.0
_MOST_ACCEPTORS = 16


@dataclass(slots=True)
class Figures:
    """What came of one case: rounds, and the processor time of each kind of process in them."""

    rounds: list[Measured] = field(default_factory=list)
    used_us: Counter[str] = field(default_factory=Counter)

    def line(self, acceptors: int, model: str) -> dict[str, object]:
        """Return the figures of all rounds."""
        all_rounds = together(self.rounds)
        used_us = {"client": all_rounds.processor_us, **self.used_us}
        return {
            "acceptors": acceptors,
            "model": model,
            "rate_rps": round(all_rounds.rate_rps, 1),
            "p50_ms": round(all_rounds.quantile_ms(0.5), 3),
            "p99_ms": round(all_rounds.quantile_ms(0.99), 3),
            **{
                f"{name}_us_per_request": round(us / all_rounds.answers, 1)
                for name, us in used_us.items()
            },
        }


def main(
    *,
    acceptors: Annotated[str, typer.Option(help="Numbers of acceptors, with commas.")] = "0,1,2",
    callers: Annotated[int, typer.Option(min=1, help="Requests under way at once.")] = 32,
    connections: Annotated[int, typer.Option(min=1, help="That the callers share.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, in turns.")] = 2,
    seconds: Annotated[float, typer.Option(min=0.5, help="Of each case in a round.")] = 3.0,
    out_dir: Annotated[Path, typer.Option(help="Folder for the lines.")] = Path("build/bench"),
) -> None:
    """Measure a frontend with different numbers of acceptors."""
    with errors_in_one_line():
        numbers = numbers_of(acceptors)
    figures = {(number, name): Figures() for number in numbers for name, _ in MODELS}
    with tempfile.TemporaryDirectory() as directory:
        plan = write_identity(Path(directory), MODELS, _BATCH, real=False)
        for _ in range(rounds):
            for number in numbers:
                with a_fleet(plan, number) as (fleet, addresses):
                    for model in MODELS:
                        load = a_load(addresses, model, callers, connections, seconds)
                        measure(figures[number, model[0]], fleet, load)
    report(figures, out_dir)


def numbers_of(text: str) -> list[int]:
    """Read numbers of acceptors.

    Raises:
        InvalidSettings: one is none, or too large.
    """
    words = [each.strip() for each in text.split(",")]
    if not all(each.isdecimal() and int(each) <= _MOST_ACCEPTORS for each in words):
        raise InvalidSettings("--acceptors", "", f"numbers up to {_MOST_ACCEPTORS}", text)
    return [int(each) for each in words]


@contextmanager
def a_fleet(plan: Path, acceptors: int) -> Iterator[tuple[LocalFleet, Addresses]]:
    """Run frontend and worker until the block ends."""
    settings = FleetSettings(
        plan=plan,
        repository=plan.parent / "models",
        executor="emulated-shapes",
        logs=plan.parent / "logs",
        acceptors=acceptors,
    )
    parsed = read_plan(plan.read_text(encoding="utf-8"), str(plan))
    with LocalFleet(settings, parsed) as fleet:
        yield fleet, fleet.start(_START_S)


def a_load(
    addresses: Addresses, model: Model, callers: int, connections: int, seconds: float
) -> ClosedLoop:
    """Return a load of one model."""
    name, row_bytes = model
    request = pb.ModelInferRequest(model_name=name, raw_input_contents=[bytes(row_bytes)])
    request.inputs.add(name="x", datatype="FP32", shape=[1, row_bytes // 4])
    return ClosedLoop(
        address=addresses.inference,
        request=request.SerializeToString(),
        callers=callers,
        stream=False,
        seconds=seconds,
        warm_up_s=0.5,
        connections=connections,
    )


def measure(figures: Figures, fleet: LocalFleet, load: ClosedLoop) -> None:
    """Send a load; note what came of it and what the processes used meanwhile.

    The warm-up is in what they used and not in what came of it: the shares of the rate are kept.
    """
    before = _used_us(fleet)
    measured = asyncio.run(run_closed_loop(load))
    after = _used_us(fleet)
    part = load.seconds / (load.seconds + load.warm_up_s)
    for name in after:
        figures.used_us[name] += round((after[name] - before[name]) * part)
    figures.rounds.append(measured)


def _used_us(fleet: LocalFleet) -> Counter[str]:
    """Return the processor time used so far, by kind of process."""
    used: Counter[str] = Counter()
    for name, process in family(fleet.process_ids).items():
        used[_kind(name)] += processor_us(process)
    return used


def _kind(name: str) -> str:
    if name == "frontend":
        return "dispatcher"
    return "acceptors" if name.startswith("frontend.") else "workers"


def report(figures: dict[tuple[int, str], Figures], out_dir: Path) -> None:
    """Print and write what was measured."""
    told = Lines(out_dir / "acceptors.jsonl")
    found = {key: each.line(*key) for key, each in figures.items()}
    for line in found.values():
        note("  ".join(f"{name}={value}" for name, value in line.items()))
        told.tell(line)
    numbers = sorted({number for number, _ in figures})
    summary = {
        f"{name}_rate_{number}_over_{numbers[0]}": round(
            float(str(found[number, name]["rate_rps"]))
            / float(str(found[numbers[0], name]["rate_rps"])),
            3,
        )
        for number in numbers[1:]
        for name, _ in MODELS
    }
    told.tell({"summary": True, **summary})


if __name__ == "__main__":
    typer.run(main)
