"""A model as a chain of layers in execution order, with what is live between them."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.domain.ids import ModelName
from penstock.domain.units import Bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One operator. Work and traffic are for one sample.

    Attributes:
        activation_bytes: activations read and written for one sample.
        weight_bytes: parameters and constants read, whatever the batch.
        launches: kernels it starts (0 for views and shape arithmetic).
    """

    name: str
    operator: str
    flops: int
    activation_bytes: Bytes
    weight_bytes: Bytes
    launches: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelGraph:
    """Layers in a topological order.

    Attributes:
        cut_bytes: per place between layer i and i+1, the bytes of one sample that are live
            there; ``len(layers) - 1`` entries.
    """

    model: ModelName
    layers: tuple[Layer, ...]
    cut_bytes: tuple[Bytes, ...]
