"""The planner's files: opens paths and hands their text to `penstock.formats`."""

from __future__ import annotations

from pathlib import Path

from penstock.domain.cluster import Cluster
from penstock.domain.errors import InvalidInput, InvalidProfile
from penstock.domain.ids import ModelName
from penstock.domain.plan import Plan
from penstock.formats.clusters import read_cluster
from penstock.formats.codec import digest
from penstock.formats.layout import BLOCKS_FILE, model_directory, profile_paths
from penstock.formats.plans import read_plan, write_plan
from penstock.formats.profiles import read_profile
from planner.inputs import Profiles


def load_cluster(path: Path) -> Cluster:
    """Read ``cluster.yaml``.

    Raises:
        InvalidCluster: the file contradicts itself or its schema.
        InvalidInput: it is not there, or not text.
    """
    return read_cluster(_text(path), str(path))


def load_profiles(root: Path, cluster: Cluster) -> Profiles:
    """Read the profile of each model on each GPU class of the cluster.

    Raises:
        InvalidProfile: a file contradicts itself or its schema.
        InvalidInput: a file is not there.
    """
    profiles = {}
    for model in cluster.models:
        for gpu_class in cluster.gpu_classes:
            rows, head = profile_paths(root, model.name, gpu_class.name)
            profile = read_profile(_text(rows), _text(head), str(rows))
            found = profile.model, profile.gpu_class
            if found != (model.name, gpu_class.name):
                expected = f"that of {model.name} on {gpu_class.name}"
                raise InvalidProfile(str(head), "", expected, f"that of {found[0]} on {found[1]}")
            profiles[model.name, gpu_class.name] = profile
    return profiles


def load_plan(path: Path) -> Plan:
    """Read ``plan.json``.

    Raises:
        InvalidPlan: the file contradicts itself or its schema.
        InvalidInput: it is not there, or not text.
    """
    return read_plan(_text(path), str(path))


def save_plan(plan: Plan, path: Path) -> None:
    """Write ``plan.json``, making its directory if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(write_plan(plan), encoding="utf-8")


def load_blocks_digests(repository: Path, cluster: Cluster) -> dict[ModelName, str]:
    """Return the digest of each model's newest ``blocks.json``.

    Raises:
        InvalidInput: the repository holds no version of a model.
    """
    found = {}
    for model in cluster.models:
        versions = sorted(int(each.name) for each in _versions(repository / model.name))
        if not versions:
            expected = f"a version such as 1/{BLOCKS_FILE}"
            raise InvalidInput(str(repository / model.name), "", expected, "none")
        directory = model_directory(repository, model.name, str(versions[-1]))
        found[model.name] = digest(_text(Path(directory) / BLOCKS_FILE))
    return found


def _versions(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    return [each for each in directory.iterdir() if each.name.isdecimal()]


def _text(path: Path) -> str:
    if not path.is_file():
        raise InvalidInput(str(path), "", "a file", "none")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(str(path), "", "UTF-8 text", str(error)) from None
