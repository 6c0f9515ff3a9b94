"""The demo's set-up: train, cut, estimate or measure, plan. Leaves files that other verbs can read.

Knows nothing of processes or of load.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from demo.digits import (
    IMAGES,
    SCORES,
    Digits,
    DigitsNet,
    accuracy,
    read_digits,
    scores_of,
    train,
)
from penstock.domain.blocks import BlockPartition
from penstock.domain.cluster import Cluster, GpuClass
from penstock.domain.errors import InvalidCluster
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.plan import Plan
from penstock.domain.profiles import LatencyProfile
from penstock.formats.clusters import read_cluster
from penstock.formats.codec import digest
from penstock.formats.layout import BLOCKS_FILE, model_directory, profile_paths
from penstock.formats.plans import write_plan
from penstock.formats.profiles import write_profile
from penstock.options import profile_arguments
from planner.planning import make_plan
from profiler.cut import cut_model
from profiler.estimate import estimate_profile, shares_of
from profiler.files import load_profile
from profiler.shares import measure_at_shares

MODEL = ModelName("digits")
VERSION = "1"
Profiles = Mapping[tuple[ModelName, GpuClassName], LatencyProfile]


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Where the demo keeps its files."""

    root: Path

    @property
    def repository(self) -> Path:
        """Model repository."""
        return self.root / "models"

    @property
    def profiles(self) -> Path:
        """Profiles, one file pair per GPU class."""
        return self.root / "profiles"

    @property
    def plan(self) -> Path:
        """The plan."""
        return self.root / "plan.json"

    @property
    def whole_plan(self) -> Path:
        """The plan without partitioning."""
        return self.root / "plan-no-partition.json"

    @property
    def images(self) -> Path:
        """Test images and labels, as `penstock bench --inputs` takes them."""
        return self.root / "test-images.npz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """All that the demo serves with and checks against.

    Attributes:
        scores: the unsplit model's answers to the test images, computed here.
        whole_plan: the best plan without partitioning.
        emulated: devices are; else they are shares of this machine's GPU.
    """

    cluster: Cluster
    digits: Digits
    scores: np.ndarray
    accuracy: float
    partition: BlockPartition
    profiles: Profiles
    plan: Plan
    whole_plan: Plan
    emulated: bool = True


def prepare(
    cluster_file: Path, paths: Paths, say: Callable[[str], None], *, emulated: bool = True
) -> Prepared:
    """Make everything from the cluster file and the data.

    Args:
        cluster_file: the fleet; serves the one model ``digits``.
        paths: written to; what is there is replaced.
        say: told each step as it begins.
        emulated: estimate the fleet's classes; else measure shares of this machine's GPU, the one
            class of the fleet.

    Raises:
        InvalidCluster: the file is wrong, or asks for another model.
        Infeasible: no plan meets the SLO on that fleet, partitioned or not.
        PenstockError: there is no GPU here, or no way to hold to a share of it.
    """
    cluster = read_cluster(cluster_file.read_text(encoding="utf-8"), str(cluster_file))
    _check(cluster, str(cluster_file), emulated=emulated)
    say("Training a residual CNN on 1,347 real images of digits")
    # One thread: with more, a busy neighbour makes these small kernels wait for each other.
    torch.set_num_threads(1)
    digits = read_digits()
    model = train(digits)
    scores = scores_of(model, digits.test_images)
    say("Exporting it and cutting it into blocks")
    partition = _cut(model, digits, paths)
    if emulated:
        say("Estimating each block on each GPU class of the fleet")
        profiles = _estimate(cluster, partition, paths)
    else:
        say("Measuring each block on shares of this machine's GPU")
        profiles = _measure(cluster, paths)
    say("Planning")
    blocks = model_directory(paths.repository, MODEL, VERSION) / BLOCKS_FILE
    digests = {MODEL: digest(blocks.read_bytes())}
    plan = make_plan(cluster, profiles, blocks_digests=digests)
    whole_plan = make_plan(cluster, profiles, partition=False, blocks_digests=digests)
    paths.plan.write_text(write_plan(plan), encoding="utf-8")
    paths.whole_plan.write_text(write_plan(whole_plan), encoding="utf-8")
    np.savez(paths.images, images=digits.test_images)
    return Prepared(
        cluster=cluster,
        digits=digits,
        scores=scores,
        accuracy=accuracy(scores, digits.test_labels),
        partition=partition,
        profiles=profiles,
        plan=plan,
        whole_plan=whole_plan,
        emulated=emulated,
    )


def _check(cluster: Cluster, source: str, *, emulated: bool) -> None:
    names = [each.name for each in cluster.models]
    if names != [MODEL]:
        raise InvalidCluster(source, "models", f"the one model {MODEL!r}", f"{names}")
    if not emulated:
        if [each.count for each in cluster.gpu_classes] != [1]:
            found = ", ".join(f"{each.count} {each.name}" for each in cluster.gpu_classes)
            raise InvalidCluster(source, "gpu_classes", "one class of one GPU: this one", found)
        return
    for index, each in enumerate(cluster.gpu_classes):
        if each.rates is None:
            expected = "peak_tflops, memory_gbytes_per_s and launch_us, or a datasheet"
            raise InvalidCluster(source, f"gpu_classes[{index}]", expected, "none of them")


def _cut(model: DigitsNet, digits: Digits, paths: Paths) -> BlockPartition:
    return cut_model(
        model,
        {IMAGES: torch.from_numpy(digits.test_images[:2])},
        model=MODEL,
        version=VERSION,
        repository=paths.repository,
        output_names=[SCORES],
    )


def _estimate(cluster: Cluster, partition: BlockPartition, paths: Paths) -> Profiles:
    profiles: dict[tuple[ModelName, GpuClassName], LatencyProfile] = {}
    batches = range(1, cluster.options.max_batch + 1)
    for gpu_class in cluster.gpu_classes:
        profile = estimate_profile(partition, gpu_class, batches, shares_of(gpu_class))
        profiles[MODEL, gpu_class.name] = profile
        rows, head = write_profile(profile)
        rows_path, head_path = profile_paths(paths.profiles, MODEL, gpu_class.name)
        rows_path.parent.mkdir(parents=True, exist_ok=True)
        rows_path.write_text(rows, encoding="utf-8")
        head_path.write_text(head, encoding="utf-8")
    return profiles


def _measure(cluster: Cluster, paths: Paths) -> Profiles:
    """Measure every share of the GPU as it will be served, each in a process held to it."""
    (gpu_class,), (model,) = cluster.gpu_classes, cluster.models
    arguments = [
        MODEL, "--gpu-class", gpu_class.name, "--batches", f"1-{cluster.options.max_batch}",
        "--repository", str(paths.repository), "--profiles", str(paths.profiles),
        "--seconds", "0.3", *profile_arguments(model.execution),
    ]  # fmt: skip
    shares = [each for each in shares_of(gpu_class) if _is_measured(each.denominator, gpu_class)]
    measure_at_shares(shares, "auto", "cuda", arguments, lambda _done, _in_all: None)
    paths_of_profile = profile_paths(paths.profiles, MODEL, gpu_class.name)
    return {(MODEL, gpu_class.name): load_profile(*paths_of_profile)}


def _is_measured(parts: int, gpu_class: GpuClass) -> bool:
    """Whether a share is worth a process and its start: those that fill the GPU together."""
    return gpu_class.max_share_denominator % parts == 0
