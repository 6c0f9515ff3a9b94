"""What devices call themselves, and of which class they are."""

from __future__ import annotations

import sys

import pytest

from penstock.domain.errors import PenstockError
from tests.support.nvml import UUID, FakeNvml
from worker.devices import DeviceFacts, device_facts, recognised_class
from worker.nvml import DeviceSample, nvml_device


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100"),
        ("NVIDIA H100 NVL", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA H200 NVL", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA A100-PCIE-40GB", "A100"),
        ("A100-SXM4-40GB", "A100"),
        ("Tesla T4", "T4"),
        ("Tesla P4", "P4"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA A10", "A10"),
        # Siblings with rates of their own
        ("NVIDIA L40S", None),
        ("NVIDIA L40", None),
        ("NVIDIA A10G", None),
        ("NVIDIA T4G", None),
        ("Tesla P40", None),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA H20", None),
        ("NVIDIA A100X", None),
        ("NVIDIA GeForce RTX 4090", None),
        ("NVIDIA RTX A4000", None),
        ("NVIDIA B200", None),
        # Parts of a GPU
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", None),
        ("GRID T4-16Q", None),
        ("NVIDIA A100-20C", None),
        ("", None),
        ("A100 H100", None),
    ],
)
def test_classes_are_recognised_by_name(name: str, found: str | None) -> None:
    assert recognised_class(name) == found


def test_facts_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    expected = DeviceFacts("NVIDIA H200", 141 << 30, UUID)
    assert device_facts("cuda", "0", "H200") == expected
    assert device_facts("cuda", UUID, "H200") == expected
    with pytest.raises(PenstockError, match="CUDA device GPU-9: Not Found"):
        device_facts("cuda", "GPU-9", "H200")
    assert nvml.open == 0


def test_facts_of_a_processor_need_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    host = device_facts("cpu", "0", "L4")
    assert host.memory_bytes > 0
    assert host.uuid == ""
    emulated = device_facts("emulated", "0", "L4")
    assert emulated.name == f"emulated L4 on {host.name}"


def test_a_sample_has_units() -> None:
    with nvml_device("0", FakeNvml()) as device:
        assert device.sample() == DeviceSample(
            memory_used_bytes=3 << 30,
            busy=0.75,
            memory_busy=0.2,
            power_watts=321.5,
            sm_hz=1.98e9,
            memory_hz=3.201e9,
        )


def test_what_a_device_does_not_tell_is_none() -> None:
    with nvml_device("0", FakeNvml(silent={"rates", "power", "clocks", "memory"})) as device:
        assert device.sample() == DeviceSample(
            memory_used_bytes=None,
            busy=None,
            memory_busy=None,
            power_watts=None,
            sm_hz=None,
            memory_hz=None,
        )
