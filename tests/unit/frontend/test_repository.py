"""Planned models are found in the repository by the digest of their blocks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from frontend.repository import read_catalogue
from penstock.domain.blocks import BlockPartition, TensorSpec
from penstock.domain.errors import InvalidGraph, InvalidPlan
from penstock.domain.plan import Plan
from penstock.formats.codec import digest
from penstock.formats.graphs import write_blocks
from tests.support.builders import a_plan
from tests.support.frontends import ECHO, echo_signature, two_stage_plan
from tests.support.loopback_server import blocks_of


def store(repository: Path, version: str, **changes: object) -> str:
    """Store a version of `echo`; return the digest of its blocks."""
    partition: BlockPartition = replace(
        blocks_of(echo_signature()),
        version=version,
        **changes,  # type: ignore[arg-type]  # fields by name
    )
    text = write_blocks(partition)
    folder = repository / "echo" / version
    folder.mkdir(parents=True)
    (folder / "blocks.json").write_text(text, encoding="utf-8")
    return digest(text)


def a_plan_of(blocks_digest: str) -> Plan:
    return a_plan(replace(two_stage_plan(ECHO), blocks_digest=blocks_digest))


def test_the_planned_version_is_served_even_if_there_is_a_newer_one(tmp_path: Path) -> None:
    planned = store(tmp_path, "2")
    store(tmp_path, "10")
    model = read_catalogue(a_plan_of(planned), tmp_path).find("echo")
    assert model.signature == replace(echo_signature(), version="2")
    assert model.max_batch == 4


def test_a_plan_without_digest_takes_the_newest_version(tmp_path: Path) -> None:
    store(tmp_path, "9")
    store(tmp_path, "10")
    assert read_catalogue(a_plan_of(""), tmp_path).find("echo").signature.version == "10"


def test_blocks_that_were_not_planned_are_refused(tmp_path: Path) -> None:
    store(tmp_path, "1")
    with pytest.raises(InvalidPlan, match=r"SHA-256 000000000000, found versions: 1"):
        read_catalogue(a_plan_of("0" * 64), tmp_path)


def test_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidPlan, match="versions: none"):
        read_catalogue(a_plan_of(""), tmp_path)


@pytest.mark.parametrize("shape", [(4,), (-1, -1), (4, -1), ()])
def test_a_model_whose_batch_is_not_its_first_axis_alone_is_refused(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    store(tmp_path, "1", inputs=(TensorSpec(name="x", datatype="FP32", shape=shape),))
    with pytest.raises(InvalidGraph, match=r"inputs\[0\].shape: expected the batch"):
        read_catalogue(a_plan_of(""), tmp_path)
