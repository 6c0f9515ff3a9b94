"""Headers of tensors to be sent, some of which may stay on the device. Knows no link's state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from penstock.domain.devices import DeviceTensor
from penstock.domain.tensors import Buffer, Tensor, byte_size
from penstock.rpc.carriers import LinkLost
from penstock.rpc.device_pool import DevicePool
from penstock.rpc.frames import announce
from protos.link_pb2 import TensorHeader

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer


def announce_all(
    headers: RepeatedCompositeFieldContainer[TensorHeader],
    tensors: Sequence[Tensor | DeviceTensor],
    pool: DevicePool | None,
) -> None:
    """Add the headers of tensors; their slots are the receiver's from now on.

    Args:
        headers: of a frame.
        tensors: in the order in which they are sent.
        pool: of the link on which they are sent.

    Raises:
        LinkLost: a tensor lies in a slot of another link, which this one has replaced.
    """
    for each in tensors:
        if isinstance(each, DeviceTensor) and not (pool and pool.owns(each.slot)):
            raise LinkLost(f"tensor {each.name!r} lies in device memory of a link that is lost")
    for each in tensors:
        if isinstance(each, Tensor):
            announce(headers, each.name, each.datatype, each.shape, [each.data])
        elif pool is not None:
            headers.add(
                name=each.name,
                datatype=each.datatype,
                shape=each.shape,
                byte_size=byte_size(each.datatype, each.shape),
                device=pool.send(each.slot),
            )


def parts_of(tensors: Iterable[Tensor | DeviceTensor]) -> list[Buffer]:
    """Return the bytes that travel in the frame."""
    return [each.data for each in tensors if isinstance(each, Tensor)]


def withdraw(headers: Iterable[TensorHeader], pool: DevicePool | None) -> None:
    """Take back the slots of a frame that was not sent."""
    for each in headers:
        if pool is not None and each.HasField("device"):
            pool.give_back(each.device.generation)
