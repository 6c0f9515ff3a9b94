"""The first line of a run log: by what rules the events after it were answered.

Knows how `--policy` spells a policy; no policy by name.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass

from penstock.formats.codec import json_line
from penstock.formats.documents import Document
from penstock.scheduling.dispatcher import DispatcherLimits
from penstock.scheduling.ports import BatchingPolicy, RoutingPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class LogHeader:
    """What a dispatcher was made of.

    Attributes:
        penstock: version that wrote the log.
        simulated: the events are a simulator's, not a fleet's.
        policy, routing: batching and routing policy with every parameter, as options spell them:
            a default that changes later does not change what the log says.
    """

    penstock: str
    simulated: bool
    policy: str
    routing: str
    limits: DispatcherLimits


HEADER = Document("penstock.run-log/1", LogHeader)


def write_header(header: LogHeader) -> str:
    """Write the first line of a log, newline included."""
    return json_line(HEADER.content(header))


def spelled(spec: str, policy: BatchingPolicy | RoutingPolicy) -> str:
    """Return a policy's name and all its parameters, such as ``fixed:size=4,timeout_us=2000``.

    Args:
        spec: a text that names it, perhaps with some of its parameters.
        policy: what the text stands for.
    """
    name, _, _ = spec.partition(":")
    if not is_dataclass(policy):
        return name
    values = {each.name: getattr(policy, each.name) for each in fields(policy) if each.init}
    # An empty list cannot be spelled, so it is the default.
    pairs = [f"{key}={_text(value)}" for key, value in values.items() if value != ()]
    return f"{name}:{','.join(pairs)}" if pairs else name


def _text(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case None:
            return "none"
        case tuple():
            return "+".join(map(str, value))
        case _:
            return repr(value)
