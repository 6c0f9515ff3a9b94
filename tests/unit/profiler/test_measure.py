"""Timing a module and naming the device."""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace

import pytest
import torch

from execution.cuda_graphs import Built, Run
from penstock.domain.errors import InvalidSettings
from profiler import measure
from profiler.measure import Effort, Tensors, check_device, cpu_name, measured_provenance, time_runs
from tests.support.played_cuda import PlayedEvent


class Counted:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, inputs: Tensors) -> Tensors:
        self.calls += 1
        assert torch.is_inference_mode_enabled()
        return [inputs[0] + 1]


def test_warm_up_calls_are_not_counted() -> None:
    run = Counted()
    timing = time_runs(run, [torch.zeros(3)], Effort(warm_up=4, repeats=20, seconds=60))
    assert timing.samples == 20
    assert run.calls == 24
    assert 0 < timing.median_us <= timing.p99_us
    assert timing.mean_us <= timing.p99_us


def test_five_samples_are_taken_however_short_the_time() -> None:
    timing = time_runs(Counted(), [torch.zeros(3)], Effort(warm_up=0, repeats=100, seconds=0))
    assert timing.samples == 5


def test_statistics_are_those_of_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    # The host's clock is read before and after each call: calls take 1, 2, 3, … µs.
    readings = (1000 * number * (number + 1) // 2 for number in count())
    ticks = (reading for number in readings for reading in (0, number))
    clock = SimpleNamespace(perf_counter_ns=lambda: next(ticks), monotonic=lambda: 0.0)
    monkeypatch.setattr(measure, "time", clock)
    timing = time_runs(Counted(), [torch.zeros(1)], Effort(warm_up=0, repeats=5, seconds=1))
    assert (timing.mean_us, timing.median_us, timing.p99_us) == (4.0, 3.0, 10.0)


def test_provenance_names_the_processor_and_the_threads() -> None:
    found = measured_provenance("cpu", "quiet machine")
    assert found.kind == "measured"
    assert found.device == cpu_name()
    assert found.device
    assert found.torch == torch.__version__
    assert found.note == f"quiet machine; threads: {torch.get_num_threads()}"


@pytest.mark.parametrize("device", ["cuda:99", "cuda:x", "tpu", "cpu:1", ""])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(InvalidSettings, match="device"):
        check_device(device)


def test_the_processor_is_always_there() -> None:
    check_device("cpu")


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Play a device on which every run takes 250 µs; return inputs that lie on it."""
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: PlayedEvent())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: "present")
    monkeypatch.setattr(torch.cuda, "default_stream", lambda _: "default")
    return [SimpleNamespace(is_cuda=True, device="cuda:0")]  # type: ignore[list-item]


def test_on_a_device_a_captured_graph_is_timed(
    played: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    streams, calls = [], []

    def captured(run: Run, inputs: Tensors, stream: object, _pool: object) -> Built:
        streams.append(stream)
        run(inputs)
        return Built(inputs, lambda: [])

    monkeypatch.setattr(measure, "captured", captured)
    effort = Effort(warm_up=2, repeats=9, seconds=60)
    timing = time_runs(lambda inputs: calls.append(1) or [], played, effort)  # type: ignore[func-returns-value]
    assert (timing.mean_us, timing.samples, timing.remark) == (250.0, 9, "")
    assert (streams, len(calls)) == (["present"], 3)  # replays run nothing of the host's


def test_what_cannot_be_captured_is_timed_as_it_is_launched(
    played: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Built:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(measure, "captured", refuse)
    calls: list[int] = []
    effort = Effort(warm_up=0, repeats=9, seconds=60)
    timing = time_runs(lambda inputs: calls.append(1) or [], played, effort)  # type: ignore[func-returns-value]
    assert timing.remark.startswith("not captured: RuntimeError: operation not permitted")
    assert (timing.mean_us, len(calls)) == (250.0, 9)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_is_timed_by_events_on_a_captured_graph() -> None:
    module = torch.nn.Linear(1024, 1024).cuda().eval()
    small, large = (torch.zeros(rows, 1024, device="cuda") for rows in (1, 65536))
    effort = Effort(warm_up=3, repeats=20, seconds=5)

    def run(inputs: Tensors) -> Tensors:
        return [module(*inputs)]

    short, long = time_runs(run, [small], effort), time_runs(run, [large], effort)
    assert 0 < short.median_us < long.median_us
    assert (short.remark, long.remark) == ("", "")
    found = measured_provenance("cuda")
    assert found.device == torch.cuda.get_device_name("cuda")
    assert "CUDA" in found.note
