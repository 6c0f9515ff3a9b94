"""How stages are to be computed, and how they are, on the wire. Options are checked on arrival."""

from __future__ import annotations

from typing import TypeVar, get_args

from penstock.domain.errors import InvalidInput
from penstock.domain.execution import (
    Compile,
    Computation,
    ExecutionOptions,
    MemoryFormat,
    Precision,
)
from protos import control_pb2
from protos.control_pb2 import Execution

Word = TypeVar("Word", bound=str)


def execution_message(options: ExecutionOptions) -> Execution:
    """Return options as they travel."""
    return Execution(
        precision=options.precision,
        memory_format=options.memory_format,
        compile=options.compile,
        capture=options.capture,
        max_error=options.max_error,
    )


def execution_options(message: Execution) -> ExecutionOptions:
    """Read what travelled.

    Raises:
        InvalidInput: it has a word that this version does not know.
    """
    return ExecutionOptions(
        precision=_known("precision", message.precision, get_args(Precision)),
        memory_format=_known("memory_format", message.memory_format, get_args(MemoryFormat)),
        compile=_known("compile", message.compile, get_args(Compile)),
        capture=message.capture,
        max_error=message.max_error if message.HasField("max_error") else None,
    )


def computation_of(message: control_pb2.Computation) -> Computation:
    """Return how a stage is computed, for people to read."""
    return Computation(
        compiled=message.compiled,
        launched=message.launched,
        precision=message.precision,
        memory_format=message.memory_format,
        max_error=message.max_error,
        rms_error=message.rms_error,
        remark=message.remark,
    )


def _known(place: str, found: str, known: tuple[Word, ...]) -> Word:
    for word in known:
        if word == found:
            return word
    raise InvalidInput("execution options", place, f"one of {', '.join(known)}", repr(found))
