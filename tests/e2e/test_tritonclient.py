"""An unmodified tritonclient against a frontend process, over real sockets."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import ROOT, ServerProcess, a_loopback_server, a_server

pytestmark = pytest.mark.e2e

CHECKS = (
    "health",
    "metadata",
    "config",
    "repository_index",
    "raw",
    "typed",
    "chosen_outputs",
    "large_batch",
    "callbacks",
    "aio",
    "stream",
    "aio_stream",
    "statistics",
    "refusals",
    "timeout_parameter",
    "shared_memory",
)
SLOW_CHECKS = ("deadline", "cancellation")
MODELS = ("echo", "pair")


def checked(*arguments: str) -> dict[str, str]:
    """Run the checks in a process of their own."""
    command = [sys.executable, "-m", "tests.e2e.triton_checks", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    results: dict[str, str] = json.loads(done.stdout)
    return results


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with a_server(a_loopback_server(tmp_path_factory.mktemp("server"))) as server:
        yield server


@pytest.fixture(scope="module")
def results(server: ServerProcess) -> dict[str, dict[str, str]]:
    return {model: checked(server.addresses["inference"], model) for model in MODELS}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("check", CHECKS)
def test_tritonclient(results: dict[str, dict[str, str]], model: str, check: str) -> None:
    assert results[model][check] == "ok", results[model][check]


def test_every_check_is_listed_here(results: dict[str, dict[str, str]]) -> None:
    assert set(results["echo"]) == set(CHECKS)


def test_slow_answers_meet_deadlines_and_cancellations(tmp_path: Path) -> None:
    with a_server(a_loopback_server(tmp_path, "--hold")) as server:
        results = checked(server.addresses["inference"], "echo", "slow")
    assert results == dict.fromkeys(SLOW_CHECKS, "ok")


FIELDS = """
import json, sys
from google.protobuf import descriptor_pb2

def walk(prefix, message, found):
    for field in message.field:
        found[f"{prefix}{message.name}.{field.name}"] = [
            field.number, field.type, field.label, field.type_name
        ]
    for nested in message.nested_type:
        walk(f"{prefix}{message.name}.", nested, found)
    for enum in message.enum_type:
        number(f"{prefix}{message.name}.", enum, found)

def number(prefix, enum, found):
    for value in enum.value:
        found[f"{prefix}{enum.name}.{value.name}"] = value.number

found = {}
for module in MODULES:
    file = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(file)
    for message in file.message_type:
        walk("", message, found)
    for enum in file.enum_type:
        number("", enum, found)
    for service in file.service:
        for method in service.method:
            found[f"{service.name}.{method.name}"] = [
                method.input_type, method.output_type,
                method.client_streaming, method.server_streaming,
            ]
sys.stdout.write(json.dumps(found))
"""


def fields_of(imports: str, modules: str) -> dict[str, object]:
    """Return every field, enum value and method of some generated modules."""
    code = f"{imports}\n{FIELDS.replace('MODULES', modules)}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    fields: dict[str, object] = json.loads(done.stdout)
    return fields


def test_every_field_is_where_tritonclient_expects_it() -> None:
    ours = fields_of("from protos import inference_pb2", "[inference_pb2]")
    theirs = fields_of(
        "from tritonclient.grpc import model_config_pb2, service_pb2",
        "[service_pb2, model_config_pb2]",
    )
    assert len(ours) > 150
    assert {name: theirs.get(name) for name in ours} == ours
