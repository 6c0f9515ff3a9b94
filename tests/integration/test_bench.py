"""The load generator against a real gRPC server that answers, refuses, delays and stalls."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from client.arrays import tensor_of
from client.infer import InferenceClient, RequestFailed
from client.inputs import Inputs, random_inputs
from client.load import LoadSettings, Target, run_load
from client.messages import Answer, infer_message
from client.outcomes import LoadResult, RequestOutcome
from client.report import report_of
from penstock.arrivals import constant, gamma, poisson
from penstock.command import run
from penstock.domain.arrivals import Arrival
from penstock.domain.ids import ModelName
from penstock.formats.traces import read_trace
from penstock.verbs import VERBS
from protos import inference_pb2 as pb
from protos import inference_pb2_grpc

ROOT = Path(__file__).parents[2]
ECHO = ModelName("echo")
MS = 1_000
SECOND = 1_000_000
ROWS = 100


class EchoServer(inference_pb2_grpc.GRPCInferenceServiceServicer):
    """Doubles its input. The first element of a request says what happens to it.

    Below 0: refused with that status. Otherwise answered after `delay_s`, and, while a stall
    lasts, not before its end.
    """

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.peers: set[str] = set()
        self.asked = 0
        self.timeouts_us: list[int] = []
        self.open = asyncio.Event()
        self.open.set()
        self.first_asked = asyncio.Event()

    async def ModelInfer(
        self,
        request: pb.ModelInferRequest,
        context: grpc.aio.ServicerContext[pb.ModelInferRequest, pb.ModelInferResponse],
    ) -> pb.ModelInferResponse:
        self.asked += 1
        self.first_asked.set()
        self.peers.add(context.peer())
        if "timeout" in request.parameters:
            self.timeouts_us.append(request.parameters["timeout"].int64_param)
        await self.open.wait()
        values = np.frombuffer(request.raw_input_contents[0], "<f4")
        if values[0] < 0:
            code = next(each for each in grpc.StatusCode if each.value[0] == -values[0])
            await context.abort(code, f"refused with {code.name}")
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        return self.answer(request, values)

    def answer(
        self, request: pb.ModelInferRequest, values: np.ndarray[tuple[int], np.dtype[np.float32]]
    ) -> pb.ModelInferResponse:
        reply = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
        reply.outputs.add(name="y", datatype="FP32", shape=request.inputs[0].shape)
        reply.raw_output_contents.append((values * 2).tobytes())
        return reply

    async def ModelStreamInfer(
        self,
        requests: AsyncIterator[pb.ModelInferRequest],
        _context: grpc.aio.ServicerContext[pb.ModelInferRequest, pb.ModelStreamInferResponse],
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        async for request in requests:
            values = np.frombuffer(request.raw_input_contents[0], "<f4")
            if values[0] < 0:
                yield pb.ModelStreamInferResponse(error_message="no")
            else:
                answer = self.answer(request, values)
                yield pb.ModelStreamInferResponse(infer_response=answer)

    async def ModelMetadata(
        self,
        request: pb.ModelMetadataRequest,
        context: grpc.aio.ServicerContext[pb.ModelMetadataRequest, pb.ModelMetadataResponse],
    ) -> pb.ModelMetadataResponse:
        if request.name != ECHO:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.name!r}")
        reply = pb.ModelMetadataResponse(name=ECHO, versions=["1"], platform="test")
        reply.inputs.add(name="x", datatype="FP32", shape=[-1, 2])
        reply.outputs.add(name="y", datatype="FP32", shape=[-1, 2])
        return reply

    async def ServerReady(
        self,
        _request: pb.ServerReadyRequest,
        _context: grpc.aio.ServicerContext[pb.ServerReadyRequest, pb.ServerReadyResponse],
    ) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=True)

    async def stall(self, seconds: float) -> None:
        """Answer nothing for a while, from the first request on."""
        await self.first_asked.wait()
        self.open.clear()
        await asyncio.sleep(seconds)
        self.open.set()


@asynccontextmanager
async def serving(echo: EchoServer) -> AsyncIterator[str]:
    server = grpc.aio.server()
    inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(echo, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def numbered_rows(refusals: dict[int, grpc.StatusCode] | None = None) -> Inputs:
    """Row i holds (i, i), or asks for a refusal."""
    rows = np.repeat(np.arange(ROWS, dtype=np.float32)[:, None], 2, axis=1)
    for row, code in (refusals or {}).items():
        rows[row, 0] = -code.value[0]
    return Inputs(tensors=(tensor_of("x", rows),))


def settings_for(
    address: str,
    instants: tuple[int, ...],
    *,
    inputs: Inputs | None = None,
    samples: int = 1,
    slo_us: int = 200 * MS,
    deadline_us: int = 5 * SECOND,
    timeout_us: int | None = None,
    connections: int = 2,
    in_flight_requests: int = 1_000,
) -> LoadSettings:
    return LoadSettings(
        address=address,
        arrivals=tuple(
            Arrival(arrival_us=instant, model=ECHO, samples=samples) for instant in instants
        ),
        targets={ECHO: Target(inputs=inputs or numbered_rows(), slo_us=slo_us)},
        duration_us=max(instants) + 1,
        connections=connections,
        deadline_us=deadline_us,
        timeout_us=timeout_us,
        in_flight_requests=in_flight_requests,
    )


async def test_counts_by_cause_are_exact() -> None:
    refusals = {
        3: grpc.StatusCode.RESOURCE_EXHAUSTED,
        5: grpc.StatusCode.RESOURCE_EXHAUSTED,
        7: grpc.StatusCode.UNAVAILABLE,
        11: grpc.StatusCode.DEADLINE_EXCEEDED,
    }
    async with serving(EchoServer()) as address:
        instants = constant(400.0, SECOND // 2)
        result = await run_load(settings_for(address, instants, inputs=numbered_rows(refusals)))
    report = report_of(result)
    assert len(result.outcomes) == report.sent == 200  # every row is sent twice
    assert report.summary.refusals == {
        "RESOURCE_EXHAUSTED": 4,
        "UNAVAILABLE": 2,
        "DEADLINE_EXCEEDED": 2,
    }
    assert report.summary.answered == 192
    assert result.outcomes[7].details == "refused with UNAVAILABLE"
    assert [each.intended_us for each in result.outcomes] == list(instants)
    assert all(each.sent_us >= each.intended_us for each in result.outcomes)


async def test_answers_come_back_with_the_rows_that_were_asked() -> None:
    answers: list[tuple[RequestOutcome, Answer]] = []
    async with serving(EchoServer()) as address:
        settings = settings_for(address, constant(500.0, SECOND // 10), samples=3)
        await run_load(settings, on_answer=lambda *each: answers.append(each))
    assert len(answers) == 50
    for outcome, answer in answers:
        rows = (outcome.first_row + np.arange(3)) % ROWS
        np.testing.assert_array_equal(answer.array("y"), np.repeat(2.0 * rows[:, None], 2, axis=1))


async def test_waits_during_a_stall_are_counted_in_full() -> None:
    stall_us = 300 * MS
    echo = EchoServer()
    async with serving(echo) as address, asyncio.TaskGroup() as group:
        group.create_task(echo.stall(stall_us / SECOND))
        result = await run_load(settings_for(address, constant(100.0, SECOND // 2)))
    end_us = max(each.ended_us for each in result.outcomes if each.intended_us < stall_us)
    assert end_us >= stall_us
    waited = [each for each in result.outcomes if 20 * MS < each.intended_us < 280 * MS]
    assert len(waited) == 25
    for each in waited:
        assert each.latency_us >= stall_us - each.intended_us
    first_answer_us = min(each.ended_us for each in waited)
    before = sum(each.sent_us < first_answer_us for each in waited)
    assert before > 1  # the stall held no sends back: a closed loop would send one
    late = report_of(result)
    assert late.summary.attainment < 1.0
    assert late.summary.p99_ms is not None
    assert late.summary.p99_ms > 250


async def test_a_deadline_ends_each_request() -> None:
    echo = EchoServer()
    echo.open.clear()
    async with serving(echo) as address:
        instants = constant(100.0, SECOND // 10)
        result = await run_load(settings_for(address, instants, deadline_us=150 * MS))
        echo.open.set()
    assert {each.status for each in result.outcomes} == {"DEADLINE_EXCEEDED"}
    assert all(140 * MS < each.latency_us < 2 * SECOND for each in result.outcomes)


async def test_what_is_under_way_is_bounded() -> None:
    echo = EchoServer()
    echo.open.clear()
    async with serving(echo) as address:
        result = await run_load(
            settings_for(
                address,
                constant(200.0, SECOND // 10),
                deadline_us=SECOND,
                in_flight_requests=5,
            )
        )
        echo.open.set()
    assert report_of(result).summary.refusals == {"DEADLINE_EXCEEDED": 5, "NOT_SENT": 15}
    assert echo.asked == 5


async def test_each_connection_is_one_of_its_own() -> None:
    echo = EchoServer()
    async with serving(echo) as address:
        instants = constant(200.0, SECOND // 10)
        await run_load(settings_for(address, instants, connections=4, timeout_us=70 * MS))
    assert len(echo.peers) == 4
    assert echo.timeouts_us == [70 * MS] * 20


async def test_a_poisson_load_is_offered_at_its_rate() -> None:
    instants = poisson(300.0, SECOND, random.Random(1))
    seen: list[tuple[int, int]] = []
    async with serving(EchoServer()) as address:
        result = await run_load(
            settings_for(address, instants), on_progress=lambda *each: seen.append(each)
        )
    assert report_of(result).summary.answered == len(instants)
    assert seen == sorted(seen)
    assert seen[-1] == (len(instants), len(instants))


async def test_no_server_is_told_before_the_load_starts() -> None:
    settings = settings_for("127.0.0.1:1", (0,))
    unreachable = LoadSettings(
        address=settings.address,
        arrivals=settings.arrivals,
        targets=settings.targets,
        duration_us=settings.duration_us,
        connect_timeout_us=200 * MS,
    )
    with pytest.raises(RequestFailed, match=r"no connection to 127\.0\.0\.1:1 within"):
        await run_load(unreachable)


async def test_a_server_that_goes_away_leaves_an_outcome_for_each_request() -> None:
    echo = EchoServer(delay_s=0.05)
    async with serving(echo) as address:
        load = asyncio.create_task(run_load(settings_for(address, constant(100.0, SECOND // 2))))
        await echo.first_asked.wait()
    result: LoadResult = await load
    assert len(result.outcomes) == 50
    assert {each.status for each in result.outcomes} <= {"OK", "UNAVAILABLE", "CANCELLED"}
    assert result.outcomes[-1].status == "UNAVAILABLE"


async def test_the_client_asks_one_by_one() -> None:
    async with serving(EchoServer()) as address, InferenceClient(address) as client:
        x = np.array([[1.5, 2.0]], np.float32)
        answer = await client.infer(ECHO, {"x": x}, request_id="a", deadline_us=SECOND)
        np.testing.assert_array_equal(answer.array(), x * 2)
        assert (answer.id, answer.emulated) == ("a", False)
        facts = await client.facts(ECHO)
        assert [spec.shape for spec in facts.inputs] == [(-1, 2)]
        assert (facts.slo_us, facts.max_batch) == (None, 0)  # it has no configuration
        assert random_inputs(facts.inputs, seed=0).rows > 1
        assert await client.ready()
        with pytest.raises(RequestFailed, match="NOT_FOUND: no model 'nix'"):
            await client.facts("nix")
        with pytest.raises(RequestFailed, match="UNIMPLEMENTED"):
            await client.health()


async def test_the_client_asks_over_a_stream() -> None:
    async def messages() -> AsyncIterator[pb.ModelInferRequest]:
        for value in (1.0, -5.0, 3.0):
            yield infer_message(ECHO, {"x": np.full((1, 2), value, np.float32)})

    async with serving(EchoServer()) as address, InferenceClient(address) as client:
        replies = [each async for each in client.stream(messages())]
    first, refused, last = replies
    assert isinstance(first, Answer)
    assert isinstance(refused, RequestFailed)
    assert isinstance(last, Answer)
    assert (first.array()[0, 0], refused.details, last.array()[0, 0]) == (2.0, "no", 6.0)


async def penstock(*arguments: str) -> tuple[int, str, str]:
    """Run the command as a user would; return its exit code and what it said."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "penstock", *arguments),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return child.returncode or 0, out.decode(), err.decode()


async def test_the_command_measures_and_writes_what_it_is_asked_for(tmp_path: Path) -> None:
    picture, table, trace = (tmp_path / name for name in ("p.png", "o.csv", "t.csv"))
    rows = tmp_path / "rows.npz"
    np.savez(rows, x=np.ones((4, 2), np.float32))
    async with serving(EchoServer()) as address:
        load = ("--model", ECHO, "--rate", "100", "--arrivals", "constant", "--duration", "0.5")
        wanted = ("--plot", str(picture), "--out", str(table), "--save-trace", str(trace))
        given = ("--slo-ms", "5000", "--inputs", str(rows), "--json")
        code, out, _ = await penstock("bench", "--address", address, *load, *wanted, *given)
        assert code == 0
        report = json.loads(out)
        assert (report["requests"], report["answered"], report["attainment"]) == (50, 50, 1.0)
        assert (report["models"], report["emulated"]) == ([ECHO], False)
        again = ("--trace", str(trace), "--slo-ms", "5000", "--inputs", str(rows))
        code, out, err = await penstock("bench", "--address", address, *again)
    assert code == 0
    assert all(line.startswith("warning: requests left late") for line in err.splitlines())
    assert "100.00%" in out
    assert "50" in out
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(table.read_text().splitlines()) == 51
    assert [each.arrival_us for each in read_trace(trace.read_text(), "t")] == [
        number * 10 * MS for number in range(50)
    ]


class ListingServer(EchoServer):
    """Tells which model it serves."""

    async def RepositoryIndex(
        self,
        _request: pb.RepositoryIndexRequest,
        _context: grpc.aio.ServicerContext[pb.RepositoryIndexRequest, pb.RepositoryIndexResponse],
    ) -> pb.RepositoryIndexResponse:
        reply = pb.RepositoryIndexResponse()
        reply.models.add(name=ECHO, state="READY")
        return reply


async def test_the_command_replays_a_trace_that_names_no_model(tmp_path: Path) -> None:
    trace, saved = tmp_path / "llm.csv", tmp_path / "saved.csv"
    trace.write_bytes(
        b"TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
        b"2023-11-16 18:15:46.9999999,9,9\r\n2023-11-16 18:15:46.8,9,9\r\n"
    )
    asked = ("--trace", str(trace), "--slo-ms", "5000", "--save-trace", str(saved), "--json")
    async with serving(ListingServer()) as address:
        code, out, _ = await penstock("bench", "--address", address, *asked, "--rate-scale", "10")
        assert code == 0
        report = json.loads(out)
        assert (report["requests"], report["models"], report["arrivals"]) == (20, [ECHO], "trace")
        arrivals = read_trace(saved.read_text(), "saved")
        assert (arrivals[0].arrival_us, len(arrivals)) == (0, 20)
        assert all(each.arrival_us <= 199_999 for each in arrivals)
        code, out, _ = await penstock("bench", "--address", address, *asked, "--rate", "25")
    assert (code, json.loads(out)["requests"]) == (0, 5)


async def test_the_command_takes_every_law(tmp_path: Path) -> None:
    saved = tmp_path / "saved.csv"
    law = ("--arrivals", "gamma:cv=3", "--rate", "200", "--duration", "0.5", "--seed", "5")
    async with serving(EchoServer()) as address:
        given = ("--model", ECHO, "--slo-ms", "5000", "--save-trace", str(saved), "--json")
        code, out, _ = await penstock("bench", "--address", address, *law, *given)
    assert (code, json.loads(out)["arrivals"]) == (0, "gamma:cv=3")
    drawn = gamma(200.0, SECOND // 2, 3.0, random.Random(5))
    assert tuple(each.arrival_us for each in read_trace(saved.read_text(), "saved")) == drawn


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--arrivals", "mmpp:burst=5"), "arrivals: mmpp: expected 'mmpp:burst=NUMBER,share=NUM"),
        (("--trace", "llm.csv", "--arrivals", "constant"), "--arrivals: expected a law or a trace"),
        (("--trace", "llm.csv", "--rate-scale", "2", "--rate", "9"), "--rate-scale: expected eit"),
        (("--trace", "llm.csv"), "llm.csv: line 2, TIMESTAMP: expected a time such as '2023-11"),
    ],
)
def test_what_is_wrong_with_the_load_is_told_before_a_server_is_asked(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("llm.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,1\n")
    with pytest.raises(SystemExit) as ended:
        run("penstock", VERBS, ["bench", "--address", "127.0.0.1:1", *arguments])
    said = capsys.readouterr()
    assert (ended.value.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert said.err.startswith(f"error: {message}")


async def test_the_command_says_in_one_line_what_is_missing() -> None:
    async with serving(EchoServer()) as address:
        code, out, err = await penstock("bench", "--address", address)
    assert (code, out) == (2, "")
    lists_none = "error: bench: --model: expected a name, found none, and the server lists none"
    assert err.startswith(lists_none)
    assert err.count("\n") == 1


async def test_health_is_an_exit_code() -> None:
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        address = ("--address", f"127.0.0.1:{port}")
        await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
        assert await penstock("health", *address) == (0, "SERVING\n", "")
        await servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        assert await penstock("health", *address) == (1, "NOT_SERVING\n", "")
    finally:
        await server.stop(None)
    code, out, _ = await penstock("health", *address, "--json")
    assert (code, json.loads(out)["status"]) == (1, "UNAVAILABLE")
