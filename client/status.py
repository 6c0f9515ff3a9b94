"""A frontend's status page, fetched and laid out for people.

Lays out any JSON object: plain values first, then a table for each list of objects. Knows nothing
of what the fields mean.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from penstock.domain.errors import InvalidSettings, PenstockError

if TYPE_CHECKING:
    from rich.console import JustifyMethod
    from rich.table import Table

Json: TypeAlias = "str | int | float | bool | Sequence[Json] | Mapping[str, Json] | None"

_PATH = "/status.json"
_TIMEOUT_S = 5.0
_LONGEST_PAGE = 64 << 20
_MANY_FIELDS, _FEW_ROWS = 8, 3
_SHORT_TEXT = 9


def status_url(address: str) -> str:
    """Return where the status is, from ``host:port`` or a URL with or without a path.

    Raises:
        InvalidSettings: it is neither.
    """
    url = urllib.parse.urlsplit(address if "://" in address else f"http://{address}")
    if url.scheme not in ("http", "https") or not url.netloc:
        raise InvalidSettings("status", "--address", "host:port or an http URL", repr(address))
    return url.geturl() if url.path.strip("/") else f"{url.scheme}://{url.netloc}{_PATH}"


def fetch_status(address: str) -> Mapping[str, Json]:
    """Ask a frontend for its status.

    Raises:
        InvalidSettings: the address is none.
        PenstockError: nobody answers there, or the answer is no status.
    """
    url = status_url(address)
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as page:
            found = json.loads(page.read(_LONGEST_PAGE))
    except urllib.error.HTTPError as error:
        with error:
            raise PenstockError(f"{url}: {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise PenstockError(f"{url}: {error.reason}") from error
    except (OSError, ValueError) as error:
        raise PenstockError(f"{url}: expected a status as JSON, found {error}") from error
    if not isinstance(found, dict):
        raise PenstockError(f"{url}: expected a JSON object, found {type(found).__name__}")
    return found


def status_tables(status: Mapping[str, Json]) -> list[Table]:
    """Return the status as tables: its plain values, then each list of objects."""
    from rich.table import Table

    facts = Table(show_header=False, pad_edge=False, box=None)
    facts.add_column(style="dim")
    facts.add_column()
    for name, value in status.items():
        if not _is_list_of_objects(value):
            facts.add_row(_words(name), _text(value))
    return [facts, *(_table(name, rows) for name, rows in _lists(status))]


def _lists(value: Mapping[str, Json]) -> Iterator[tuple[str, list[Mapping[str, Json]]]]:
    """Yield each list of objects, those inside its objects joined behind it."""
    for name, rows in value.items():
        if isinstance(rows, list) and _is_list_of_objects(rows):
            yield name, rows
            inner: dict[str, list[Mapping[str, Json]]] = {}
            for row in rows:
                for inner_name, inner_rows in _lists(row):
                    inner.setdefault(inner_name, []).extend(inner_rows)
            yield from inner.items()


def _table(name: str, rows: Sequence[Mapping[str, Json]]) -> Table:
    """Return objects as rows, or, few with many fields, as columns; empty fields are left out."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        title=_words(name),
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    fields = [
        field
        for field, value in rows[0].items()
        if not _is_list_of_objects(value) and any(row.get(field) not in ("", []) for row in rows)
    ]
    if len(fields) > _MANY_FIELDS and len(rows) <= _FEW_ROWS:
        first, *others = fields
        for heading in (first, *(_text(row.get(first)) for row in rows)):
            table.add_column(_words(heading), overflow="fold")
        for field in others:
            table.add_row(_words(field), *(_text(row.get(field)) for row in rows))
        return table
    for field in fields:
        is_number = all(isinstance(row.get(field), int | float) for row in rows)
        justify: JustifyMethod = "right" if is_number else "left"
        # On a narrow screen what is long is folded first, and nothing to less than a word.
        words = [*_words(field).split(), *(_text(row.get(field)) for row in rows)]
        least = min(max(map(len, words)), _SHORT_TEXT)
        table.add_column(_words(field), justify=justify, overflow="fold", min_width=least)
    for row in rows:
        table.add_row(*(_text(row.get(field)) for field in fields))
    return table


def _is_list_of_objects(value: Json) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _text(value: Json) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case None:
            return "–"
        case float():
            return f"{value:,.1f}"
        case list():
            return ", ".join(_text(one) for one in value) or "none"
        case _:
            return str(value)
