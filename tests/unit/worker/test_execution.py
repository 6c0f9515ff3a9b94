"""Precision, memory format and compiling, on the processor: what is served, and how far off."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import which

import pytest
import torch

from execution import program
from execution.compiling import use_disk_cache
from execution.conversion import convert
from penstock.domain.errors import InvalidInput, StageLoadFailed
from penstock.domain.execution import Computation, ExecutionOptions
from penstock.rpc.execution import execution_message, execution_options
from protos.control_pb2 import Execution
from tests.unit.worker.models import (
    BATCH,
    a_stage,
    as_input,
    as_tensor,
    images,
    scores_of,
    write_model,
)
from worker.executors import cpu
from worker.executors.accuracy import difference
from worker.executors.cpu import CpuExecutor

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    write_model(path)
    return path


@pytest.fixture(autouse=True)
def precision_afterwards() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True


def served(
    repository: Path, options: ExecutionOptions, rows: int = 3
) -> tuple[Computation, torch.Tensor]:
    executor = CpuExecutor()
    try:
        how = executor.load(a_stage(repository, options))
        (output,) = executor.run(as_input(images(rows)), rows).tensors
    finally:
        executor.close()
    assert (output.name, output.datatype, output.shape) == ("scores", "FP32", (rows, 5))
    return how, as_tensor(output)


@pytest.mark.parametrize("precision", ["tf32", "fp16", "bf16"])
@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_an_option_states_its_error_and_keeps_to_it(
    precision: str, memory_format: str, repository: Path
) -> None:
    options = ExecutionOptions(precision=precision, memory_format=memory_format)  # type: ignore[arg-type]
    how, found = served(repository, options)
    assert (how.compiled, how.launched) == ("eager", "plain")
    assert (how.precision, how.memory_format) == (precision, memory_format)
    error = difference([found], [scores_of(repository, images(3))])
    assert error.largest <= options.error_limit
    if precision != "tf32":
        assert 0 < how.rms_error <= how.max_error * 3
        assert f"{precision}, {memory_format}, error max {how.max_error:.1e}" in how.words


def test_as_exported_is_exact(repository: Path) -> None:
    how, found = served(repository, ExecutionOptions())
    assert (how.max_error, how.rms_error) == (0, 0)
    assert torch.equal(found, scores_of(repository, images(3)))


def test_what_is_too_inexact_is_refused(repository: Path) -> None:
    options = ExecutionOptions(precision="bf16", max_error=1e-6)
    with pytest.raises(
        StageLoadFailed,
        match=r"bf16 differs from the model as exported by .*max_error allows 1e-06",
    ):
        CpuExecutor().load(a_stage(repository, options))


def test_not_a_number_is_infinitely_wrong() -> None:
    one = torch.ones(2)
    assert difference([one * float("nan")], [one]).largest == float("inf")
    assert difference([one], [one]).largest == 0
    assert difference([one * 1.5], [one]).largest == 0.5


def replacing(
    monkeypatch: pytest.MonkeyPatch, behave: Callable[[torch.nn.Module, torch.Tensor], object]
) -> list[int]:
    """Put something in the compiler's place; return the batch sizes it is called with."""
    sizes: list[int] = []

    def compiled(module: torch.nn.Module) -> Callable[[torch.Tensor], object]:
        def program(rows: torch.Tensor) -> object:
            sizes.append(len(rows))
            return behave(module, rows)

        return program

    monkeypatch.setattr(program, "compiled", compiled)
    monkeypatch.setattr(cpu, "COMPILING_QUIET_S", 1e6)
    return sizes


def test_a_compiled_stage_runs_only_sizes_it_was_compiled_for(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = replacing(monkeypatch, lambda module, rows: module(rows))
    how, found = served(repository, ExecutionOptions(compile="on"))
    assert how.compiled == "inductor"
    assert set(sizes) == {BATCH}
    assert difference([found], [scores_of(repository, images(3))]).largest < 1e-5


def test_a_stage_that_does_not_compile_runs_as_it_is_and_says_so(
    repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: torch.nn.Module, __: torch.Tensor) -> object:
        raise RuntimeError("no compiler\nand a long story")

    replacing(monkeypatch, fail)
    how, found = served(repository, ExecutionOptions(compile="on"))
    assert how.compiled == "eager"
    assert how.remark == "not compiled: RuntimeError: no compiler"
    assert how.remark in caplog.text
    assert difference([found], [scores_of(repository, images(3))]).largest < 1e-5


def test_a_compiler_that_computes_something_else_is_refused(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replacing(monkeypatch, lambda module, rows: [each * 1.01 for each in module(rows)])
    with pytest.raises(StageLoadFailed, match="fp32 differs from the model as exported"):
        CpuExecutor().load(a_stage(repository, ExecutionOptions(compile="on")))


def test_weights_that_are_views_or_shared_are_converted_once() -> None:
    whole = torch.arange(6.0)
    first, second = torch.nn.Linear(3, 1), torch.nn.Linear(3, 1)
    first.weight = torch.nn.Parameter(whole[:3].reshape(1, 3))
    second.weight = first.weight
    second.register_buffer("step", torch.tensor(3))
    module = torch.nn.Sequential(first, second)
    convert(module, ExecutionOptions(precision="bf16"))
    assert first.weight is second.weight
    assert first.weight.dtype is first.bias.dtype is torch.bfloat16
    assert first.weight._base is None
    assert first.weight.tolist() == [[0.0, 1.0, 2.0]]
    assert second.step.dtype is torch.int64
    assert whole.dtype is torch.float32


def test_processors_do_not_compile_by_default() -> None:
    assert not ExecutionOptions().compiles(by_default=False)
    assert ExecutionOptions().compiles(by_default=True)
    assert not ExecutionOptions(compile="off").compiles(by_default=True)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"XDG_CACHE_HOME": "/c"}, "/c/penstock/inductor"),
        ({"TORCHINDUCTOR_CACHE_DIR": "/own", "XDG_CACHE_HOME": "/c"}, "/own"),
    ],
)
def test_what_is_compiled_is_kept_in_the_users_cache(
    environment: dict[str, str], expected: str
) -> None:
    assert str(use_disk_cache(environment)) == expected
    assert environment["TORCHINDUCTOR_CACHE_DIR"] == expected


@pytest.mark.slow
@pytest.mark.timeout(300)  # two processes that import torch and compile: 30 s on free cores
def test_a_second_process_finds_what_the_first_one_compiled(
    repository: Path, tmp_path: Path
) -> None:
    if which("g++") is None:
        pytest.skip("needs a C++ compiler")
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from penstock.domain.execution import ExecutionOptions\n"
        "from tests.unit.worker.models import a_stage\n"
        "from worker.executors.cpu import CpuExecutor\n"
        "executor = CpuExecutor()\n"
        "words = {'compile': 'on', 'precision': 'bf16', 'memory_format': 'channels_last'}\n"
        "options = ExecutionOptions(**words)\n"
        "how = executor.load(a_stage(Path(sys.argv[1]), options, batch=1))\n"
        "executor.close()\n"
        "from torch._dynamo.utils import counters\n"
        "print(how.compiled, counters['inductor']['fxgraph_cache_hit'], 0 < how.max_error < 1e-2)\n"
    )

    def run() -> str:
        return subprocess.run(
            [sys.executable, "-c", code, str(repository)],
            cwd=ROOT,
            env={"PATH": "/usr/bin:/bin", "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    assert run() == "inductor 0 True"
    assert any((tmp_path / "penstock" / "inductor").iterdir())
    assert run() == "inductor 1 True"


@pytest.mark.parametrize(
    "options",
    [
        ExecutionOptions(),
        ExecutionOptions(
            precision="bf16",
            memory_format="channels_last",
            compile="off",
            capture=False,
            max_error=0.5,
        ),
    ],
)
def test_options_survive_the_wire(options: ExecutionOptions) -> None:
    message = Execution.FromString(execution_message(options).SerializeToString())
    assert execution_options(message) == options


def test_a_word_of_another_version_is_told() -> None:
    message = execution_message(ExecutionOptions())
    message.precision = "fp4"
    with pytest.raises(InvalidInput, match="precision: expected one of fp32, tf32, fp16, bf16"):
        execution_options(message)
