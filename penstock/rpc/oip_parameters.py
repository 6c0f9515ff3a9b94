"""Parameters of Open Inference Protocol requests → values, and how what a client sent is quoted.

Knows nothing of models or tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from penstock.domain.errors import InvalidRequest
from penstock.domain.units import Bytes
from penstock.rpc.status import clipped
from protos import inference_pb2 as pb

SOURCE = "ModelInferRequest"
LARGEST_TIMEOUT_US = 2**53

_LARGEST_REGION = 2**53
_SHOWN_BYTES = 80

# Parameters of an input or a requested output that lies in shared memory.
REGION = "shared_memory_region"
REGION_BYTES = "shared_memory_byte_size"
REGION_OFFSET = "shared_memory_offset"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Bytes [offset, offset + size) of a shared-memory region that a client registered."""

    region: str
    offset: Bytes
    size: Bytes


def read_place(parameters: Mapping[str, pb.InferParameter], where: str) -> Place | None:
    """Return where in shared memory a tensor lies; None if it does not."""
    if REGION not in parameters:
        return None
    given = parameters[REGION]
    if not given.string_param:
        raise InvalidRequest(SOURCE, f"{where}[{REGION}]", "the name of a region", shown(given))
    return Place(
        region=given.string_param,
        offset=natural(parameters, REGION_OFFSET, _LARGEST_REGION, where),
        size=natural(parameters, REGION_BYTES, _LARGEST_REGION, where),
    )


def natural(
    parameters: Mapping[str, pb.InferParameter], key: str, largest: int, where: str = "parameters"
) -> int:
    """Return an integer parameter, or 0 if it is not there; digits in a string count too."""
    if key not in parameters:
        return 0
    parameter = parameters[key]
    kind = parameter.WhichOneof("parameter_choice")
    value = -1
    if kind in ("int64_param", "uint64_param"):
        value = getattr(parameter, kind)
    elif kind == "string_param" and _is_number(parameter.string_param):
        value = int(parameter.string_param)
    if not 0 <= value <= largest:
        expected = f"an integer in 0..{largest}"
        raise InvalidRequest(SOURCE, f"{where}[{key}]", expected, shown(parameter))
    return value


def _is_number(text: str) -> bool:
    return len(text) <= len(str(LARGEST_TIMEOUT_US)) and text.isascii() and text.isdigit()


def shown(parameter: pb.InferParameter) -> str:
    """Return a parameter in words."""
    kind = parameter.WhichOneof("parameter_choice")
    if kind is None:
        return "an empty parameter"
    return f"{kind} {quoted(getattr(parameter, kind))}"


def listed(names: Iterable[str]) -> str:
    """Return names with commas, not too many."""
    return clipped(", ".join(names), 4 * _SHOWN_BYTES)


def quoted(value: object) -> str:
    """Return what a client sent, in quotes if it is text."""
    return repr(cut(value) if isinstance(value, str) else value)


def cut(text: str) -> str:
    """Return text that a client sent, not too much of it."""
    return clipped(text, _SHOWN_BYTES)
