"""How stages are to be computed, and how they are, on the wire. Options are checked on arrival."""

from __future__ import annotations

from dataclasses import replace

from penstock.domain.execution import Computation, ExecutionOptions, named_options
from protos import control_pb2
from protos.control_pb2 import Execution


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
    words = message.precision, message.memory_format, message.compile
    return replace(
        named_options("execution options", *words),
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
