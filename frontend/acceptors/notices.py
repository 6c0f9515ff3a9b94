"""Values as notices, and back. The only place that knows both.

What an acceptor numbers itself, a request, has its own number here: whoever holds both translates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from frontend.catalogue import Catalogue, CatalogueModel
from frontend.courier import Errand, Reply
from penstock.domain.blocks import TensorSpec
from penstock.domain.errors import InvalidInput
from penstock.domain.ids import BatchId, InstanceId, ModelName, RequestId
from penstock.domain.requests import DropReason, Request, Slice
from penstock.formats.plans import read_plan
from penstock.rpc.oip import ModelSignature
from penstock.scheduling.effects import DropRequest, Hop, PartHop
from protos import acceptors_pb2 as pb
from protos.link_pb2 import Reply as WireReply


def write_arrival(request: Request) -> pb.RequestArrival:
    """Return the news of a request."""
    return pb.RequestArrival(
        request=request.id,
        model=request.model,
        samples=request.samples,
        arrival_us=request.arrival_us,
        deadline_us=request.deadline_us,
        priority=request.priority,
    )


def read_arrival(arrival: pb.RequestArrival, request: RequestId) -> Request:
    """Return the request, under the number that it has here.

    Raises:
        InvalidInput: it has no samples.
    """
    if arrival.samples < 1:
        raise InvalidInput("arrival", "samples", "at least 1", str(arrival.samples))
    return Request(
        id=request,
        model=ModelName(arrival.model),
        samples=arrival.samples,
        arrival_us=arrival.arrival_us,
        deadline_us=arrival.deadline_us,
        priority=arrival.priority,
    )


def write_drop(effect: DropRequest, request: int) -> pb.RequestDropped:
    """Return the news that a request ends without an answer."""
    return pb.RequestDropped(request=request, reason=effect.reason.value, detail=effect.detail)


def read_drop(dropped: pb.RequestDropped) -> DropRequest:
    """Return how a request ends.

    Raises:
        InvalidInput: for a reason there is not.
    """
    try:
        reason = DropReason(dropped.reason)
    except ValueError:
        known = ", ".join(each.value for each in DropReason)
        raise InvalidInput("dropped request", "reason", known, repr(dropped.reason)) from None
    return DropRequest(RequestId(dropped.request), reason, dropped.detail)


# Errands


def write_route(route: Iterable[PartHop | Hop]) -> list[pb.BookedHop]:
    """Return a route."""
    return [_write_hop(hop) for hop in route]


def write_replies(replies: Iterable[Reply]) -> list[WireReply]:
    """Return who gets which rows."""
    return [WireReply(address=r.address, first=r.first, count=r.count) for r in replies]


def write_errand(
    errand: Errand,
    route: Sequence[pb.BookedHop] | None = None,
    replies: Sequence[WireReply] | None = None,
) -> pb.Errand:
    """Return an errand.

    Args:
        errand: with the requests' numbers at the acceptor.
        route: its own, if it is written already.
        replies: its own, if they are.
    """
    return pb.Errand(
        batch=errand.batch,
        model=errand.model,
        samples=errand.samples,
        first=errand.first,
        slices=[
            pb.RowSlice(request=each.request, first=each.first, count=each.count)
            for each in errand.slices
        ],
        route=write_route(errand.route) if route is None else route,
        replies=write_replies(errand.replies) if replies is None else replies,
        abandon_us=errand.abandon_us,
    )


def read_errand(errand: pb.Errand) -> Errand:
    """Return an errand.

    Raises:
        InvalidInput: it leads nowhere, or has no rows.
    """
    if not errand.route or not errand.slices:
        raise InvalidInput("errand", "route, slices", "at least one each", "none")
    return Errand(
        batch=BatchId(errand.batch),
        model=ModelName(errand.model),
        samples=errand.samples,
        first=errand.first,
        slices=tuple(
            Slice(RequestId(each.request), each.first, each.count) for each in errand.slices
        ),
        route=tuple(_read_hop(each) for each in errand.route),
        replies=tuple(
            Reply(address=each.address, first=each.first, count=each.count)
            for each in errand.replies
        ),
        abandon_us=errand.abandon_us,
    )


def _write_hop(hop: PartHop | Hop) -> pb.BookedHop:
    booked = pb.BookedHop(
        instance=hop.instance, start_us=hop.start_us, end_us=hop.end_us, sequence=hop.sequence
    )
    if isinstance(hop, PartHop):
        booked.stage, booked.first, booked.count = hop.stage, hop.first, hop.count
    return booked


def _read_hop(hop: pb.BookedHop) -> PartHop | Hop:
    instance = InstanceId(hop.instance)
    if not hop.count:
        return Hop(
            instance=instance, start_us=hop.start_us, end_us=hop.end_us, sequence=hop.sequence
        )
    return PartHop(
        instance=instance,
        start_us=hop.start_us,
        end_us=hop.end_us,
        sequence=hop.sequence,
        stage=hop.stage,
        first=hop.first,
        count=hop.count,
    )


# What is served


def write_models(catalogue: Catalogue) -> list[pb.ModelTensors]:
    """Return the tensors of every model."""
    return [
        pb.ModelTensors(
            model=model.signature.name,
            version=model.signature.version,
            inputs=_write_specs(model.signature.inputs),
            outputs=_write_specs(model.signature.outputs),
        )
        for model in catalogue
    ]


def read_catalogue(settings: pb.AcceptorSettings) -> Catalogue:
    """Return what is served.

    Raises:
        InvalidPlan: the plan is none.
    """
    plan = read_plan(settings.plan, "the dispatcher's plan")
    return Catalogue(
        CatalogueModel(signature=_signature(each), plan=plan.model(ModelName(each.model)))
        for each in settings.models
    )


def _signature(model: pb.ModelTensors) -> ModelSignature:
    return ModelSignature(
        name=ModelName(model.model),
        version=model.version,
        inputs=_read_specs(model.inputs),
        outputs=_read_specs(model.outputs),
    )


def _write_specs(specs: Iterable[TensorSpec]) -> list[pb.TensorForm]:
    return [pb.TensorForm(name=s.name, datatype=s.datatype, shape=s.shape) for s in specs]


def _read_specs(forms: Iterable[pb.TensorForm]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name=form.name, datatype=form.datatype, shape=tuple(form.shape))
        for form in forms
    )
