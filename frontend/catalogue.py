"""What is served: each planned model with the tensors a client sends and gets.

Knows nothing of files, of instances or of whether a model is ready.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from penstock.domain.ids import ModelName
from penstock.domain.plan import ModelPlan
from penstock.rpc.oip import ModelSignature, unknown_model


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueModel:
    """A model as clients see it and as it was planned."""

    signature: ModelSignature
    plan: ModelPlan

    @property
    def max_batch(self) -> int:
        """Largest batch planned anywhere; larger requests are split."""
        return max(pool.batch for pool in self.plan.pools)


class Catalogue:
    """The models of one plan, by name."""

    def __init__(self, models: Iterable[CatalogueModel]) -> None:
        self._models = {model.signature.name: model for model in models}

    def __iter__(self) -> Iterator[CatalogueModel]:
        """Go through the models in the plan's order."""
        return iter(self._models.values())

    def find(self, name: str) -> CatalogueModel:
        """Return a model.

        Raises:
            UnknownName: it is not served; the error lists those that are.
        """
        model = self._models.get(ModelName(name))
        if model is None:
            raise unknown_model(name, list(self._models))
        return model
