"""Where files lie: names and paths, never their content."""

from __future__ import annotations

from pathlib import Path

from penstock.domain.ids import GpuClassName, ModelName

BLOCKS_FILE = "blocks.json"
GRAPH_FILE = "graph.json"
CLUSTER_FILE = "cluster.yaml"
PLAN_FILE = "plan.json"


def profile_paths(root: Path, model: ModelName, gpu_class: GpuClassName) -> tuple[Path, Path]:
    """Return where the CSV and the head of a profile lie under the folder of all profiles."""
    stem = root / model / gpu_class
    return stem.with_name(f"{gpu_class}.csv"), stem.with_name(f"{gpu_class}.json")


def model_directory(repository: Path, model: ModelName, version: str) -> Path:
    """Return the folder of one version of a model in a model repository."""
    return repository / model / version


def block_file(index: int) -> str:
    """Return the name of a block's file beside ``blocks.json``."""
    return f"block_{index:02d}.pt2"
