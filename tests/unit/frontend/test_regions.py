"""Shared memory of clients: only what was registered, never more than is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from frontend.regions import SharedRegions
from penstock.domain.errors import InvalidRequest, UnknownName
from penstock.rpc.oip_parameters import Place
from protos import inference_pb2 as pb
from protos.inference_pb2_grpc import GRPCInferenceServiceStub
from tests.support.frontends import a_running_frontend, eventually, some_settings
from tests.support.messages import echo_request

MOST, LARGEST = 4, 1_000


@pytest.fixture
def regions(tmp_path: Path) -> Iterator[SharedRegions]:
    made = SharedRegions(MOST, LARGEST, tmp_path)
    yield made
    made.unregister("")


def an_object(directory: Path, name: str = "obj", size: int = 100) -> Path:
    path = directory / name
    path.write_bytes(bytes(range(size)))
    return path


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_what_is_written_is_read_within_the_region(tmp_path: Path, regions: SharedRegions) -> None:
    path = an_object(tmp_path)
    regions.register("r", "/obj", 10, 50)
    assert regions.read(Place(region="r", offset=5, size=3)) == bytes((15, 16, 17))
    regions.write(Place(region="r", offset=48, size=2), memoryview(b"ab"))
    assert path.read_bytes()[56:62] == bytes((56, 57, *b"ab", 60, 61))


@pytest.mark.parametrize(
    "key",
    ["", "/", ".", "..", "/..", "../obj", "a/b", "//obj", "/etc/passwd", "obj\0", "x" * 300, "ö"],
)
def test_a_key_is_a_name_in_one_directory(tmp_path: Path, regions: SharedRegions, key: str) -> None:
    an_object(tmp_path)
    with pytest.raises(InvalidRequest, match="without directories"):
        regions.register("r", key, 0, 1)


def test_links_directories_and_pipes_are_no_objects(tmp_path: Path, regions: SharedRegions) -> None:
    an_object(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "obj")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    before = open_files()
    for key in ("link", "folder", "pipe", "missing"):
        with pytest.raises(InvalidRequest, match="shared memory object"):
            regions.register("r", key, 0, 1)
    assert open_files() == before


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 101), (100, 1), (1 << 63, 1), (0, 0), (1, 1 << 63)]
)
def test_a_region_lies_within_its_object(
    tmp_path: Path, regions: SharedRegions, offset: int, size: int
) -> None:
    an_object(tmp_path)
    before = open_files()
    with pytest.raises(InvalidRequest, match="of an object of 100 bytes"):
        regions.register("r", "obj", offset, size)
    assert open_files() == before


@pytest.mark.parametrize(("offset", "size"), [(0, 51), (50, 1), (1 << 62, 1), (49, 2)])
def test_a_place_lies_within_its_region(
    tmp_path: Path, regions: SharedRegions, offset: int, size: int
) -> None:
    path = an_object(tmp_path)
    regions.register("r", "obj", 10, 50)
    place = Place(region="r", offset=offset, size=size)
    with pytest.raises(InvalidRequest, match="room for"):
        regions.read(place)
    with pytest.raises(InvalidRequest, match="room for"):
        regions.write(place, bytes(size if size < LARGEST else 1))
    assert path.read_bytes() == bytes(range(100))


def test_an_output_larger_than_its_place_is_refused(tmp_path: Path, regions: SharedRegions) -> None:
    an_object(tmp_path)
    regions.register("r", "obj", 0, 100)
    with pytest.raises(InvalidRequest, match="room for 4"):
        regions.write(Place(region="r", offset=0, size=4), b"12345")


def test_an_object_that_is_cut_off_later_is_an_error_and_grows_no_more(
    tmp_path: Path, regions: SharedRegions
) -> None:
    path = an_object(tmp_path)
    regions.register("r", "obj", 0, 100)
    os.truncate(path, 20)
    place = Place(region="r", offset=10, size=20)
    with pytest.raises(InvalidRequest, match="it was cut"):
        regions.read(place)
    with pytest.raises(InvalidRequest, match="it was cut"):
        regions.write(place, bytes(20))
    assert path.stat().st_size == 20


def test_sparse_objects_do_not_make_us_allocate(tmp_path: Path, regions: SharedRegions) -> None:
    path = an_object(tmp_path)
    os.truncate(path, 1 << 40)
    regions.register("r", "obj", 0, 1 << 40)
    with pytest.raises(InvalidRequest, match="a tensor of at most 1000 bytes"):
        regions.read(Place(region="r", offset=0, size=1 << 39))


def test_a_region_keeps_its_object_whatever_becomes_of_the_name(
    tmp_path: Path, regions: SharedRegions
) -> None:
    path = an_object(tmp_path)
    regions.register("r", "obj", 0, 100)
    path.unlink()
    path.write_bytes(b"\xff" * 100)
    assert regions.read(Place(region="r", offset=1, size=1)) == b"\x01"


def test_names_are_unique_bounded_and_free_again(tmp_path: Path, regions: SharedRegions) -> None:
    an_object(tmp_path)
    before = open_files()
    for number in range(MOST):
        regions.register(f"r{number}", "obj", 0, 10)
    with pytest.raises(InvalidRequest, match="at most 4 regions"):
        regions.register("one more", "obj", 0, 10)
    regions.unregister("r0")
    with pytest.raises(InvalidRequest, match="not registered"):
        regions.register("r1", "obj", 0, 10)
    for name in ("", "n" * 257):
        with pytest.raises(InvalidRequest, match="1 to 256 characters"):
            regions.register(name, "obj", 0, 10)
    regions.unregister("never there")
    regions.unregister("")
    assert list(regions.listed("")) == []
    assert open_files() == before
    with pytest.raises(UnknownName):
        regions.read(Place(region="r1", offset=0, size=1))
    with pytest.raises(UnknownName):
        regions.listed("r1")


def test_who_listens_beyond_loopback_takes_no_regions_unless_told() -> None:
    assert some_settings().regions == 64
    assert some_settings(host="10.0.0.1").regions == 0
    assert some_settings(host="10.0.0.1", shared_memory_regions=3).regions == 3
    assert some_settings(acceptors=2).regions == 64


async def test_a_server_without_regions_says_so() -> None:
    async with a_running_frontend(shared_memory_regions=0) as running:
        stub = GRPCInferenceServiceStub(running.channel)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest())
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
        request = echo_request()
        request.inputs[0].parameters["shared_memory_region"].string_param = "r"
        with pytest.raises(grpc.aio.AioRpcError, match="the tensor in the request"):
            await stub.ModelInfer(request)


async def test_a_region_that_goes_while_a_request_is_under_way_is_told() -> None:
    path = Path("/dev/shm") / f"penstock-test-{os.getpid()}"
    path.write_bytes(bytes(64))
    try:
        async with a_running_frontend(delay_s=0.2) as running:
            stub = GRPCInferenceServiceStub(running.channel)
            await stub.SystemSharedMemoryRegister(
                pb.SystemSharedMemoryRegisterRequest(name="r", key=path.name, byte_size=64)
            )
            request = echo_request(2)
            parameters = request.outputs.add(name="y").parameters
            parameters["shared_memory_region"].string_param = "r"
            parameters["shared_memory_byte_size"].int64_param = 32
            answer = await stub.ModelInfer(request)
            assert list(answer.raw_output_contents) == [b""]
            assert path.read_bytes()[:32] == request.raw_input_contents[0]
            call = stub.ModelInfer(request)
            await eventually(lambda: running.frontend.pending == 1)
            await stub.SystemSharedMemoryUnregister(pb.SystemSharedMemoryUnregisterRequest())
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call
            assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    finally:
        path.unlink()
