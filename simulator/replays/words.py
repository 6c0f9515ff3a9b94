"""Events and effects of a run log in words, one short line each."""

from __future__ import annotations

from typing import assert_never

from penstock.domain.requests import Slice
from penstock.domain.units import US_PER_SECOND, Micros
from penstock.formats.runlog import LogEntry
from penstock.scheduling.effects import (
    CancelBatch,
    CompleteRequest,
    DropRequest,
    Effect,
    Hop,
    PartHop,
    RunBatch,
    WakeAt,
)
from penstock.scheduling.events import (
    BatchFailed,
    BatchFinished,
    Event,
    InstanceJoined,
    InstanceLost,
    PlanApplied,
    RequestArrived,
    RequestCancelled,
    StageFinished,
    WakeUp,
)


def instant(at_us: Micros) -> str:
    """Return an instant to the microsecond."""
    return f"{at_us / US_PER_SECOND:.6f} s"


def counted(number: int, thing: str, things: str = "") -> str:
    """Return a number with its noun."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"


def entry_words(entry: LogEntry) -> str:
    """Return an event and what it led to."""
    effects = "; ".join(effect_words(each) for each in entry.effects) or "nothing"
    return f"{event_words(entry.event)} → {effects}"


def event_words(event: Event) -> str:
    """Return an event's kind and what tells it from others."""
    return f"{type(event).__name__}{_event_detail(event)}"


def effect_words(effect: Effect) -> str:
    """Return an effect's kind and what tells it from others."""
    return f"{type(effect).__name__}{_effect_detail(effect)}"


def effect_rows(effect: Effect) -> dict[str, str]:
    """Return what an effect says, field by field."""
    match effect:
        case RunBatch():
            return {
                "batch": str(effect.batch),
                "model": effect.model,
                "pipeline": effect.pipeline,
                **{f"route[{stage}]": hop_words(hop) for stage, hop in enumerate(effect.route)},
                "slices": " ".join(map(slice_words, effect.slices)),
                "abandon_us": str(effect.abandon_us),
                "completion_us": str(effect.completion_us),
            }
        case CompleteRequest(request, met):
            return {"request": str(request), "met_deadline": "true" if met else "false"}
        case DropRequest(request, reason, detail):
            return {"request": str(request), "reason": reason.value, "detail": detail}
        case CancelBatch(batch, instances):
            return {"batch": str(batch), "instances": " ".join(instances)}
        case WakeAt(at_us):
            return {"at_us": str(at_us)}


def hop_words(hop: Hop | PartHop) -> str:
    """Return where a stage runs and when, in microseconds."""
    words = f"{hop.instance}, {hop.start_us} to {hop.end_us}, number {hop.sequence}"
    if isinstance(hop, PartHop):
        words += f", rows {hop.first}:{hop.first + hop.count} at stage {hop.stage}"
    return words


def slice_words(part: Slice) -> str:
    """Return a request and which of its samples."""
    return f"{part.request}[{part.first}:{part.first + part.count}]"


def _event_detail(event: Event) -> str:
    match event:
        case RequestArrived(request):
            left_ms = (request.deadline_us - request.arrival_us) / 1_000
            samples = counted(request.samples, "sample")
            words = f" {request.id} of {request.model}: {samples}, {left_ms:g} ms"
        case StageFinished():
            computed_ms = event.compute_us / 1_000
            words = f" {event.stage} of batch {event.batch}, computed {computed_ms:g} ms"
        case BatchFinished(subject) | RequestCancelled(subject) | InstanceLost(subject):
            words = f" {subject}"
        case BatchFailed():
            words = f" {event.batch}: {event.detail}"
        case InstanceJoined():
            words = f" {event.instance} of {event.model}, on {event.server}"
        case PlanApplied(plan):
            words = f" for {', '.join(each.model for each in plan.models)}"
        case WakeUp():
            words = ""
        case _:
            assert_never(event)
    return words


def _effect_detail(effect: Effect) -> str:
    match effect:
        case RunBatch():
            samples = counted(sum(each.count for each in effect.slices), "sample")
            route = ", ".join(hop.instance for hop in effect.route)
            return f" {effect.batch} of {samples} on {route}"
        case CompleteRequest(request, met):
            return f" {request} {'in time' if met else 'late'}"
        case DropRequest(request, reason):
            return f" {request} ({reason.value})"
        case CancelBatch(batch):
            return f" {batch}"
        case WakeAt(at_us):
            return f" {instant(at_us)}"
