"""Finds the planned models in the model repository: a plan names blocks, not tensors.

Knows nothing of the protocol beyond what a model can offer through it.
"""

from __future__ import annotations

from pathlib import Path

from frontend.catalogue import Catalogue, CatalogueModel
from penstock.domain.blocks import DYNAMIC, BlockPartition, TensorSpec
from penstock.domain.errors import InvalidGraph, InvalidPlan
from penstock.domain.plan import ModelPlan, Plan
from penstock.domain.tensors import DATATYPE_BYTES
from penstock.formats.codec import digest
from penstock.formats.graphs import read_blocks
from penstock.formats.layout import BLOCKS_FILE, model_directory
from penstock.rpc.oip import ModelSignature


def read_catalogue(plan: Plan, repository: Path) -> Catalogue:
    """Look each planned model up in the repository.

    Raises:
        InvalidPlan: the repository does not hold the blocks that were planned.
        InvalidGraph: a model's tensors cannot be served.
    """
    return Catalogue(_read_model(model, repository) for model in plan.models)


def _read_model(plan: ModelPlan, repository: Path) -> CatalogueModel:
    directory = model_directory(repository, plan.model, "1").parent
    found = _versions(directory)
    for path in found:
        text = path.read_text(encoding="utf-8")
        if plan.blocks_digest in ("", digest(text)):
            return CatalogueModel(signature=_signature(read_blocks(text, str(path))), plan=plan)
    versions = ", ".join(path.parent.name for path in found) or "none"
    expected = f"a version with {BLOCKS_FILE} of SHA-256 {plan.blocks_digest[:12] or 'any'}"
    raise InvalidPlan(str(directory), "", expected, f"versions: {versions}")


def _versions(directory: Path) -> list[Path]:
    """Return the block files of a model's versions, newest first."""
    paths = [path for path in directory.glob(f"*/{BLOCKS_FILE}") if path.parent.name.isdigit()]
    return sorted(paths, key=lambda path: int(path.parent.name), reverse=True)


def _signature(partition: BlockPartition) -> ModelSignature:
    for kind, specs in (("inputs", partition.inputs), ("outputs", partition.outputs)):
        for index, spec in enumerate(specs):
            _check_spec(spec, f"model {partition.model}", f"{kind}[{index}]")
    if not partition.inputs or not partition.outputs:
        source = f"model {partition.model}"
        raise InvalidGraph(source, "inputs, outputs", "at least one each", "none")
    return ModelSignature(
        name=partition.model,
        version=partition.version,
        inputs=partition.inputs,
        outputs=partition.outputs,
    )


def _check_spec(spec: TensorSpec, source: str, place: str) -> None:
    if spec.datatype not in DATATYPE_BYTES:
        expected = f"one of {', '.join(DATATYPE_BYTES)}"
        raise InvalidGraph(source, f"{place}.datatype", expected, spec.datatype)
    batch_first = spec.shape[:1] == (DYNAMIC,) and all(size > 0 for size in spec.shape[1:])
    if not batch_first:
        expected = "the batch (-1) as first axis and fixed sizes behind it"
        raise InvalidGraph(source, f"{place}.shape", expected, str(list(spec.shape)))
