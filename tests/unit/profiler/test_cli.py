"""The verbs, called as the command line calls them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from penstock.command import run
from penstock.domain.errors import InvalidSettings, PenstockError
from penstock.formats.profiles import read_profile
from penstock.verbs import verbs_of
from profiler import shares
from profiler.cli import parse_batches, parse_share, parse_shares

FACTORY = """
import torch

def build():
    torch.manual_seed(0)
    layers = [torch.nn.Linear(8, 8) for _ in range(4)]
    return torch.nn.Sequential(*layers), {"x": torch.zeros(1, 8)}, ["scores"]
"""

CLUSTER = """
schema: penstock.cluster/1
gpu_classes:
  - {name: fast, count: 1, network_gbps: 10, datasheet: L4}
  - {name: slow, count: 2, memory_gib: 4, network_gbps: 10, max_share_denominator: 2,
     peak_tflops: 1, memory_gbytes_per_s: 50, launch_us: 7}
models:
  - {name: tiny, source: "their_layers:build", slo_ms: 100}
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "their_layers", raising=False)
    Path("their_layers.py").write_text(FACTORY, encoding="utf-8")
    Path("cluster.yaml").write_text(CLUSTER, encoding="utf-8")


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        run("profiler", verbs_of("profiler"), arguments)
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert call(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_cut_estimate_and_profile_in_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    cut = answer(
        capsys, "cut", "their_layers:build", "--model", "tiny", "--cluster", "cluster.yaml"
    )
    assert cut["blocks"] == 4
    assert cut["relative_error"] == 0.0
    assert Path(cut["directory"], "model.pt2").exists()

    again = answer(
        capsys,
        "cut",
        "models/tiny/1/model.pt2",
        "--model",
        "tiny",
        "--version",
        "2",
        "--blocks",
        "2",
        "--outputs",
        "scores",
    )
    assert (again["blocks"], again["version"]) == (2, "2")

    estimated = answer(capsys, "estimate", "tiny", "--cluster", "cluster.yaml", "--batches", "1,4")
    assert [(each["gpu_class"], each["cells"]) for each in estimated] == [("fast", 8), ("slow", 16)]
    profile = read_profile(
        Path("profiles/tiny/slow.csv").read_text(encoding="utf-8"),
        Path("profiles/tiny/slow.json").read_text(encoding="utf-8"),
        "slow.csv",
    )
    assert profile.blocks_digest == cut["blocks_digest"]

    measured = answer(
        capsys, "profile", "tiny", "--gpu-class", "slow", "--batches", "1", "--repeats", "5"
    )
    assert [(each["kind"], each["cells"]) for each in measured] == [("measured", 4)]
    assert measured[0]["computed"] == "eager, fp32, contiguous"

    # What was measured is not replaced by an estimate unless asked.
    kept = answer(capsys, "estimate", "tiny", "--cluster", "cluster.yaml")
    assert [each["gpu_class"] for each in kept] == ["fast"]
    forced = answer(capsys, "estimate", "tiny", "--cluster", "cluster.yaml", "--overwrite")
    assert [each["gpu_class"] for each in forced] == ["fast", "slow"]

    one = answer(capsys, "estimate", "tiny", "--gpu-class", "T4", "--max-share-denominator", "3")
    assert [(each["gpu_class"], each["cells"]) for each in one] == [("T4", 4 * 8 * 3)]

    assert call("estimate", "tiny", "--gpu-class", "P4") == 0
    assert "P4" in capsys.readouterr().out


def test_each_share_is_measured_as_it_will_be_served(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Sequence[str]] = []

    def measured(_shares: object, _by: str, _on: str, arguments: Sequence[str], _: object) -> str:
        seen.append(arguments)
        raise PenstockError("enough")

    monkeypatch.setattr(shares, "measure_at_shares", measured)
    options = ("--precision", "fp16", "--memory-format", "channels_last", "--compile", "off")
    assert call("profile", "tiny", "--gpu-class", "x", "--shares", "1,1/2", *options) == 1
    assert " ".join(options) in " ".join(seen[0])


@pytest.mark.slow
@pytest.mark.timeout(300)  # the compiler: 15 s on free cores
def test_blocks_are_compiled_if_asked(tmp_path: Path) -> None:
    if which("g++") is None:
        pytest.skip("needs a C++ compiler")
    assert call("cut", "their_layers:build", "--model", "tiny", "--blocks", "1") == 0
    words = "profile tiny --gpu-class x --batches 1,2 --compile on --precision bf16"
    # Another process: inside of torch the compiler warns, which is an error in this one.
    done = subprocess.run(
        [sys.executable, "-m", "profiler", *words.split(), "--memory-format", "channels_last"],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "x: computed as inductor, bf16, channels_last" in done.stdout
    head = json.loads(Path("profiles/tiny/x.json").read_text(encoding="utf-8"))
    assert head["provenance"]["computed"] == {
        "executor": "cpu",
        "compiled": "inductor",
        "precision": "bf16",
        "memory_format": "channels_last",
        "not_compiled": [],
    }
    assert any((tmp_path / "inductor").rglob("*.cpp"))


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("cut", "their_layers:nothing", "--model", "x"), 2, "an importable function"),
        (("cut", "nowhere.pt2", "--model", "x"), 2, "expected a file, found none"),
        (("cut", "their_layers.py", "--model", "x"), 2, "module:function or a .pt2 file"),
        (("estimate", "tiny"), 2, "--cluster or --gpu-class"),
        (("estimate", "nobody", "--gpu-class", "T4"), 2, "penstock cut"),
        (("estimate", "tiny", "--gpu-class", "T4", "--batches", "0-3"), 2, "sizes such as"),
        (("estimate", "tiny", "--gpu-class", "T5"), 2, "unknown GPU class 'T5'; known: A10, A100"),
        (("profile", "tiny", "--gpu-class", "x", "--device", "cuda:77"), 2, "CUDA devices"),
        (("profile", "tiny", "--gpu-class", "x", "--share", "2/3"), 2, "1/m"),
        (("profile", "nobody", "--gpu-class", "x"), 2, "penstock cut"),
        (("profile", "tiny", "--gpu-class", "x", "--shares", "1,2/3"), 2, "1/m"),
        (("profile", "tiny", "--gpu-class", "x", "--shares", "1,1/2"), 2, "a CUDA device, found"),
        (("profile", "tiny", "--gpu-class", "x", "--share-order", "{"), 2, "the order of a share"),
        (
            ("profile", "tiny", "--gpu-class", "x", "--precision", "fp8"),
            2,
            "profile: precision: expected one of fp32, tf32, fp16, bf16, found 'fp8'",
        ),
        (
            ("profile", "tiny", "--gpu-class", "x", "--memory-format", "nhwc"),
            2,
            "memory_format: expected one of contiguous, channels_last, found 'nhwc'",
        ),
        (
            ("profile", "tiny", "--gpu-class", "x", "--compile", "yes", "--shares", "1,1/2"),
            2,
            "compile: expected one of auto, on, off, found 'yes'",
        ),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, told: str
) -> None:
    assert call(*arguments) == code
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "sizes"), [("1-3", (1, 2, 3)), ("8,1,2", (1, 2, 8)), ("4, 1-2,2", (1, 2, 4))]
)
def test_batches_are_ranges_and_lists(text: str, sizes: tuple[int, ...]) -> None:
    assert parse_batches(text) == sizes


@pytest.mark.parametrize("text", ["", "0", "3-1", "1-", "a", "1,,2", "-1"])
def test_other_batches_are_refused(text: str) -> None:
    with pytest.raises(InvalidSettings):
        parse_batches(text)


def test_shares_are_unit_fractions() -> None:
    assert parse_share("1/4") == Fraction(1, 4)
    for text in ("1", "2/4", "1/0", "0.5", "1/x"):
        with pytest.raises(InvalidSettings):
            parse_share(text)


def test_estimating_needs_no_torch() -> None:
    code = "import profiler.cli, profiler.estimate, sys; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode == 0
    )


def test_shares_are_lists() -> None:
    assert parse_shares("1,1/2, 1/4,1/2") == (Fraction(1), Fraction(1, 2), Fraction(1, 4))
