"""The backend of production: workers that attach, and links to their instances, on one port.

Puts membership, performer and the two services together; decides nothing itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from frontend.backend import Backend, Wiring, WorkerLine
from frontend.control import ControlService
from frontend.link_lines import LinkLine, frontend_lines
from frontend.membership import InstanceStatus, Membership
from frontend.performer import Performer
from penstock.domain.errors import PenstockError
from penstock.domain.ids import InstanceId, PoolId
from penstock.domain.placement import gpu_slots
from penstock.domain.units import Micros
from penstock.rpc.channels import new_server
from penstock.rpc.links import LinkReceiver
from penstock.scheduling.effects import Effect
from protos.control_pb2_grpc import add_ControlServicer_to_server


class WorkersBackend:
    """Computes batches on the workers of a fleet.

    Raises:
        PenstockError: the control port is taken.
    """

    def __init__(self, wiring: Wiring) -> None:
        settings, plan = wiring.settings, wiring.plan
        self._overran = wiring.overran
        self._pool_of: dict[InstanceId, PoolId] = {
            each.id: each.pool for slot in gpu_slots(plan) for each in slot.instances
        }
        self._server = new_server()
        where = f"{settings.host}:{settings.control_port}"
        try:
            port = self._server.add_insecure_port(where)
        except RuntimeError as error:
            raise PenstockError(f"cannot listen for workers on {where}: is it taken?") from error
        self._address = f"{settings.reachable_host}:{port}"
        self._performer = Performer(
            lambda performer: wiring.hire(performer, self._address),
            wiring.post,
            self._count_overrun,
        )
        signatures = [model.signature for model in wiring.catalogue]
        self._membership = Membership(
            plan,
            versions={each.name: each.version for each in signatures},
            frontend_link=self._address,
            links=self._performer,
            post=wiring.post,
        )
        self._receiver = LinkReceiver(self._performer.on_frame, self._performer.on_peer_lost)

    @property
    def emulated(self) -> bool:
        """Whether some attached worker only behaves like its GPU class."""
        return self._membership.emulated

    def perform(self, effect: Effect) -> None:
        """Do what the dispatcher asks for."""
        self._performer.perform(effect)

    def workers(self) -> Sequence[WorkerLine]:
        """Return the workers attached now."""
        return [
            WorkerLine(
                worker=each.worker,
                gpu_class=each.gpu_class,
                server=each.server,
                executor=each.executor,
                device=each.device,
                share=each.share,
                instances=tuple(map(_line, each.instances)),
            )
            for each in self._membership.snapshot()
        ]

    def links(self) -> Sequence[LinkLine]:
        """Return the links of this process, and what instances told of theirs."""
        own = frontend_lines(self._performer.links.kinds(), self._receiver.kinds())
        return [*own, *self._performer.onward.lines()]

    async def start(self) -> str:
        """Let workers attach and instances send."""
        add_ControlServicer_to_server(ControlService(self._membership), self._server)
        self._server.add_generic_rpc_handlers((self._receiver.handler(),))
        await self._server.start()
        return self._address

    async def stop(self, grace_s: float) -> None:
        """Let all workers go and free the port."""
        self._receiver.close()
        self._membership.close()
        await self._performer.close()
        await self._server.stop(grace_s)

    def _count_overrun(self, instance: InstanceId, overrun_us: Micros) -> None:
        pool = self._pool_of.get(instance)
        if pool is not None:
            self._overran(pool, overrun_us)


def _line(instance: InstanceStatus) -> str:
    known = "; ".join(filter(None, (instance.share, instance.computation)))
    how = f" ({known})" if known else ""
    return f"{instance.instance}: {instance.state.value}{how}"


def workers_backend(wiring: Wiring) -> Backend:
    """Return the backend of production."""
    return WorkersBackend(wiring)
