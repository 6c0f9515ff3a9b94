"""A few pages over HTTP/1.1: just enough for Prometheus, probes and a browser.

GET and HEAD only, one request per connection, short headers, a time limit: a slow or hostile
client costs one small task. Knows nothing of what the pages say.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeAlias

_HEADER_BYTES = 8192
_PATIENCE_S = 5.0
_LOG = logging.getLogger("penstock.frontend")


@dataclass(frozen=True, slots=True)
class Page:
    """What a path answers."""

    content_type: str
    body: bytes
    status: HTTPStatus = HTTPStatus.OK


Pages: TypeAlias = Mapping[str, Callable[[], Page]]


def text_page(text: str, status: HTTPStatus = HTTPStatus.OK) -> Page:
    """Return a page of plain text."""
    return Page("text/plain; charset=utf-8", text.encode(), status)


async def serve_pages(pages: Pages, host: str, port: int) -> asyncio.Server:
    """Start answering.

    Args:
        pages: what makes each path's page.
        host: address to listen on.
        port: 0 lets the system choose.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await _answer(pages, reader, writer)
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            pass
        except asyncio.LimitOverrunError:
            writer.write(_head(text_page("", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)))
        finally:
            writer.close()

    return await asyncio.start_server(answer, host, port, limit=_HEADER_BYTES)


async def _answer(pages: Pages, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0].decode("latin-1")
    page = _page(pages, method, path)
    writer.write(_head(page))
    if method != b"HEAD":
        writer.write(page.body)
    await writer.drain()


def _page(pages: Pages, method: bytes, path: str) -> Page:
    if method not in (b"GET", b"HEAD"):
        return text_page("only GET and HEAD\n", HTTPStatus.METHOD_NOT_ALLOWED)
    make = pages.get(path)
    if make is None:
        known = "".join(f"{each}\n" for each in pages)
        return text_page(f"no such page; there are:\n{known}", HTTPStatus.NOT_FOUND)
    try:
        return make()
    except Exception:
        _LOG.exception("page %s failed", path)
        return text_page("this page failed; the log says why\n", HTTPStatus.INTERNAL_SERVER_ERROR)


def _head(page: Page) -> bytes:
    lines = (
        f"HTTP/1.1 {page.status.value} {page.status.phrase}",
        f"Content-Type: {page.content_type}",
        f"Content-Length: {len(page.body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
