"""Triton's Python backend: the `model.py` of a model repository."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from bench.servers.programs.models import SHAPES, Rows, load


class TritonPythonModel:
    """One of the models, named by the environment."""

    def initialize(self, _arguments: dict[str, str]) -> None:
        """Load the model; Triton calls this once."""
        model = os.environ["PEER_MODEL"]
        self._shape = SHAPES[model]
        self._answer = load(model)

    def execute(self, requests: Sequence[Any]) -> list[object]:
        """Answer all requests of a batch with one computation."""
        asked = [
            pb_utils.get_input_tensor_by_name(each, self._shape.input).as_numpy()
            for each in requests
        ]
        if len(asked) == 1:
            return [self._response(self._answer(asked[0]))]
        ends = np.cumsum([len(each) for each in asked])[:-1]
        answers = np.split(self._answer(np.concatenate(asked)), ends)
        return [self._response(each) for each in answers]

    def _response(self, rows: Rows) -> object:
        return pb_utils.InferenceResponse([pb_utils.Tensor(self._shape.output, rows)])
