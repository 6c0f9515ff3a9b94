"""The status page: where it is, and how it is laid out."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from client.status import Json, fetch_status, status_tables, status_url
from penstock.domain.errors import InvalidSettings, PenstockError

STATUS: dict[str, Json] = {
    "version": "0.1.0",
    "ready": True,
    "models": [
        {
            "model": "digits",
            "planned_rps": 1234.56,
            "reason": None,
            "pools": [{"pool": "digits.0", "gpu_class": "T4", "instances": 3}],
        },
        {
            "model": "bert",
            "planned_rps": 5.0,
            "reason": None,
            "pools": [{"pool": "bert.0", "gpu_class": "L4", "instances": 1}],
        },
    ],
    "workers": [],
}


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("localhost:8002", "http://localhost:8002/status.json"),
        ("http://localhost:8002/", "http://localhost:8002/status.json"),
        ("https://host/status.json", "https://host/status.json"),
    ],
)
def test_addresses_are_completed(address: str, url: str) -> None:
    assert status_url(address) == url


@pytest.mark.parametrize("address", ["", "ftp://host", "file:///etc/hosts"])
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(InvalidSettings, match="expected host:port or an http URL"):
        status_url(address)


def test_nobody_there_is_told_in_one_line() -> None:
    with pytest.raises(PenstockError, match=r"http://127\.0\.0\.1:1/status\.json: .*refused"):
        fetch_status("127.0.0.1:1")


def test_tables_hold_everything() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(*status_tables(STATUS))
    shown = console.export_text()
    for words in ("0.1.0", "yes", "1,234.6", "digits.0", "bert.0", "gpu class", "none"):
        assert words in shown
    assert shown.count("gpu class") == 1  # the pools of all models share a table


def test_few_objects_with_many_fields_stand_upright() -> None:
    wide: dict[str, Json] = {f"field_{number}": number for number in range(20)}
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(*status_tables({"models": [{"model": "digits", "reason": "", **wide}]}))
    lines = [line.split() for line in console.export_text().splitlines()]
    assert ["model", "digits"] in lines
    assert ["field", "19", "19"] in lines
    assert not [line for line in lines if "reason" in line]  # nobody has one
