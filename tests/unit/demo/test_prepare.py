"""The demo on a real GPU, as far as a host without one can tell: it plans over shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from demo import prepare as demo_prepare
from demo.cli import DEVICES, demo
from demo.digits import DigitsNet
from demo.drive import fleet_settings
from demo.prepare import MODEL, Paths, prepare
from penstock.domain.datasheet import DATASHEET
from penstock.domain.errors import InvalidCluster, InvalidSettings, UnknownName
from penstock.domain.ids import GpuClassName
from penstock.formats.clusters import read_cluster
from penstock.formats.layout import profile_paths
from penstock.formats.profiles import write_profile
from profiler.estimate import estimate_profile
from profiler.files import load_partition
from tests.support.processes import ROOT

CLUSTER = ROOT / "demo" / DEVICES["cuda"]


def test_a_real_gpu_is_planned_by_what_is_measured_on_its_shares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = Paths(root=tmp_path)
    measured: list[Fraction] = []

    def measure(
        shares: Sequence[Fraction],
        mechanism: str,
        device: str,
        arguments: Sequence[str],
        progress: Callable[[int, int], None],
    ) -> str:
        assert (mechanism, device, arguments[0]) == ("auto", "cuda", MODEL)
        assert list(arguments[-2:]) == ["--compile", "off"]  # as the cluster file has it served
        measured.extend(shares)
        partition, _ = load_partition(paths.repository / MODEL / "1")
        (gpu_class,) = read_cluster(CLUSTER.read_text(), "cluster").gpu_classes
        rated = replace(gpu_class, rates=DATASHEET["H100"].rates)
        profile = estimate_profile(partition, rated, range(1, 5), shares)
        files = profile_paths(paths.profiles, MODEL, GpuClassName("gpu"))
        files[0].parent.mkdir(parents=True)
        for file, text in zip(files, write_profile(profile), strict=True):
            file.write_text(text)
        return "green"

    monkeypatch.setattr(demo_prepare, "measure_at_shares", measure)
    monkeypatch.setattr(demo_prepare, "train", lambda _: DigitsNet().eval())
    prepared = prepare(CLUSTER, paths, lambda _: None, emulated=False)
    assert measured == [1, Fraction(1, 2), Fraction(1, 4)]
    assert not prepared.emulated
    shares = {pool.share for pool in prepared.plan.model(MODEL).pools}
    assert shares <= {Fraction(1, 2), Fraction(1, 4)}
    assert {pool.share for pool in prepared.whole_plan.model(MODEL).pools} == {1}
    assert prepared.plan.model(MODEL).execution.compile == "off"
    assert fleet_settings(paths.plan, paths, "x", emulated=False).executor == "cuda"


def test_a_real_fleet_is_one_gpu(tmp_path: Path) -> None:
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(CLUSTER.read_text().replace("count: 1", "count: 2"))
    with pytest.raises(InvalidCluster, match="one class of one GPU: this one, found 2 gpu"):
        prepare(cluster, Paths(root=tmp_path), lambda _: None, emulated=False)


def test_a_machine_without_a_gpu_is_told_in_one_line() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(InvalidSettings, match="expected cpu or one of 0 CUDA devices, found cuda"):
        demo(device="cuda")


def test_an_unknown_device_is_told_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="unknown device 'tpu'; known: cuda, emulated"):
        demo(device="tpu")
