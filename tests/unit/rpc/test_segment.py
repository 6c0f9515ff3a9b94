"""Shared memory between two ends of one process: sealed, committed, bounded."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from penstock.domain.errors import InvalidInput
from penstock.rpc.segment import Segment, open_segment

SIZE = 1 << 20


@contextmanager
def a_segment(size: int = SIZE) -> Iterator[Segment]:
    segment = Segment(size)
    yield segment
    segment.close()


def test_what_one_end_writes_the_other_reads_and_cannot_change() -> None:
    with a_segment() as segment:
        segment.commit(10)
        opened = open_segment(os.dup(segment.file), SIZE)
        segment.view[3:6] = b"abc"
        assert opened[3:6] == b"abc"
        with pytest.raises(TypeError, match="readonly"):
            opened[0] = 1


def test_memory_is_committed_as_it_is_needed() -> None:
    with a_segment(8 << 20) as segment:
        segment.commit(100)
        assert segment.committed_bytes == 1 << 20
        assert os.fstat(segment.file).st_blocks * 512 == 1 << 20
        segment.commit(8 << 20)
        assert segment.committed_bytes == 8 << 20


def test_nobody_can_cut_it_off() -> None:
    with a_segment() as segment:
        for size in (0, SIZE * 2):
            with pytest.raises(PermissionError):
                os.ftruncate(segment.file, size)


def test_it_leaves_nothing_behind() -> None:
    before = set(os.listdir("/proc/self/fd"))
    segment = Segment(SIZE)
    opened = open_segment(os.dup(segment.file), SIZE)
    segment.close()
    segment.close()
    opened.close()
    assert set(os.listdir("/proc/self/fd")) == before
    assert not [each for each in os.listdir("/dev/shm") if "penstock" in each]


def test_files_that_could_hurt_are_refused() -> None:
    unsealed = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.ftruncate(unsealed, SIZE)
    with pytest.raises(InvalidInput, match="sealed against"):
        open_segment(unsealed, SIZE)
    with pytest.raises(InvalidInput, match="a regular file"):
        open_segment(os.open("/dev/zero", os.O_RDONLY), SIZE)
    with pytest.raises(InvalidInput, match="seals"):
        open_segment(os.open(__file__, os.O_RDONLY), os.stat(__file__).st_size)
    with a_segment() as segment, pytest.raises(InvalidInput, match="as announced"):
        open_segment(os.dup(segment.file), SIZE + 1)
    read_end, write_end = os.pipe()
    os.close(write_end)
    with pytest.raises(InvalidInput, match="a regular file"):
        open_segment(read_end, SIZE)


def test_a_limit_on_files_is_an_error() -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, limits[1]))
    before = set(os.listdir("/proc/self/fd"))
    try:
        with pytest.raises(OSError, match="large"):
            Segment(SIZE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert set(os.listdir("/proc/self/fd")) == before
