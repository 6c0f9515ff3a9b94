"""LitServe: one worker behind one web server; rows travel in JSON as base64."""

from __future__ import annotations

import base64
import os

import litserve

from bench.servers.programs.models import Rows, load, rows_of

MODEL = os.environ["PEER_MODEL"]


class PeerApi(litserve.LitAPI):  # type: ignore[misc]  # LitServe is not installed where mypy runs
    """One of the models, named by the environment."""

    def setup(self, _device: str) -> None:
        """Load the model; LitServe calls this once in the worker."""
        self._answer = load(MODEL)

    def decode_request(self, request: dict[str, str]) -> Rows:
        """Return the rows of a request."""
        return rows_of(MODEL, base64.b64decode(request["rows"]))

    def predict(self, rows: Rows) -> Rows:
        """Answer one request."""
        return self._answer(rows)

    def encode_response(self, rows: Rows) -> dict[str, str]:
        """Return the body of an answer."""
        return {"rows": base64.b64encode(rows.tobytes()).decode()}


if __name__ == "__main__":
    server = litserve.LitServer(PeerApi(), accelerator="cpu", workers_per_device=1, fast_queue=True)
    port = int(os.environ["PEER_PORT"])
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False)
