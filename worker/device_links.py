"""What an instance shares of its device with the instances that it sends to.

Knows sizes and whether there is a device, no link.
"""

from __future__ import annotations

import logging

from penstock.cuda.memory import DeviceMemory, DeviceRefused
from penstock.domain.tensors import byte_size
from penstock.domain.units import BYTES_PER_MIB
from penstock.rpc.local_offer import DeviceSource
from worker.executors.base import shape_at
from worker.settings import GPU_EXECUTORS
from worker.stages import Stage

# Of the planned size: one is written, one is on its way, the others wait at the receiver.
_BATCHES = 8
_FEWEST_BATCHES = 2
_POOL_LIMIT_BYTES = 256 * BYTES_PER_MIB

_log = logging.getLogger(__name__)


def device_memory(executor: str) -> DeviceMemory | None:
    """Return the memory of the device that an executor computes on, if others can reach it.

    Args:
        executor: its name; loaded, so CUDA has started in this process.
    """
    if executor not in GPU_EXECUTORS:
        return None
    try:
        return DeviceMemory()
    except DeviceRefused as error:
        _log.warning("links copy through the host: no CUDA IPC: %s", error)
        return None


def device_source(memory: DeviceMemory, stage: Stage) -> DeviceSource:
    """Return where a stage's outputs may be left, and how much of it each link takes."""
    shapes = [(each.datatype, shape_at(each, stage.batch)) for each in stage.outputs]
    batch = sum(byte_size(datatype, shape) for datatype, shape in shapes)
    limit = max(_POOL_LIMIT_BYTES, _FEWEST_BATCHES * batch)
    return DeviceSource(memory, min(_BATCHES * batch, limit))
