"""What a share of a GPU is on both sides: the supervisor that grants it, the process that holds it.

A mechanism lives in the supervisor and never touches CUDA. It grants each instance a share: what
must be in the environment of its process before CUDA starts, and an order that travels to it. The
process then holds what was granted and says what it really obtained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Protocol

from penstock.domain.errors import InvalidSettings, PenstockError

WHOLE = Fraction(1)


class ShareUnavailable(PenstockError):
    """A mechanism does not work here, or a share was not obtained; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareOrder:
    """What a process is to hold; travels to it as JSON.

    Attributes:
        mechanism: one of the table in `penstock.shares.choice`.
        gpu: whether there is a GPU at all; without one there is nothing to hold.
        numerator, denominator: of the share.
        device_sms: multiprocessors of the whole device; 0: not known.
        group_sms: multiprocessors in one group of the agreed split; 0: there is no split.
        groups: groups of the agreed split.
        taken: which of them are this instance's; empty: it takes the device as it is.
    """

    mechanism: str = "none"
    gpu: bool = False
    numerator: int = 1
    denominator: int = 1
    device_sms: int = 0
    group_sms: int = 0
    groups: int = 0
    taken: tuple[int, ...] = ()

    @property
    def share(self) -> Fraction:
        """Part of the device that was planned."""
        return Fraction(self.numerator, self.denominator)

    def to_json(self) -> str:
        """Return one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ShareOrder:
        """Read what `to_json` wrote.

        Raises:
            InvalidSettings: it is something else.
        """
        try:
            return cls.from_fields(json.loads(text))
        except ValueError as error:
            expected = "the order of a share"
            raise InvalidSettings("share order", "", expected, repr(error)) from None

    @classmethod
    def from_fields(cls, fields: Mapping[str, object]) -> ShareOrder:
        """Read the fields of what `to_json` wrote.

        Raises:
            InvalidSettings: they are something else.
        """
        try:
            given = dict(fields)
            taken = given.pop("taken")
            return cls(taken=tuple(taken), **given)  # type: ignore[arg-type]
        except (KeyError, TypeError, ValueError) as error:
            expected = "the order of a share"
            raise InvalidSettings("share order", "", expected, repr(error)) from None


@dataclass(frozen=True, slots=True)
class Grant:
    """What one instance may have.

    Attributes:
        environment: for its process, before CUDA starts there.
    """

    order: ShareOrder
    environment: Mapping[str, str] = field(default_factory=dict)


class ShareMechanism(Protocol):
    """Divides one device among instances; lives in the supervisor.

    Attributes:
        name: as in the table.
        note: what else a person should know of it; may be empty.
    """

    name: str
    note: str

    def grant(self, instance: str, share: Fraction) -> Grant:
        """Give an instance its share; it keeps it until `release`.

        Raises:
            ShareUnavailable: so much is not free, or the share is too small to be given.
        """
        ...

    def release(self, instance: str) -> None:
        """Take an instance's share back, if it has one. Its process must not use it any more."""
        ...

    def release_all(self) -> None:
        """Take all shares back. No process may use one any more."""
        ...

    def lost(self) -> str:
        """Return why shares are not kept any more; empty while all is well."""
        ...

    def close(self) -> None:
        """End what was started for it. All processes that hold shares must be gone."""
        ...


@dataclass(frozen=True, slots=True)
class Obtained:
    """What a process really got.

    Attributes:
        sms: multiprocessors it may use; 0: not known, or not a GPU.
        device_sms: multiprocessors of the whole device; 0: not known.
    """

    mechanism: str = "none"
    sms: int = 0
    device_sms: int = 0

    @property
    def words(self) -> str:
        """Say it to a person; empty if there is nothing to say."""
        if not self.sms:
            return ""
        of = f" of {self.device_sms}" if self.device_sms else ""
        return f"{self.sms}{of} SMs by {self.mechanism}"


class HeldShare(Protocol):
    """A share in the process that computes on it. Keep it as long as anything runs there."""

    @property
    def obtained(self) -> Obtained:
        """What it is."""
        ...

    @property
    def stream(self) -> int:
        """Handle of a CUDA stream that computes on the share; 0: any stream does."""
        ...

    def close(self) -> None:
        """Give it back. Graphs and tensors of its stream must be gone."""
        ...
