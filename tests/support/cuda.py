"""Stands in for cuda-bindings' driver module: devices, splits and green contexts as counts."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from types import SimpleNamespace
from typing import Any

SUCCESS, INVALID = 0, 1


class Status(IntEnum):
    CUDA_SUCCESS = SUCCESS
    CUDA_ERROR_INVALID_VALUE = INVALID
    CUDA_ERROR_NO_DEVICE = 100


class ResourceType(Enum):
    CU_DEV_RESOURCE_TYPE_SM = 1


@dataclass
class FakeCuda:
    """One device.

    Attributes:
        sms: multiprocessors of the device.
        visible: what a process sees of them, as MPS leaves it; 0: all.
        told: whether the driver tells minimum and alignment, as it does from CUDA 13 on.
        lost_groups: groups that clusters do not allow.
        fails: calls that do not succeed.
        alive: green contexts, with the multiprocessors that they own.
        calls: names of all calls, in order.
    """

    sms: int = 132
    minimum: int = 8
    alignment: int = 8
    capability: int = 9
    version: int = 13_000
    visible: int = 0
    told: bool = True
    lost_groups: int = 0
    fails: set[str] = field(default_factory=set)
    alive: dict[int, frozenset[int]] = field(default_factory=dict)
    streams: dict[int, int] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    CUdevResourceType = ResourceType
    CUgreenCtxCreate_flags = SimpleNamespace(CU_GREEN_CTX_DEFAULT_STREAM=SimpleNamespace(value=1))
    CUstream_flags = SimpleNamespace(CU_STREAM_NON_BLOCKING=SimpleNamespace(value=1))
    CUstream = int
    CUdevice_attribute = SimpleNamespace(
        CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT="sms",
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR="capability",
    )

    def cuInit(self, flags: int) -> tuple[Any, ...]:
        assert flags == 0
        return self._answer("cuInit")

    def cuDriverGetVersion(self) -> tuple[Any, ...]:
        return self._answer("cuDriverGetVersion", self.version)

    def cuDeviceGet(self, ordinal: int) -> tuple[Any, ...]:
        return self._answer("cuDeviceGet", ordinal)

    def cuDevicePrimaryCtxRetain(self, device: int) -> tuple[Any, ...]:
        return self._answer("cuDevicePrimaryCtxRetain", f"context of {device}")

    def cuDeviceGetAttribute(self, attribute: str, device: int) -> tuple[Any, ...]:
        value = self.capability if attribute == "capability" else self.visible or self.sms
        return self._answer("cuDeviceGetAttribute", value)

    def cuDeviceGetDevResource(self, device: int, kind: ResourceType) -> tuple[Any, ...]:
        assert kind is ResourceType.CU_DEV_RESOURCE_TYPE_SM
        return self._answer("cuDeviceGetDevResource", self._resource(range(self.sms)))

    def cuDevSmResourceSplitByCount(
        self, wanted: int, whole: Any, flags: int, minimum: int
    ) -> tuple[Any, ...]:
        assert flags == 0
        step = -(-max(minimum, self.minimum) // self.alignment) * self.alignment
        count = min(wanted, len(whole.owned) // step - self.lost_groups)
        groups = [self._resource(whole.owned[at * step : (at + 1) * step]) for at in range(count)]
        rest = self._resource(whole.owned[count * step :])
        # As the bindings do: as many places as were asked for, whatever was made.
        places = groups + [self._resource(()) for _ in range(wanted - count)]
        return self._answer("cuDevSmResourceSplitByCount", places, count, rest)

    def cuDevResourceGenerateDesc(self, resources: list[Any], count: int) -> tuple[Any, ...]:
        assert len(resources) == count
        owned = frozenset(sm for each in resources for sm in each.owned)
        return self._answer("cuDevResourceGenerateDesc", owned)

    def cuGreenCtxCreate(self, owned: frozenset[int], device: int, flags: int) -> tuple[Any, ...]:
        assert flags == 1
        context = 1_000 + len(self.calls)
        self.alive[context] = owned
        return self._answer("cuGreenCtxCreate", context)

    def cuGreenCtxStreamCreate(self, context: int, flags: int, priority: int) -> tuple[Any, ...]:
        assert (flags, priority) == (1, 0)
        stream = 5_000 + len(self.calls)
        self.streams[stream] = context
        return self._answer("cuGreenCtxStreamCreate", stream)

    def cuGreenCtxGetDevResource(self, context: int, kind: ResourceType) -> tuple[Any, ...]:
        return self._answer("cuGreenCtxGetDevResource", self._resource(self.alive[context]))

    def cuStreamDestroy(self, stream: int) -> tuple[Any, ...]:
        del self.streams[stream]
        return self._answer("cuStreamDestroy")

    def cuGreenCtxDestroy(self, context: int) -> tuple[Any, ...]:
        assert context not in self.streams.values()
        del self.alive[context]
        return self._answer("cuGreenCtxDestroy")

    def _resource(self, owned: Any) -> Any:
        told = {"minSmPartitionSize": self.minimum, "smCoscheduledAlignment": self.alignment}
        sm = SimpleNamespace(smCount=len(owned), **(told if self.told else {}))
        return SimpleNamespace(sm=sm, owned=tuple(owned))

    def _answer(self, name: str, *values: object) -> tuple[Any, ...]:
        self.calls.append(name)
        if name in self.fails:
            return (Status.CUDA_ERROR_INVALID_VALUE, *[None for _ in values])
        return (Status.CUDA_SUCCESS, *values)


def cuda_of_environment() -> FakeCuda:
    """Return a device as the environment of this process leaves it."""
    sms = 132
    percentage = float(os.environ.get("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "100"))
    return FakeCuda(sms=sms, visible=int(sms * percentage / 100))
