"""How a stage is to be computed, as far as a person may choose it. Knows no array library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, TypeAlias, TypeVar, get_args

from penstock.domain.errors import InvalidInput

Precision: TypeAlias = Literal["fp32", "tf32", "fp16", "bf16"]
MemoryFormat: TypeAlias = Literal["contiguous", "channels_last"]
Compile: TypeAlias = Literal["auto", "on", "off"]
Compiled: TypeAlias = Literal["inductor", "eager"]
Executing: TypeAlias = Literal["cpu", "cuda"]

Word = TypeVar("Word", bound=str)

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

    def on(self, executor: Executing) -> Computed:
        """Return how an executor computes what it can as it is asked to."""
        return Computed(
            executor=executor,
            compiled="inductor" if self.compiles(by_default=executor == "cuda") else "eager",
            precision=self.precision,
            memory_format=self.memory_format,
        )


def named_options(
    source: str, precision: str, memory_format: str, compiling: str
) -> ExecutionOptions:
    """Return options from words of outside.

    Args:
        source: what errors say the words are of.

    Raises:
        InvalidInput: a word that is none of its field's.
    """
    return ExecutionOptions(
        precision=_known(source, "precision", precision, get_args(Precision)),
        memory_format=_known(source, "memory_format", memory_format, get_args(MemoryFormat)),
        compile=_known(source, "compile", compiling, get_args(Compile)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """How the blocks of a profile were computed while they were measured.

    Attributes:
        executor: in whose way; ``cuda`` replays captured graphs.
        not_compiled: blocks that could not be compiled, at one batch size or more, and ran as
            they are.
    """

    executor: Executing
    compiled: Compiled
    precision: Precision
    memory_format: MemoryFormat
    not_compiled: tuple[int, ...] = ()

    @property
    def words(self) -> str:
        """Say it to a person."""
        but = f" (not {named_blocks(self.not_compiled)})" if self.not_compiled else ""
        return f"{self.compiled}{but}, {self.precision}, {self.memory_format}"

    def is_as_asked(self, options: ExecutionOptions) -> bool:
        """Whether a stage with these options is computed so, as far as it can be."""
        return replace(self, not_compiled=()) == options.on(self.executor)


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


def named_blocks(blocks: Sequence[int]) -> str:
    """Return what a sentence calls some blocks, at least one."""
    return f"block{'s' if len(blocks) > 1 else ''} {', '.join(map(str, blocks))}"


def _known(source: str, place: str, found: str, known: tuple[Word, ...]) -> Word:
    for word in known:
        if word == found:
            return word
    raise InvalidInput(source, place, f"one of {', '.join(known)}", repr(found))
