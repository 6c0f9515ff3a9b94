"""Blocks computed as options say: converted, compiled for each batch size, or as they are."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from execution.blocks import Chain
from execution.compiling import compiled, reason_of
from execution.conversion import set_float32_precision
from penstock.domain.errors import InvalidInput
from penstock.domain.execution import ExecutionOptions

# What does not run raises one of these, out of torch or out of a block.
DOES_NOT_RUN = (RuntimeError, ValueError, InvalidInput)

_log = logging.getLogger(__name__)


class Program:
    """A chain of blocks on one device, as it is served and as it is profiled.

    Args:
        name: what the log calls it.
        chain: as it was exported; changed here to the precision and memory format.
        options: what it is to be.
        compiles: whether to compile it.
    """

    def __init__(
        self, name: str, chain: Chain, options: ExecutionOptions, *, compiles: bool
    ) -> None:
        self.remark = ""
        self.name = name
        self._chain = chain
        set_float32_precision(options)
        chain.convert(options)
        self._compiled = compiled(chain) if compiles else None

    @property
    def is_compiled(self) -> bool:
        """Whether it runs compiled: at each batch size as long as that takes when it is new."""
        return self._compiled is not None

    @torch.inference_mode()
    def run(self, inputs: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Return the outputs; inputs are on the device, in the chain's order."""
        program = self._chain if self._compiled is None else self._compiled
        outputs: tuple[torch.Tensor, ...] = program(*inputs)
        return outputs

    def first_run(self, inputs: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Run once, so that later runs of that batch size take no longer than they have to.

        What cannot be compiled runs as it is from then on, and `remark` says why.

        Raises:
            OutOfMemoryError: the device is too small.
            DOES_NOT_RUN: one of these, if it does not run either way.
        """
        if self._compiled is not None:
            try:
                return self.run(inputs)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # a compiler raises what it likes
                self.remark = f"not compiled: {reason_of(error)}"
                _log.warning("%s: %s", self.name, self.remark)
                self._compiled = None
        return self.run(inputs)
