"""The demo as a newcomer runs it, and README's first example against it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.fleets import descendants, still_alive
from tests.support.processes import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(300)]

REPORT_FIELDS = {
    "planned_rps", "sustained_rps", "attainment", "p50_ms", "p99_ms", "accuracy", "wrong_answers",
    "no_partition_sustained_rps", "emulated", "versions", "date",
}  # fmt: skip
PATIENCE_S = 30.0


def readme_example(address: str, images: Path) -> str:
    """Return README's first Python example, pointed at another address and file."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = text.split("```python\n", 1)[1].split("```", 1)[0]
    assert "localhost:8001" in code
    code = code.replace("localhost:8001", address)
    return code.replace("build/demo/test-images.npz", str(images))


def test_the_demo_reports_what_it_promises_and_leaves_nothing(tmp_path: Path) -> None:
    arguments = ["demo", "--json", "--duration", "4", "--out", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "penstock", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    seen: set[int] = set()
    while process.poll() is None:
        seen |= descendants(process.pid)
        time.sleep(0.2)
    assert process.stdout is not None
    with process.stdout as stdout:
        report = json.loads(stdout.read())
    assert report.keys() >= REPORT_FIELDS
    assert report == json.loads((tmp_path / "report.json").read_text())
    assert report["emulated"] is True
    assert report["wrong_answers"] == 0
    assert report["accuracy"] >= 0.97
    assert report["answers"] > 100
    # A busy machine may fall short of the plan; then the demo must say so.
    assert process.returncode == (1 if report["shortfalls"] else 0)
    for picture in ("pool-map.png", "timeline.png", "latency.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    assert len(seen) > 8
    assert still_alive(seen) == set()


def test_readme_s_example_is_served_and_ctrl_c_ends_it_all(tmp_path: Path) -> None:
    ports = ["--port", "0", "--metrics-port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "penstock", "demo", "--serve", *ports, "--out", str(tmp_path)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    with process.stderr as stderr:
        serving = next(line for line in stderr if line.startswith("Serving model"))
        address = serving.split(" on ", 1)[1].split(",", 1)[0]
        below = descendants(process.pid)
        example = subprocess.run(
            [sys.executable, "-c", readme_example(address, tmp_path / "test-images.npz")],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=True,
        )
        assert example.stdout.strip() in set("0123456789")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
    assert len(below) == 8 + 1  # the frontend, four workers and an instance for each
    assert still_alive(below) == set()
