"""Calls of CUDA's driver by name. cuda-bindings is imported when they are made, never before."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from penstock.domain.errors import PenstockError

BINDINGS = "cuda.bindings.driver"

_FAILURES = (RuntimeError, OSError, AttributeError)


class DriverCalls:
    """Checks the status of each call, and returns what else it returns.

    Args:
        refused: makes the error to raise, of words.
        bindings: what stands for cuda-bindings' driver module.

    Attributes:
        types: the bindings, for their types and flags.

    Raises:
        PenstockError: as `refused` makes it; there are no bindings.
    """

    def __init__(
        self,
        refused: Callable[[str], PenstockError],
        bindings: Any = None,  # noqa: ANN401 - a module without types
    ) -> None:
        self._refused = refused
        self.types = bindings or self._imported()

    def __call__(self, name: str, *arguments: object) -> Any:  # noqa: ANN401 - as many as calls
        """Call the driver.

        Raises:
            PenstockError: it says no.
        """
        try:
            status, *values = getattr(self.types, name)(*arguments)
        except _FAILURES as error:  # no driver on this host, or one that lacks the call
            raise self._refused(f"{name}: {error}") from error
        if int(status) != 0:
            raise self._refused(f"{name}: {getattr(status, 'name', status)}")
        return values[0] if len(values) == 1 else values

    def _imported(self) -> Any:  # noqa: ANN401 - a module without types
        try:
            return importlib.import_module(BINDINGS)
        except ImportError as error:
            raise self._refused(
                "cuda-bindings is not installed: pip install cuda-bindings"
            ) from error
