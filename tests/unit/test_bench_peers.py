from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from bench import peers
from bench.closed_loop import ClosedLoop, run_calls
from bench.processes import family
from bench.servers import environments
from bench.servers.definition import PINS, Launch, NotAvailable, Server, Site
from bench.servers.environments import environment
from bench.servers.measuring import measure
from bench.servers.outcomes import Effort, Outcome, Round
from bench.servers.programs.models import CNN, IDENTITY, SHAPES, load, rows_of, sample
from bench.servers.report import line, summary, table
from bench.servers.running import RunningServer, adopt_orphans, free_ports
from bench.servers.table import SERVERS
from bench.servers.triton import _config
from bench.servers.wires import HttpWire, OipWire
from client.infer import RequestFailed
from client.messages import decode_answer
from penstock.pictures.bars import Panel, draw_bars
from protos import inference_pb2 as pb

ROOT = Path(__file__).parents[2]
WIRE = HttpWire("/", packed=False)
EFFORT = Effort(seconds=0.2, rounds=1, warm_up_s=0.05)

# An HTTP server that answers what it was asked, and has a child that nobody would stop for it.
ECHO = """
import asyncio, subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)

async def serve(reader, writer):
    while head := await reader.readuntil(b"\\r\\n\\r\\n"):
        size = int(head.lower().partition(b"content-length:")[2].split()[0])
        body = await reader.readexactly(size)
        writer.write(b"HTTP/1.1 {status} x\\r\\nContent-Length: %d\\r\\n\\r\\n%b" % (size, body))

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()

asyncio.run(main())
"""


def a_server(name: str, program: str, **changes: Any) -> Server:
    def plan(site: Site) -> Launch:
        return Launch(command=(str(site.python), "-c", program, str(site.ports[0])))

    fields: dict[str, Any] = {"version": "1", "wire": WIRE, "setting": "1 process", "plan": plan}
    return Server(name=name, **{**fields, **changes})


def an_echo(status: int = 200) -> str:
    return ECHO.replace("{status}", str(status))


def a_round(rate_rps: float, p50_ms: float = 1.0) -> Round:
    return Round(
        rate_rps=rate_rps,
        p50_ms=p50_ms,
        p99_ms=2.0,
        client_cores=0.5,
        server_cores=1.0,
        other_cores=0.0,
    )


def an_outcome(name: str, unary: float, alone_ms: float, stream: float | None = None) -> Outcome:
    rounds = {
        "unary_c1": [a_round(1.0, each * alone_ms) for each in (1.0, 1.1, 0.1)],
        "unary_c32": [a_round(each * unary) for each in (1.0, 9.0, 0.5)],
    }
    if stream is not None:
        rounds["stream_c32"] = [a_round(stream)]
    return Outcome(server=SERVERS[name], model=IDENTITY, rounds=rounds, idle_cores=0.0)


@pytest.fixture
def adopting() -> Iterator[None]:
    adopt_orphans()
    before = set(family({"test": os.getpid()}).values())
    yield
    assert set(family({"test": os.getpid()}).values()) <= before


def measured(*servers: Server, logs: Path) -> list[Outcome]:
    pythons = {each.name: Path(sys.executable) for each in servers}
    return asyncio.run(measure(IDENTITY, servers, pythons, EFFORT, logs, lambda _: None))


# ------------------------------------------------------------------------------------ reporting


def test_a_summary_has_medians_ratios_and_bars() -> None:
    told = summary(
        [
            an_outcome("penstock", 3000.0, 0.6, stream=9000.0),
            an_outcome("mlserver", 1000.0, 0.5),
            an_outcome("triton", 8000.0, 0.7, stream=8000.0),
        ]
    )
    assert told["servers"]["penstock"]["unary_c32_rps"] == 3000.0
    assert told["servers"]["penstock"]["unary_c1_p50_ms"] == 0.6
    assert told["servers"]["mlserver"]["stream_c32_rps"] is None
    assert told["unary_c32_over_mlserver"] == 3.0
    assert told["unary_c1_p50_over_mlserver"] == 1.2
    assert told["unary_c32_over_triton_python"] == 0.375
    assert told["stream_over_unary"] == 3.0
    assert told["within_bars"] == {
        "unary_c32_over_mlserver": True,
        "unary_c1_p50_over_mlserver": True,
        "unary_c32_over_triton_python": False,
        "stream_over_unary": True,
    }
    json.dumps(told, allow_nan=False)


def test_a_server_that_cannot_be_had_has_its_reason_and_no_figures() -> None:
    absent = Outcome(server=SERVERS["triton"], model=IDENTITY)
    absent.fail("no binary")
    outcomes = [an_outcome("penstock", 3000.0, 0.6), absent]
    told = summary(outcomes)
    assert told["servers"]["triton"]["unary_c32_rps"] is None
    assert told["servers"]["triton"]["why_not"] == "not available: no binary"
    assert told["unary_c32_over_triton_python"] is None
    assert told["within_bars"]["unary_c32_over_triton_python"] is None
    assert "not available: no binary" in table(outcomes)
    assert line(absent)["loads"] == {}


def test_figures_of_other_models_stand_apart() -> None:
    cnn = an_outcome("mlserver", 500.0, 2.0)
    cnn.model = CNN
    told = summary([an_outcome("mlserver", 1000.0, 1.0), cnn])["servers"]["mlserver"]
    assert (told["unary_c32_rps"], told[CNN]["unary_c32_rps"]) == (1000.0, 500.0)


def test_bars_are_drawn_also_of_what_is_missing(tmp_path: Path) -> None:
    panels = [Panel("a", {"one": 12345.6, "two": None}), Panel("b", {"one": None, "two": None})]
    draw_bars(panels, tmp_path / "bars.svg", title="Some")
    drawn = (tmp_path / "bars.svg").read_text()
    assert "two" in drawn
    assert "12,346" in drawn


# ----------------------------------------------------------------------------- arguments, pins


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--servers", "penstock,tritn"), "tritn"),
        (("--servers", ""), "unknown server"),
        (("--models", "resnet"), "resnet"),
        (("--seconds", "nan"), "0.1"),
        (("--rounds", "0"), "1"),
    ],
)
def test_bad_arguments_are_usage_errors(arguments: tuple[str, ...], said: str) -> None:
    app = typer.Typer()
    app.command()(peers.main)
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize("name", [each.name for each in SERVERS.values() if each.pinned])
def test_each_environment_is_pinned_exactly(name: str) -> None:
    pins = dict(each.split("==") for each in (PINS / f"{name}.txt").read_text().splitlines())
    assert pins["torch"] == "2.13.0"  # looser, it would bring gigabytes for GPUs
    assert not {"torchvision", "timm"} & set(pins)
    assert not [each for each in pins if each.startswith("nvidia-cu")]
    versions = SERVERS[name].version.replace(")", "").split()
    assert pins[{"ray-serve": "ray", "triton": "nvidia-pytriton"}.get(name, name)] == versions[-1]


def test_an_environment_is_made_once_and_again_when_its_pins_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def run(command: list[str]) -> None:
        made.append(command[2])
        (tmp_path / "environment" / "bin").mkdir(parents=True, exist_ok=True)
        (tmp_path / "environment" / "bin" / "python").touch()

    monkeypatch.setattr(environments, "_run", run)
    pins, folder = tmp_path / "pins.txt", tmp_path / "environment"
    pins.write_text("a==1\n")
    for _ in range(2):
        assert environment(folder, pins) == folder / "bin" / "python"
    assert made == ["venv", "pip"]
    pins.write_text("a==2\n")
    (folder / "old").touch()
    environment(folder, pins)
    assert (made, (folder / "old").exists()) == (["venv", "pip"] * 2, False)
    (folder / environments._MARKER).unlink()  # as when installing was interrupted
    environment(folder, pins)
    assert made == ["venv", "pip"] * 3


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import sys; sys.exit('noise\\nERROR: no such package\\nmore noise')", "no such package"),
        ("import sys; sys.exit(3)", "it said nothing"),
    ],
)
def test_what_cannot_be_installed_is_not_available(program: str, said: str) -> None:
    with pytest.raises(NotAvailable, match=f"cannot be installed: .*{said}"):
        environments._run([sys.executable, "-c", program])
    with pytest.raises(NotAvailable, match="cannot be installed"):
        environments._run(["/no/such/python"])


# ------------------------------------------------------------------------------ models and wires


def test_the_cnn_is_the_same_every_time() -> None:
    rows = sample(CNN)
    assert np.array_equal(load(CNN)(rows), load(CNN)(rows))
    assert load(CNN)(rows).shape == (1, *SHAPES[CNN].output_row)
    assert np.ptp(load(CNN)(rows)) > 0.01


def test_identity_is_one_kibibyte() -> None:
    assert sample(IDENTITY).nbytes == 1024
    assert np.array_equal(load(IDENTITY)(sample(IDENTITY)), sample(IDENTITY))


def test_oip_carries_rows_there_and_back() -> None:
    wire = OipWire()
    asked = pb.ModelInferRequest.FromString(wire.request(CNN))
    assert (asked.model_name, list(asked.inputs[0].shape)) == (CNN, [1, 1, 8, 8])
    answer = pb.ModelInferResponse(raw_output_contents=[bytes(40)])
    answer.outputs.add(name="scores", datatype="FP32", shape=(1, 10))
    encoded = answer.SerializeToString()
    assert decode_answer(encoded).outputs
    assert np.array_equal(wire.answer(CNN, encoded), np.zeros((1, 10), np.float32))


@pytest.mark.parametrize("packed", [True, False])
def test_http_carries_rows_there_and_back(packed: bool) -> None:
    wire = HttpWire("/predict", packed=packed)
    head, _, body = wire.request(IDENTITY).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /predict HTTP/1.1\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert np.array_equal(wire.answer(IDENTITY, body), sample(IDENTITY))


def test_a_triton_configuration_says_names_and_sizes() -> None:
    config = _config(CNN)
    assert 'input [{ name: "images" data_type: TYPE_FP32 dims: [1, 8, 8] }]' in config
    assert "dims: [10]" in config


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """Serve one answer to whatever is asked, then close."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nno length",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        b"HTTP/1.1 503 busy\r\nContent-Length: 2\r\n\r\nno",
        b"x" * 200_000,
    ],
)
async def test_a_bad_http_answer_is_a_failed_request(answer: bytes) -> None:
    async with answering(answer) as address, WIRE.client(address, 1) as client:
        await client.wait_connected(1_000_000)
        with pytest.raises(RequestFailed):
            await client.infer_encoded(WIRE.request(IDENTITY), deadline_us=1_000_000, turn=0)


async def test_nobody_there_is_a_failed_request() -> None:
    (port,) = free_ports(1)
    async with WIRE.client(f"127.0.0.1:{port}", 1) as client:
        with pytest.raises(RequestFailed, match="UNAVAILABLE"):
            await client.wait_connected(1_000_000)


# -------------------------------------------------------------------------------- real processes


@pytest.mark.usefixtures("adopting")
def test_servers_are_measured_and_leave_no_process(tmp_path: Path) -> None:
    good = a_server("good", an_echo())
    left = 'subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])'
    absent = a_server("absent", f"import subprocess, sys; {left}; sys.exit('it wants a GPU')")
    wrong = a_server("wrong", an_echo().replace("(size, body)", "(size, body[::-1])"))
    outcomes = measured(good, absent, wrong, logs=tmp_path)
    assert [each.why_not for each in outcomes[1:]] == [
        "ended with exit code 1: it wants a GPU",
        "answers identity wrongly",
    ]
    assert outcomes[0].why_not is None
    assert {name: len(rounds) for name, rounds in outcomes[0].rounds.items()} == {
        "unary_c1": 1,
        "unary_c32": 1,
    }
    assert outcomes[0].rounds["unary_c32"][0].rate_rps > 10


@pytest.mark.usefixtures("adopting")
def test_a_paused_server_uses_no_processor_and_goes_on_when_resumed(tmp_path: Path) -> None:
    busy = an_echo().replace("import time; time.sleep(600)", "while True: pass")
    (outcome,) = measured(a_server("busy", busy), logs=tmp_path)
    assert outcome.idle_cores is not None
    assert outcome.idle_cores > 0.1
    assert outcome.why_not is None


@pytest.mark.usefixtures("adopting")
async def test_a_server_that_refuses_to_stop_is_killed(tmp_path: Path) -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + an_echo()
    first, second, third = free_ports(3)
    site = Site(
        folder=tmp_path,
        python=Path(sys.executable),
        model=IDENTITY,
        ports=(first, second, third),
    )
    server = a_server("stubborn", stubborn)
    running = RunningServer(server, site, sample(IDENTITY), tmp_path / "log", stop_s=0.3)
    with running:
        await running.wait_ready()
        load = ClosedLoop(
            address=running.address,
            request=running.request,
            callers=2,
            stream=False,
            seconds=0.1,
            warm_up_s=0.0,
        )
        async with WIRE.client(running.address, 2) as client:
            await client.wait_connected(1_000_000)
            assert (await run_calls(load, client)).answers > 0


def test_an_interrupt_stops_all_and_leaves_no_process(tmp_path: Path) -> None:
    program = f"""
import sys
from bench import peers
from tests.unit.test_bench_peers import a_server, an_echo
peers.SERVERS.clear()
peers.SERVERS["echo"] = a_server("echo", an_echo(), pinned=False)
peers.main(servers="echo", models="identity", seconds=60.0, warm_up=0.0, rounds=1,
           out_dir=__import__("pathlib").Path({str(tmp_path)!r}),
           environments=__import__("pathlib").Path("."))
"""
    adopt_orphans()
    bench = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        assert bench.stderr is not None
        while "round 1" not in bench.stderr.readline():
            assert bench.poll() is None
        time.sleep(0.3)
        started = set(family({"bench": bench.pid}).values())
        assert len(started) >= 3
        bench.send_signal(signal.SIGINT)
        assert bench.wait(20) == 130
        assert "Traceback" not in bench.stderr.read()
        assert not [each for each in started if Path(f"/proc/{each}").exists()]
    finally:
        with suppress(ProcessLookupError):
            bench.kill()
        bench.communicate()


def test_rows_come_back_from_their_bytes() -> None:
    assert np.array_equal(rows_of(CNN, sample(CNN).tobytes()), sample(CNN))
