"""The few calls of CUDA's driver that shares need, as typed functions that raise.

cuda-bindings is imported when a `Driver` is made, never by importing this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from penstock.cuda.calls import DriverCalls
from penstock.shares.base import ShareUnavailable
from penstock.shares.layout import SmSplit, guide, split_of

FIRST_VERSION = 12_040  # green contexts came with CUDA 12.4

Resource: TypeAlias = Any  # these are the bindings' own types; nobody looks into them
GreenContext: TypeAlias = Any


class Driver:
    """One device, through the driver. Makes its primary context, the one torch computes in.

    Args:
        ordinal: among the devices this process sees.
        bindings: what stands for cuda-bindings' driver module.

    Raises:
        ShareUnavailable: there are no bindings, no driver, or no device.
    """

    def __init__(self, ordinal: int = 0, bindings: Any = None) -> None:  # noqa: ANN401 - a module
        self._call = DriverCalls(ShareUnavailable, bindings)
        self._call("cuInit", 0)
        self.device = self._call("cuDeviceGet", ordinal)
        # Green contexts hang on the primary context; it should be there before them.
        self._call("cuDevicePrimaryCtxRetain", self.device)

    def visible_sms(self) -> int:
        """Return how many multiprocessors this process may use; MPS lowers it."""
        return int(self._attribute("MULTIPROCESSOR_COUNT"))

    def finest_split(self) -> SmSplit:
        """Return the finest split that this device really makes.

        Raises:
            ShareUnavailable: the driver is too old, or the device cannot be split.
        """
        version = self._call("cuDriverGetVersion")
        if version < FIRST_VERSION:
            found = f"{version // 1000}.{version % 1000 // 10}"
            raise ShareUnavailable(
                f"green contexts need CUDA 12.4 or newer, the driver has {found}"
            )
        whole = self._sm_resource().sm
        wanted = split_of(int(whole.smCount), *self._granularity(whole))
        # Clusters may allow fewer groups than the counts do; and none is no split.
        groups = self._split(wanted) if wanted.groups else []
        if not groups:
            raise ShareUnavailable(f"{wanted.sms} multiprocessors cannot be split")
        return SmSplit(sms=wanted.sms, group_sms=int(groups[0].sm.smCount), groups=len(groups))

    def groups(self, split: SmSplit) -> Sequence[Resource]:
        """Return the groups of an agreed split. Equal splits give equal groups in every process.

        Raises:
            ShareUnavailable: this device splits in another way.
        """
        groups = self._split(split)
        sizes = {int(each.sm.smCount) for each in groups}
        if len(groups) != split.groups or sizes != {split.group_sms}:
            raise ShareUnavailable(
                f"expected {split.groups} groups of {split.group_sms} multiprocessors, "
                f"the driver made {len(groups)} of {sorted(sizes)}"
            )
        return groups

    def green_context(self, groups: Sequence[Resource]) -> GreenContext:
        """Return a context on the union of some groups of one split."""
        described = self._call("cuDevResourceGenerateDesc", list(groups), len(groups))
        flag = self._call.types.CUgreenCtxCreate_flags.CU_GREEN_CTX_DEFAULT_STREAM.value
        return self._call("cuGreenCtxCreate", described, self.device, flag)

    def stream(self, context: GreenContext) -> int:
        """Return the handle of a new stream that computes in a context."""
        flag = self._call.types.CUstream_flags.CU_STREAM_NON_BLOCKING.value
        return int(self._call("cuGreenCtxStreamCreate", context, flag, 0))

    def sms_of(self, context: GreenContext) -> int:
        """Return how many multiprocessors a context really has."""
        return int(self._call("cuGreenCtxGetDevResource", context, self._sm_kind).sm.smCount)

    def destroy(self, context: GreenContext, stream: int) -> None:
        """Give a stream and its context back."""
        self._call("cuStreamDestroy", self._call.types.CUstream(stream))
        self._call("cuGreenCtxDestroy", context)

    @property
    def _sm_kind(self) -> object:
        return self._call.types.CUdevResourceType.CU_DEV_RESOURCE_TYPE_SM

    def _sm_resource(self) -> Resource:
        return self._call("cuDeviceGetDevResource", self.device, self._sm_kind)

    def _granularity(self, whole: Any) -> tuple[int, int]:  # noqa: ANN401 - the bindings' type
        """Return smallest group and alignment: what the driver tells, else what the manual does."""
        minimum = int(getattr(whole, "minSmPartitionSize", 0))
        alignment = int(getattr(whole, "smCoscheduledAlignment", 0))
        if minimum and alignment:
            return minimum, alignment
        return guide(int(self._attribute("COMPUTE_CAPABILITY_MAJOR")))

    def _split(self, split: SmSplit) -> Sequence[Resource]:
        made, count, _ = self._call(
            "cuDevSmResourceSplitByCount", split.groups, self._sm_resource(), 0, split.group_sms
        )
        return list(made)[: int(count)]

    def _attribute(self, name: str) -> Any:  # noqa: ANN401 - an integer, from an untyped call
        attribute = getattr(self._call.types.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
        return self._call("cuDeviceGetAttribute", attribute, self.device)
