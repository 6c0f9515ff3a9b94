"""How a stage is to be computed, as far as a person may choose it. Knows no array library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

Precision: TypeAlias = Literal["fp32", "tf32", "fp16", "bf16"]
MemoryFormat: TypeAlias = Literal["contiguous", "channels_last"]
Compile: TypeAlias = Literal["auto", "on", "off"]

# Largest error, relative to the largest value, that each precision is allowed by default: some ten
# times its rounding step, summed over a deep network. fp32 is not exact either once compiled.
ERROR_LIMITS: Mapping[Precision, float] = MappingProxyType(
    {"fp32": 1e-4, "tf32": 1e-2, "fp16": 2e-2, "bf16": 1e-1}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionOptions:
    """How the stages of one model are computed. What travels keeps the model's own datatypes.

    Attributes:
        precision: of 32-bit floating point weights and activations while computing; ``fp32``
            leaves the model as it was exported.
        memory_format: order of image tensors in memory.
        compile: ``auto``: on GPUs, not on processors.
        capture: replay captured CUDA graphs where the model allows it; GPUs only.
        max_error: largest difference to the model as exported, relative to the largest value,
            with which a stage is still served; None: the precision's of `ERROR_LIMITS`.
    """

    precision: Precision = "fp32"
    memory_format: MemoryFormat = "contiguous"
    compile: Compile = "auto"
    capture: bool = True
    max_error: float | None = None

    @property
    def error_limit(self) -> float:
        """The largest error allowed."""
        return ERROR_LIMITS[self.precision] if self.max_error is None else self.max_error

    def compiles(self, *, by_default: bool) -> bool:
        """Whether to compile on a device where that is, or is not, the default."""
        return by_default if self.compile == "auto" else self.compile == "on"


@dataclass(frozen=True, slots=True, kw_only=True)
class Computation:
    """How a loaded stage is computed.

    Attributes:
        compiled: ``inductor`` or ``eager``; empty where nothing is computed.
        launched: ``graphs`` (captured, replayed) or ``plain``.
        max_error, rms_error: largest and root mean square difference of the outputs to the
            model as exported, on a fixed input, relative to largest value and root mean square.
        remark: why it is not what was asked for; empty if it is.
    """

    compiled: str = ""
    launched: str = "plain"
    precision: str = "fp32"
    memory_format: str = "contiguous"
    max_error: float = 0.0
    rms_error: float = 0.0
    remark: str = ""

    @property
    def words(self) -> str:
        """Say it to a person; empty where nothing is computed."""
        if not self.compiled:
            return ""
        error = f"error max {self.max_error:.1e} rms {self.rms_error:.1e}"
        parts = [self.compiled, self.launched, self.precision, self.memory_format, error]
        return ", ".join(parts) + (f"; {self.remark}" if self.remark else "")
