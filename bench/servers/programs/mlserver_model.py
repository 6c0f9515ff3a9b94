"""MLServer: a custom runtime."""

from __future__ import annotations

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from bench.servers.programs.models import SHAPES, load


class PeerModel(MLModel):  # type: ignore[misc]  # MLServer is not installed where mypy runs
    """One of the models, named as in its settings."""

    async def load(self) -> bool:
        """Load the model; MLServer calls this once."""
        self._answer = load(self.name)
        self._output = SHAPES[self.name].output
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one request."""
        rows = NumpyCodec.decode_input(payload.inputs[0])
        answer = NumpyCodec.encode_output(self._output, self._answer(rows))
        return InferenceResponse(model_name=self.name, outputs=[answer])
