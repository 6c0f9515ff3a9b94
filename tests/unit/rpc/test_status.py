"""Each outcome and each error has one status."""

from __future__ import annotations

import grpc
import pytest

from penstock.domain.errors import InvalidRequest, InvariantViolation, PenstockError, UnknownName
from penstock.domain.requests import DropReason
from penstock.rpc.status import DROP_STATUS, clipped, drop_details, error_status


def test_every_reason_has_a_status_and_words() -> None:
    assert set(DROP_STATUS) == set(DropReason)
    assert all(drop_details(reason, "") for reason in DropReason)
    assert len({drop_details(reason, "") for reason in DropReason}) == len(DropReason)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnknownName("model", "x", ["y"]), grpc.StatusCode.NOT_FOUND),
        (InvalidRequest("r", "p", "e", "f"), grpc.StatusCode.INVALID_ARGUMENT),
        (InvariantViolation("bug"), grpc.StatusCode.INTERNAL),
    ],
)
def test_errors_by_whose_fault_they_are(error: PenstockError, code: grpc.StatusCode) -> None:
    assert error_status(error) is code


def test_details_are_cut_to_what_a_trailer_holds() -> None:
    assert clipped("short") == "short"
    assert len(clipped("long" * 10_000).encode()) == 1_000
    assert clipped("abcdef", 5) == "ab…"
    assert clipped("abcde", 5) == "abcde"
    assert clipped("a€€", 6) == "a…"  # a character is kept whole or not at all
    assert clipped("\ud800") == "?"
