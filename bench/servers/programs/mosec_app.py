"""Mosec: one worker behind its Rust front, raw bytes in and out."""

from __future__ import annotations

import os

from mosec import Server, Worker

from bench.servers.programs.models import Rows, load, rows_of

MODEL = os.environ["PEER_MODEL"]


class PeerWorker(Worker):  # type: ignore[misc]  # mosec is not installed where mypy runs
    """One of the models, named by the environment."""

    def __init__(self) -> None:
        super().__init__()
        self._answer = load(MODEL)

    def deserialize(self, data: bytes) -> Rows:
        """Return the rows of a request."""
        return rows_of(MODEL, data)

    def forward(self, data: Rows) -> Rows:
        """Answer one request."""
        return self._answer(data)

    def serialize(self, data: Rows) -> bytes:
        """Return the body of an answer."""
        return data.tobytes()


if __name__ == "__main__":
    server = Server()
    server.append_worker(PeerWorker, num=1)
    server.run()
