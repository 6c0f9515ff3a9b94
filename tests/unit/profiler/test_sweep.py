"""Measuring all blocks, stopping, going on."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from penstock.domain.blocks import TensorSpec
from penstock.domain.errors import InvalidGraph
from penstock.domain.ids import GpuClassName
from penstock.domain.profiles import MeasuredShare
from penstock.formats.profiles import read_profile
from penstock.shares.base import Obtained
from penstock.shares.held import AnyStream
from profiler import sweep
from profiler.cut import cut_model
from profiler.files import load_profile
from profiler.measure import Effort, Tensors, Timing
from profiler.sweep import Journal, Sweep, example, measure_profile

EFFORT = Effort(warm_up=0, repeats=5, seconds=0)


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
        monkeypatch.setattr(sweep, "time_module", self.time)

    def time(self, _module: torch.nn.Module, inputs: Tensors, _effort: Effort) -> Timing:
        self.cells += 1
        if self.cells == self.breaks_at:
            raise KeyboardInterrupt
        batch = len(inputs[0])
        return Timing(mean_us=10.0 * batch, median_us=0.0, p99_us=11.4 * batch, samples=9)


def a_sweep(*batches: int, share: Fraction = Fraction(1)) -> Sweep:
    return Sweep(gpu_class=GpuClassName("here"), batches=batches, share=share, effort=EFFORT)


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
    Clock(monkeypatch, breaks_at=3)
    with pytest.raises(KeyboardInterrupt):
        measure_profile(model, tmp_path, a_sweep(1, 2))
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


def test_a_block_that_was_replaced_is_noticed(model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "m" / "1"
    copy.mkdir(parents=True)
    for path in model.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "block_01.pt2").write_bytes((copy / "block_00.pt2").read_bytes())
    with pytest.raises(InvalidGraph, match=r"block_01.pt2: sha256"):
        measure_profile(copy, tmp_path, a_sweep(1))


def test_a_model_that_was_never_cut_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidGraph, match="penstock cut"):
        measure_profile(tmp_path, tmp_path, a_sweep(1))


def test_real_clocks_measure_something(model: Path, tmp_path: Path) -> None:
    profile = measure_profile(model, tmp_path, a_sweep(1))
    assert all(row.latency_p99_us >= 1 and row.samples == 5 for row in profile.rows)


def test_a_journal_of_something_else_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "cells"
    Journal(path, "# one").add((0, 1), (5, 6, 7))
    assert Journal(path, "# one").rows == {(0, 1): (5, 6, 7)}
    assert Journal(path, "# two").rows == {}
    assert path.read_text() == "# two\n"


def test_a_line_cut_short_by_a_crash_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "cells"
    path.write_text("# one\n0,1,5,6,7\n0,2,5,")
    assert Journal(path, "# one").rows == {(0, 1): (5, 6, 7)}
    assert path.read_text() == "# one\n0,1,5,6,7\n"


@pytest.mark.parametrize(
    ("datatype", "dtype"), [("FP32", torch.float32), ("INT64", torch.int64), ("BOOL", torch.bool)]
)
def test_examples_are_of_the_described_kind(datatype: str, dtype: torch.dtype) -> None:
    made = example(TensorSpec(name="x", datatype=datatype, shape=(-1, 3)), 4)
    assert (made.dtype, made.shape) == (dtype, (4, 3))
    assert torch.equal(made, example(TensorSpec(name="x", datatype=datatype, shape=(-1, 3)), 4))
    if not dtype.is_floating_point:
        assert made.all()
