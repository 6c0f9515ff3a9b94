"""How a batch's outputs leave the device, or stay there for the next instance.

What is queued here is queued on the current stream; who calls waits for it. Memory that is
forgotten meanwhile is taken again on the same stream only, behind what is queued.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from penstock.domain.blocks import TensorSpec
from penstock.domain.devices import DeviceTensor
from worker.executors.base import Handover
from worker.executors.padding import Padding
from worker.executors.tensors import to_host


class WayOut:
    """Knows the outputs of one stage.

    Args:
        outputs: of the stage.
        padding: of the stage.
    """

    def __init__(self, outputs: Sequence[TensorSpec], padding: Padding) -> None:
        self._specs = tuple(outputs)
        self._padding = padding

    def to_host(self, outputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Queue copies of a batch's outputs into page-locked memory."""
        return [to_host(each) for each in outputs]

    def hand_over(
        self, outputs: Sequence[torch.Tensor], handover: Handover, stream: int
    ) -> tuple[DeviceTensor, ...] | None:
        """Queue copies of rows to where the next instance takes them; None: there is no room.

        Args:
            outputs: of the whole batch.
            handover: to whom.
            stream: handle of the current stream.
        """
        if handover.room is None:
            return None
        made: list[DeviceTensor] = []
        rows = self._padding.part(outputs, handover.first, handover.count)
        for spec, tensor in zip(self._specs, rows, strict=True):
            slot = handover.room.take(tensor.numel() * tensor.element_size())
            if slot is None:
                return None
            slot.write(tensor.data_ptr(), stream)
            made.append(DeviceTensor(spec.name, spec.datatype, tuple(tensor.shape), slot))
        return tuple(made)
