"""Can a pool's instances be what the plan says: latency, memory, share, batch, GPU class?"""

from __future__ import annotations

from collections.abc import Iterator

from penstock.domain.cluster import GpuClass
from penstock.domain.ids import GpuClassName
from penstock.domain.plan import Pool
from penstock.domain.profiles import LatencyProfile
from penstock.domain.units import Micros
from planner.verify.subject import Subject


def stage_faults(subject: Subject) -> Iterator[str]:
    """Yield the faults of one model's pools, each by itself."""
    for pool in subject.plan.pools:
        yield from _latency_faults(pool, subject.profiles[pool.gpu_class])
        yield from _memory_faults(pool, subject)
        yield from _choice_faults(pool, subject)
    model = subject.plan
    for name, profile in subject.profiles.items():
        if profile.blocks_digest and profile.blocks_digest != model.blocks_digest:
            yield f"model {model.model}: its profile on {name} is of other blocks"


def _latency_faults(pool: Pool, profile: LatencyProfile) -> Iterator[str]:
    sums = _stage_latencies(pool, profile)
    if pool.batch not in sums:
        yield f"pool {pool.id}: batch {pool.batch} at share {pool.share} was not profiled"
        return
    expected = [
        sums[min(batch for batch in sums if batch >= size)] for size in range(1, pool.batch + 1)
    ]
    if list(pool.latency_us_by_batch) != expected:
        yield f"pool {pool.id}: latencies {list(pool.latency_us_by_batch)}, profiled {expected}"


def _stage_latencies(pool: Pool, profile: LatencyProfile) -> dict[int, Micros]:
    """Return the latency of the whole stage by batch, for batches with a cell for each block."""
    cells: dict[int, dict[int, Micros]] = {}
    for row in profile.rows:
        if row.share == pool.share and pool.first_block <= row.block < pool.end_block:
            cells.setdefault(row.batch, {})[row.block] = row.latency_mean_us
    width = pool.end_block - pool.first_block
    return {batch: sum(each.values()) for batch, each in cells.items() if len(each) == width}


def _memory_faults(pool: Pool, subject: Subject) -> Iterator[str]:
    profile, gpu_class = subject.profiles[pool.gpu_class], subject.classes[pool.gpu_class]
    weights = sum(profile.weight_bytes[pool.first_block : pool.end_block])
    activations = max(profile.activation_bytes[pool.first_block : pool.end_block])
    needed = weights + pool.batch * activations + subject.options.workspace_bytes
    if pool.memory_bytes != needed:
        yield f"pool {pool.id}: memory_bytes is {pool.memory_bytes}, needs {needed}"
    if needed * pool.share.denominator > gpu_class.memory_bytes:
        yield f"pool {pool.id}: an instance does not fit into its share of the GPU's memory"


def _choice_faults(pool: Pool, subject: Subject) -> Iterator[str]:
    gpu_class: GpuClass = subject.classes[pool.gpu_class]
    if pool.share.denominator > gpu_class.max_share_denominator:
        yield f"pool {pool.id}: share {pool.share} is smaller than the class allows"
    if subject.formulation == "no-partition" and pool.share != 1:
        yield f"pool {pool.id}: share {pool.share}, without partition GPUs stay whole"
    if pool.batch > subject.options.max_batch:
        yield f"pool {pool.id}: batch {pool.batch} is larger than max_batch"
    if not _may_run_on(pool.gpu_class, subject):
        yield f"pool {pool.id}: model {subject.plan.model} must not run on {pool.gpu_class}"


def _may_run_on(gpu_class: GpuClassName, subject: Subject) -> bool:
    pinned, banned = subject.served.gpu_classes, subject.served.forbidden_gpu_classes
    return (not pinned or gpu_class in pinned) and gpu_class not in banned
