"""What an unmodified `tritonclient` must be able to do; runs in a process of its own.

`python -m tests.e2e.triton_checks ADDRESS MODEL` prints one JSON object: check → "ok" or what went
wrong. Its process must not load our generated messages: two files of package `inference` cannot
live together. Works against any model with fixed shapes behind the batch axis.

Checks whose name is in `SLOW_BACKEND` need a server that answers late or never.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
import tritonclient.utils.shared_memory as shm
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

SAMPLES = 3
TYPED_LISTS: Mapping[str, str] = MappingProxyType(
    {
        "BOOL": "bool_contents",
        "INT8": "int_contents",
        "INT16": "int_contents",
        "INT32": "int_contents",
        "INT64": "int64_contents",
        "UINT8": "uint_contents",
        "UINT16": "uint_contents",
        "UINT32": "uint_contents",
        "UINT64": "uint64_contents",
        "FP32": "fp32_contents",
        "FP64": "fp64_contents",
    }
)


class Target(NamedTuple):
    """A server and one of its models."""

    address: str
    model: str
    client: Any
    metadata: Any

    def arrays(self, samples: int = SAMPLES, seed: int = 0) -> dict[str, Any]:
        """Return values for each input; small ones, which fit every datatype."""
        dice = np.random.default_rng(seed)
        return {
            each.name: dice.integers(0, 2, size=(samples, *each.shape[1:])).astype(
                triton_to_np_dtype(each.datatype)
            )
            for each in self.metadata.inputs
        }

    def inputs(self, arrays: Mapping[str, Any]) -> list[Any]:
        """Return the values as tritonclient wants them."""
        made = []
        for each in self.metadata.inputs:
            tensor = triton.InferInput(each.name, list(arrays[each.name].shape), each.datatype)
            tensor.set_data_from_numpy(arrays[each.name])
            made.append(tensor)
        return made

    def outputs_of(self, result: Any) -> dict[str, Any]:
        """Return every output as an array."""
        return {each.name: result.as_numpy(each.name) for each in self.metadata.outputs}

    def answer(self, samples: int = SAMPLES, seed: int = 0) -> dict[str, Any]:
        """Ask plainly."""
        inputs = self.inputs(self.arrays(samples, seed))
        return self.outputs_of(self.client.infer(self.model, inputs))


def same(left: Mapping[str, Any], right: Mapping[str, Any]) -> None:
    """Check that two answers are equal, up to what a batch of another size changes."""
    assert left.keys() == right.keys()
    for name, array in left.items():
        np.testing.assert_allclose(array, right[name], rtol=1e-5, atol=1e-6, err_msg=name)


def status_of(call: Callable[[], object]) -> str:
    """Return the status a call fails with."""
    try:
        call()
    except InferenceServerException as error:
        return str(error.status()).removeprefix("StatusCode.")
    return "OK"


# Checks


def health(target: Target) -> None:
    assert target.client.is_server_live()
    assert target.client.is_server_ready()
    assert target.client.is_model_ready(target.model)
    assert not target.client.is_model_ready("no such model")


def metadata(target: Target) -> None:
    server = target.client.get_server_metadata()
    assert server.name == "penstock"
    assert "statistics" in server.extensions
    assert target.metadata.platform == "penstock"
    for tensor in (*target.metadata.inputs, *target.metadata.outputs):
        assert tensor.shape[0] == -1
    as_json = target.client.get_model_metadata(target.model, as_json=True)
    assert as_json["name"] == target.model


def config(target: Target) -> None:
    found = target.client.get_model_config(target.model).config
    assert found.name == target.model
    assert found.max_batch_size >= 1
    assert found.HasField("dynamic_batching")
    assert [each.name for each in found.input] == [each.name for each in target.metadata.inputs]
    assert [list(each.dims) for each in found.output] == [
        list(each.shape[1:]) for each in target.metadata.outputs
    ]


def repository_index(target: Target) -> None:
    listed = {each.name: each.state for each in target.client.get_model_repository_index().models}
    assert listed[target.model] == "READY"
    assert status_of(lambda: target.client.load_model(target.model)) == "UNIMPLEMENTED"


def raw(target: Target) -> None:
    arrays = target.arrays()
    result = target.client.infer(target.model, target.inputs(arrays), request_id="my id")
    response = result.get_response()
    assert (response.id, response.model_name) == ("my id", target.model)
    for each in target.metadata.outputs:
        array = result.as_numpy(each.name)
        assert array.shape == (SAMPLES, *each.shape[1:])
        assert array.dtype == triton_to_np_dtype(each.datatype)
    if target.model == "echo":
        np.testing.assert_array_equal(result.as_numpy("y"), arrays["x"])


def typed(target: Target) -> None:
    request = service_pb2.ModelInferRequest(model_name=target.model)
    for each in target.metadata.inputs:
        array = target.arrays()[each.name]
        tensor = request.inputs.add(name=each.name, datatype=each.datatype, shape=array.shape)
        getattr(tensor.contents, TYPED_LISTS[each.datatype]).extend(array.ravel().tolist())
    with triton.grpc.insecure_channel(target.address) as channel:
        response = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    same(target.outputs_of(triton.InferResult(response)), target.answer())


def chosen_outputs(target: Target) -> None:
    last = target.metadata.outputs[-1].name
    wanted = [triton.InferRequestedOutput(last)]
    inputs = target.inputs(target.arrays())
    response = target.client.infer(target.model, inputs, outputs=wanted).get_response()
    assert [each.name for each in response.outputs] == [last]


def large_batch(target: Target) -> None:
    most = target.client.get_model_config(target.model).config.max_batch_size
    whole = target.answer(3 * most + 1)
    assert all(len(array) == 3 * most + 1 for array in whole.values())


def callbacks(target: Target) -> None:
    done: queue.Queue[Any] = queue.Queue()
    inputs = target.inputs(target.arrays())
    for _ in range(4):
        target.client.async_infer(
            target.model, inputs, callback=lambda result, error: done.put((result, error))
        )
    for _ in range(4):
        result, error = done.get(timeout=10)
        assert error is None, error
        same(target.outputs_of(result), target.answer())


def aio(target: Target) -> None:
    asyncio.run(_aio(target))


async def _aio(target: Target) -> None:
    async with triton_aio.InferenceServerClient(target.address) as client:
        assert await client.is_server_ready()
        assert (await client.get_model_metadata(target.model)).name == target.model
        inputs = target.inputs(target.arrays())
        results = await asyncio.gather(*(client.infer(target.model, inputs) for _ in range(8)))
    for result in results:
        same(target.outputs_of(result), target.answer())


def stream(target: Target) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    target.client.start_stream(callback=lambda result, error: answers.put((result, error)))
    try:
        for number in range(12):
            name = "no such model" if number == 5 else target.model
            inputs = target.inputs(target.arrays(1 + number % 3, seed=number))
            target.client.async_stream_infer(name, inputs, request_id=str(number))
        for number in range(12):
            result, error = answers.get(timeout=10)
            if number == 5:
                assert "no such model" in str(error)
                continue
            assert error is None, error
            assert result.get_response().id == str(number)
            same(target.outputs_of(result), target.answer(1 + number % 3, seed=number))
    finally:
        target.client.stop_stream()


def aio_stream(target: Target) -> None:
    asyncio.run(_aio_stream(target))


async def _aio_stream(target: Target) -> None:
    async def requests() -> Any:
        for number in range(5):
            inputs = target.inputs(target.arrays())
            yield {"model_name": target.model, "inputs": inputs, "request_id": str(number)}

    async with triton_aio.InferenceServerClient(target.address) as client:
        found = [each async for each in client.stream_infer(requests())]
    assert [error for _, error in found] == [None] * 5
    assert [result.get_response().id for result, _ in found] == [str(each) for each in range(5)]


def statistics(target: Target) -> None:
    before = target.client.get_inference_statistics(target.model).model_stats[0]
    for _ in range(3):
        target.answer(2)
    after = target.client.get_inference_statistics(target.model).model_stats[0]
    assert after.inference_count - before.inference_count == 6
    assert after.execution_count > before.execution_count
    stats = after.inference_stats
    assert stats.success.count - before.inference_stats.success.count == 3
    assert stats.compute_infer.ns > before.inference_stats.compute_infer.ns
    assert after.last_inference > 0
    assert sum(each.compute_infer.count for each in after.batch_stats) == after.execution_count


def refusals(target: Target) -> None:
    good = target.inputs(target.arrays())
    assert status_of(lambda: target.client.infer("no such model", good)) == "NOT_FOUND"
    assert status_of(lambda: target.client.infer(target.model, good, model_version="77")) == (
        "NOT_FOUND"
    )
    assert status_of(lambda: target.client.infer(target.model, good[1:])) == "INVALID_ARGUMENT"
    assert status_of(lambda: target.client.infer(target.model, [*good, good[0]])) == (
        "INVALID_ARGUMENT"
    )
    first = target.metadata.inputs[0]
    strange = triton.InferInput(first.name, [1, 1, 1, 1, 1, 1, 1], "FP64")
    strange.set_data_from_numpy(np.zeros([1] * 7))
    assert status_of(lambda: target.client.infer(target.model, [strange, *good[1:]])) == (
        "INVALID_ARGUMENT"
    )
    labelled = [triton.InferRequestedOutput(target.metadata.outputs[0].name, class_count=2)]
    assert status_of(lambda: target.client.infer(target.model, good, outputs=labelled)) == (
        "INVALID_ARGUMENT"
    )
    assert status_of(target.client.get_cuda_shared_memory_status) == "UNIMPLEMENTED"
    target.answer()


def shared_memory(target: Target) -> None:
    """Inputs and outputs in regions of this process, through tritonclient's own functions."""
    arrays = target.arrays(seed=7)
    expected = target.answer(seed=7)
    sizes = [sum(each.nbytes for each in made.values()) for made in (arrays, expected)]
    names = [f"penstock-test-{os.getpid()}-{way}" for way in ("in", "out")]
    handles = [
        shm.create_shared_memory_region(name, name, size)
        for name, size in zip(names, sizes, strict=True)
    ]
    try:
        for name, size in zip(names, sizes, strict=True):
            target.client.register_system_shared_memory(name, name, size)
        _ask_through_memory(target, arrays, expected, names, handles)
        _wrong_places(target, arrays, names)
    finally:
        target.client.unregister_system_shared_memory()
        for handle in handles:
            shm.destroy_shared_memory_region(handle)
    assert not target.client.get_system_shared_memory_status().regions


def _ask_through_memory(
    target: Target,
    arrays: Mapping[str, Any],
    expected: Mapping[str, Any],
    names: list[str],
    handles: list[Any],
) -> None:
    status = target.client.get_system_shared_memory_status()
    assert {each.key for each in status.regions.values()} == set(names)
    shm.set_shared_memory_region(handles[0], list(arrays.values()))
    inputs, at = target.inputs(arrays), 0
    for each, array in zip(inputs, arrays.values(), strict=True):
        each.set_shared_memory(names[0], array.nbytes, offset=at)
        at += array.nbytes
    outputs, at, offsets = [], 0, {}
    for name, array in expected.items():
        outputs.append(triton.InferRequestedOutput(name))
        outputs[-1].set_shared_memory(names[1], array.nbytes, offset=at)
        offsets[name] = at
        at += array.nbytes
    result = target.client.infer(target.model, inputs, outputs=outputs)
    for name, array in expected.items():
        output = result.get_output(name)
        assert output.parameters["shared_memory_region"].string_param == names[1]
        found = shm.get_contents_as_numpy(handles[1], array.dtype, array.shape, offsets[name])
        np.testing.assert_allclose(found, array, rtol=1e-5, atol=1e-6)


def _wrong_places(target: Target, arrays: Mapping[str, Any], names: list[str]) -> None:
    first = next(iter(arrays.values()))

    def asked(region: str, size: int, offset: int) -> str:
        inputs = target.inputs(arrays)
        inputs[0].set_shared_memory(region, size, offset=offset)
        return status_of(lambda: target.client.infer(target.model, inputs))

    assert asked("no such region", first.nbytes, 0) == "NOT_FOUND"
    assert asked(names[0], first.nbytes + 1, 0) == "INVALID_ARGUMENT"
    assert asked(names[0], first.nbytes, 1 << 40) == "INVALID_ARGUMENT"
    for name, key, size in (
        (names[0], names[0], 1),  # registered already
        ("other", names[0], 1 << 40),  # longer than the object
        ("other", "no such object", 1),
        ("other", "../../etc/passwd", 1),
    ):
        call = target.client.register_system_shared_memory
        assert status_of(lambda: call(name, key, size)) == "INVALID_ARGUMENT"  # noqa: B023


def timeout_parameter(target: Target) -> None:
    inputs = target.inputs(target.arrays())
    hasty = status_of(lambda: target.client.infer(target.model, inputs, timeout=1))
    assert hasty == "DEADLINE_EXCEEDED"
    target.client.infer(target.model, inputs, timeout=60_000_000, priority=1)


def deadline(target: Target) -> None:
    inputs = target.inputs(target.arrays())
    started = time.monotonic()
    hasty = status_of(lambda: target.client.infer(target.model, inputs, client_timeout=0.2))
    assert hasty == "DEADLINE_EXCEEDED"
    assert time.monotonic() - started < 1.5


def cancellation(target: Target) -> None:
    done: queue.Queue[Any] = queue.Queue()
    call = target.client.async_infer(
        target.model,
        target.inputs(target.arrays()),
        callback=lambda result, error: done.put((result, error)),
    )
    time.sleep(0.2)  # under way
    call.cancel()
    _, error = done.get(timeout=5)
    assert "CANCELLED" in str(error.status())


CHECKS: tuple[Callable[[Target], None], ...] = (
    health,
    metadata,
    config,
    repository_index,
    raw,
    typed,
    chosen_outputs,
    large_batch,
    callbacks,
    aio,
    stream,
    aio_stream,
    statistics,
    refusals,
    timeout_parameter,
    shared_memory,
)
SLOW_BACKEND: tuple[Callable[[Target], None], ...] = (deadline, cancellation)


def run(address: str, model: str, checks: tuple[Callable[[Target], None], ...]) -> dict[str, str]:
    """Run checks one after the other; return what came of each."""
    results: dict[str, str] = {}
    with triton.InferenceServerClient(address) as client:
        target = Target(address, model, client, client.get_model_metadata(model))
        for check in checks:
            try:
                check(target)
                results[check.__name__] = "ok"
            except Exception:
                results[check.__name__] = traceback.format_exc()
    return results


def main() -> None:
    address, model, *kind = sys.argv[1:]
    checks = SLOW_BACKEND if kind == ["slow"] else CHECKS
    sys.stdout.write(json.dumps(run(address, model, checks)))


if __name__ == "__main__":
    main()
