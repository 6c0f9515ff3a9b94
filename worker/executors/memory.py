"""How much device memory a stage needs, and what to say when there is not that much."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.domain.units import BYTES_PER_MIB, Bytes
from worker.stages import Stage

# What torch, cuBLAS and cuDNN keep for themselves per process that computes.
WORKSPACE_BYTES: Bytes = 128 * BYTES_PER_MIB
_HALF = ("fp16", "bf16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Device memory one instance takes.

    Attributes:
        weights: at the precision served.
        activations: an estimate, at the planned batch.
    """

    weights: Bytes
    activations: Bytes
    workspace: Bytes = WORKSPACE_BYTES

    @property
    def total(self) -> Bytes:
        """All of it."""
        return self.weights + self.activations + self.workspace


def need_of(stage: Stage) -> Need:
    """Estimate what a stage takes, from what its blocks say of themselves."""
    divisor = 2 if stage.execution.precision in _HALF else 1
    weights = sum(each.weight_bytes for each in stage.blocks) // divisor
    activations = max(each.activation_bytes for each in stage.blocks) * stage.batch // divisor
    return Need(weights=weights, activations=activations)


def out_of_memory(stage: Stage, need: Need, free: Bytes, total: Bytes) -> str:
    """Say that a stage does not fit, and what it would take."""
    return (
        f"{stage.name}: CUDA out of memory: it needs about {need.total} bytes "
        f"(weights {need.weights}, activations at batch {stage.batch} {need.activations}, "
        f"workspace {need.workspace}); {free} of {total} bytes were free. "
        "A smaller batch, a lower precision or fewer instances on this GPU would help"
    )
