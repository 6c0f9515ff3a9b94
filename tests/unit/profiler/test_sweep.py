"""Measuring all blocks, stopping, going on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from execution import program
from execution.cuda_graphs import Run
from penstock.domain.blocks import TensorSpec
from penstock.domain.errors import InvalidGraph, StageLoadFailed
from penstock.domain.execution import Compile, Computed, ExecutionOptions
from penstock.domain.ids import GpuClassName
from penstock.domain.profiles import MeasuredShare
from penstock.formats.codec import digest
from penstock.formats.profiles import read_profile, write_profile
from penstock.shares.base import Obtained
from penstock.shares.held import AnyStream
from profiler import sweep
from profiler.cut import cut_model
from profiler.files import load_partition, load_profile
from profiler.measure import Effort, Tensors, Timing
from profiler.sweep import Sweep, example, measure_profile

EFFORT = Effort(warm_up=0, repeats=5, seconds=0)
AS_EXPORTED = ExecutionOptions()
COMPILED = ExecutionOptions(compile="on")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(8, 8) for _ in range(3)]
    repository = tmp_path_factory.mktemp("models")
    cut_model(torch.nn.Sequential(*layers), {"x": torch.zeros(1, 8)}, "m", "1", repository)
    return repository / "m" / "1"


class Clock:
    """Stands in for the timer: counts the cells, gives each its own latency, may break down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, breaks_at: int = 0) -> None:
        self.cells = 0
        self.breaks_at = breaks_at
        monkeypatch.setattr(sweep, "time_runs", self.time)

    def time(self, _run: Run, inputs: Tensors, _effort: Effort) -> Timing:
        self.cells += 1
        if self.cells == self.breaks_at:
            raise KeyboardInterrupt
        batch = len(inputs[0])
        return Timing(mean_us=10.0 * batch, median_us=0.0, p99_us=11.4 * batch, samples=9)


def a_sweep(
    *batches: int, share: Fraction = Fraction(1), execution: ExecutionOptions = AS_EXPORTED
) -> Sweep:
    return Sweep(
        gpu_class=GpuClassName("here"),
        batches=batches,
        share=share,
        effort=EFFORT,
        execution=execution,
    )


def break_off(model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a run unfinished."""
    Clock(monkeypatch, breaks_at=3)
    with pytest.raises(KeyboardInterrupt):
        measure_profile(model, folder, a_sweep(1, 2))


def written(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


def test_every_block_is_measured_at_every_batch(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, seen = Clock(monkeypatch), []
    profile = measure_profile(model, tmp_path, a_sweep(1, 4), lambda *done: seen.append(done))
    assert clock.cells == len(profile.rows) == profile.blocks * 2
    assert {(row.batch, row.latency_mean_us, row.latency_p99_us) for row in profile.rows} == {
        (1, 10, 11),
        (4, 40, 46),
    }
    assert profile.provenance.kind == "measured"
    assert seen == [(done, clock.cells) for done in range(clock.cells + 1)]
    assert written(tmp_path) == ["here.csv", "here.json"]
    csv_text, head_text = ((tmp_path / "m" / f"here.{end}").read_text() for end in ("csv", "json"))
    assert read_profile(csv_text, head_text, "here.csv") == profile


def test_a_run_that_was_stopped_goes_on(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_off(model, tmp_path, monkeypatch)
    assert written(tmp_path) == ["here.unfinished"]
    clock = Clock(monkeypatch)
    profile = measure_profile(model, tmp_path, a_sweep(1, 2))
    assert clock.cells == len(profile.rows) - 2
    assert written(tmp_path) == ["here.csv", "here.json"]


def test_another_share_adds_to_the_profile(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch)
    whole = measure_profile(model, tmp_path, a_sweep(1, 2))
    both = measure_profile(model, tmp_path, a_sweep(2, share=Fraction(1, 2)))
    assert len(both.rows) == len(whole.rows) + both.blocks
    assert {(row.batch, row.share) for row in both.rows} == {
        (1, Fraction(1)),
        (2, Fraction(1)),
        (2, Fraction(1, 2)),
    }


def test_what_a_share_really_was_is_kept(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch)
    half = replace(a_sweep(1, share=Fraction(1, 2)), held=AnyStream(Obtained("mps", 66, 132)))
    measure_profile(model, tmp_path, half)
    quarter = replace(a_sweep(1, share=Fraction(1, 4)), held=AnyStream(Obtained("mps", 32, 132)))
    measure_profile(model, tmp_path, quarter)
    again = replace(half, held=AnyStream(Obtained("green", 64, 132)))
    profile = measure_profile(model, tmp_path, again)
    assert profile.provenance.shares == (
        MeasuredShare(share=Fraction(1, 2), mechanism="green", sms=64),
        MeasuredShare(share=Fraction(1, 4), mechanism="mps", sms=32),
    )
    csv_path, head_path = (tmp_path / "m" / f"here.{end}" for end in ("csv", "json"))
    assert load_profile(csv_path, head_path) == profile


def test_cells_of_another_mechanism_are_measured_again(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch, breaks_at=3)
    half = replace(a_sweep(1, 2), held=AnyStream(Obtained("mps", 66, 132)))
    with pytest.raises(KeyboardInterrupt):
        measure_profile(model, tmp_path, half)
    clock = Clock(monkeypatch)
    other = replace(half, held=AnyStream(Obtained("green", 64, 132)))
    assert clock.cells == 0
    assert len(measure_profile(model, tmp_path, other).rows) == clock.cells


def test_a_block_is_computed_as_it_will_be_served(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[torch.dtype, bool]] = []

    def timed(run: Run, inputs: Tensors, _effort: Effort) -> Timing:
        (output,) = run(inputs)
        rounded = torch.equal(output, output.to(torch.bfloat16).to(torch.float32))
        seen.append((inputs[0].dtype, rounded))
        return Timing(mean_us=1.0, median_us=1.0, p99_us=1.0, samples=5)

    monkeypatch.setattr(sweep, "time_runs", timed)
    asked = ExecutionOptions(precision="bf16", memory_format="channels_last")
    found = measure_profile(model, tmp_path, a_sweep(1, execution=asked)).provenance.computed
    assert found == Computed(
        executor="cpu", compiled="eager", precision="bf16", memory_format="channels_last"
    )
    assert set(seen) == {(torch.float32, True)}  # 32 bits travel, 16 are computed with


def test_a_run_that_is_computed_in_another_way_starts_anew(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_off(model, tmp_path, monkeypatch)
    clock, halves = Clock(monkeypatch), ExecutionOptions(precision="bf16")
    profile = measure_profile(model, tmp_path, a_sweep(1, 2, execution=halves))
    assert clock.cells == len(profile.rows)


@pytest.mark.parametrize(
    ("execution", "batches"),
    [
        (AS_EXPORTED, {1, 2}),
        (ExecutionOptions(compile="off"), {1, 2}),  # as `auto` does on the CPU
        (ExecutionOptions(precision="bf16"), {2}),
        (ExecutionOptions(memory_format="channels_last"), {2}),
        (COMPILED, {2}),
    ],
)
def test_only_what_was_computed_in_the_same_way_is_joined(
    execution: ExecutionOptions,
    batches: set[int],
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Clock(monkeypatch)
    monkeypatch.setattr(program, "compiled", lambda module: module)
    measure_profile(model, tmp_path, a_sweep(1))
    both = measure_profile(model, tmp_path, a_sweep(2, execution=execution))
    assert {row.batch for row in both.rows} == batches


def test_a_profile_that_does_not_tell_how_is_not_joined(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch)
    measured = measure_profile(model, tmp_path, a_sweep(1))
    old = replace(measured, provenance=replace(measured.provenance, computed=None))
    for end, text in zip(("csv", "json"), write_profile(old), strict=True):
        (tmp_path / "m" / f"here.{end}").write_text(text)
    assert {row.batch for row in measure_profile(model, tmp_path, a_sweep(2)).rows} == {2}


class Compiler:
    """Stands in for torch's: refuses one block, and counts what it is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refused: int | None = None) -> None:
        self.programs = 0
        self.runs = 0
        self._refused = refused
        monkeypatch.setattr(program, "compiled", self.compiled)

    def compiled(self, module: torch.nn.Module) -> Callable[..., object]:
        index, self.programs = self.programs, self.programs + 1

        def run(*inputs: torch.Tensor) -> object:
            self.runs += 1
            if index == self._refused:
                raise RuntimeError("no such operator\nand a long story")
            return module(*inputs)

        return run


def test_compiling_is_no_part_of_the_time(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler, runs_before = Compiler(monkeypatch), []

    def timed(_run: Run, _inputs: Tensors, _effort: Effort) -> Timing:
        runs_before.append(compiler.runs)
        return Timing(mean_us=1.0, median_us=1.0, p99_us=1.0, samples=5)

    monkeypatch.setattr(sweep, "time_runs", timed)
    profile = measure_profile(model, tmp_path, a_sweep(1, 2, execution=COMPILED))
    assert runs_before == list(range(1, 2 * profile.blocks + 1))
    assert profile.provenance.computed is not None
    assert profile.provenance.computed.words == "inductor, fp32, contiguous"


def test_a_block_that_does_not_compile_is_measured_as_it_is_and_named(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Compiler(monkeypatch, refused=1)
    Clock(monkeypatch, breaks_at=6)
    wanted = a_sweep(1, 2, execution=COMPILED)
    with pytest.raises(KeyboardInterrupt):
        measure_profile(model, tmp_path, wanted)
    Clock(monkeypatch)
    Compiler(monkeypatch)  # what is measured already was not compiled, whatever comes after
    profile = measure_profile(model, tmp_path, wanted)
    assert len(profile.rows) == 2 * profile.blocks
    assert profile.provenance.computed is not None
    assert profile.provenance.computed.not_compiled == (1,)
    assert profile.provenance.computed.words == "inductor (not block 1), fp32, contiguous"
    told = "block 1 not compiled: RuntimeError: no such operator"
    assert profile.provenance.note.endswith(told)
    csv_path, head_path = (tmp_path / "m" / f"here.{end}" for end in ("csv", "json"))
    assert load_profile(csv_path, head_path) == profile


def test_a_block_that_does_not_run_is_named(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_run: Run, _inputs: Tensors, _effort: Effort) -> Timing:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(sweep, "time_runs", fail)
    told = "m block 0 does not run at batch 7: OutOfMemoryError: out of memory"
    with pytest.raises(StageLoadFailed, match=told):
        measure_profile(model, tmp_path, a_sweep(7))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compiling", ["auto", "off"])
def test_a_device_is_measured_as_workers_compute_on_it(
    compiling: Compile, model: Path, tmp_path: Path
) -> None:
    asked = ExecutionOptions(precision="fp16", compile=compiling)
    wanted = replace(a_sweep(1, 2, execution=asked), device="cuda")
    profile = measure_profile(model, tmp_path, wanted)
    assert profile.provenance.computed == Computed(
        executor="cuda",
        compiled="inductor" if compiling == "auto" else "eager",
        precision="fp16",
        memory_format="contiguous",
    )
    assert "not captured" not in profile.provenance.note


def test_a_block_that_was_replaced_is_noticed(model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "m" / "1"
    copy.mkdir(parents=True)
    for path in model.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "block_01.pt2").write_bytes((copy / "block_00.pt2").read_bytes())
    with pytest.raises(InvalidGraph, match=r"block_01.pt2: sha256"):
        measure_profile(copy, tmp_path, a_sweep(1))


def test_a_block_that_is_missing_or_no_program_is_named(model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "m" / "1"
    shutil.copytree(model, copy)
    junk = b"not a program"
    (copy / "block_01.pt2").write_bytes(junk)
    text = (copy / "blocks.json").read_text()
    partition, _ = load_partition(copy)
    (copy / "blocks.json").write_text(text.replace(partition.blocks[1].sha256, digest(junk)))
    with pytest.raises(InvalidGraph, match=r"block_01.pt2: expected an exported program, found"):
        measure_profile(copy, tmp_path, a_sweep(1))
    (copy / "block_01.pt2").unlink()
    with pytest.raises(InvalidGraph, match=r"block_01.pt2: expected the program of a block"):
        measure_profile(copy, tmp_path, a_sweep(1))


def test_a_model_that_was_never_cut_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidGraph, match="penstock cut"):
        measure_profile(tmp_path, tmp_path, a_sweep(1))


def test_real_clocks_measure_something(model: Path, tmp_path: Path) -> None:
    profile = measure_profile(model, tmp_path, a_sweep(1))
    assert all(row.latency_p99_us >= 1 and row.samples == 5 for row in profile.rows)


@pytest.mark.parametrize(
    ("datatype", "dtype"), [("FP32", torch.float32), ("INT64", torch.int64), ("BOOL", torch.bool)]
)
def test_examples_are_of_the_described_kind(datatype: str, dtype: torch.dtype) -> None:
    made = example(TensorSpec(name="x", datatype=datatype, shape=(-1, 3)), 4)
    assert (made.dtype, made.shape) == (dtype, (4, 3))
    assert torch.equal(made, example(TensorSpec(name="x", datatype=datatype, shape=(-1, 3)), 4))
    if not dtype.is_floating_point:
        assert made.all()
