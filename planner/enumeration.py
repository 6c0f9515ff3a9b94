"""The search for paths: every way through a model that memory, shares and the SLO allow.

Paths are grown stage by stage, as arrays; what can no longer meet the SLO is dropped on the way.
Knows nothing of counts, flows or the solver.

Stages of one path have equal batches unless `rebatch` is set. Then, with B the largest batch so
far, a stage's batch divides B (the group of B samples is split and runs one after another) or is
a multiple of it (samples are gathered).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from penstock.domain.cluster import GpuClass
from planner.candidates import Rates, batch_build_us
from planner.inputs import ModelInputs, PlannerInputs
from planner.paths import Grown, Ints, PathTable, Stages, by_class_pair

_NO_LIMIT = np.iinfo(np.int64).max // 4


def enumerate_paths(
    inputs: PlannerInputs, rates: Rates, *, limited: bool = True
) -> tuple[PathTable, ...]:
    """Return every path within the SLO of its model, model by model.

    Args:
        inputs: cluster, models and options.
        rates: samples/s at which batches are assumed to fill, per model; infinite: at once.
        limited: keep to the SLO; False keeps every path that memory allows.
    """
    return tuple(
        model_paths(model, inputs, rates[model.served.name], limited=limited)
        for model in inputs.models
    )


def model_paths(
    model: ModelInputs, inputs: PlannerInputs, rate_rps: float, *, limited: bool = True
) -> PathTable:
    """Return the paths of one model, in a fixed order."""
    rows = _fitting_stages(model, inputs)
    table = PathTable(model, inputs, rows)
    table.fill(list(_Growth(model, inputs, rows, rate_rps, limited=limited).complete()))
    return table


def _fitting_stages(model: ModelInputs, inputs: PlannerInputs) -> Stages:
    spans = [(at, end) for at in range(model.blocks) for end in range(at + 1, model.blocks + 1)]
    first, end = np.array(spans, dtype=np.int64).reshape(-1, 2).T
    sample_bytes = np.array([model.stage_memory_bytes(*each, 1) for each in spans])
    fixed_bytes = np.array([model.stage_memory_bytes(*each, 0) for each in spans])
    lots: list[Ints] = []
    for number, gpu_class in enumerate(inputs.gpu_classes):
        if not model.may_use(gpu_class.name):
            continue
        for m, batch, ends_us in _timed(model, gpu_class, inputs.options.max_batch):
            needs_bytes = fixed_bytes + batch * (sample_bytes - fixed_bytes)
            fits = np.flatnonzero(needs_bytes <= gpu_class.memory_bytes // m)
            place = np.broadcast_to([[number], [m], [batch]], (3, len(fits)))
            latency_us = ends_us[end[fits]] - ends_us[first[fits]]
            lots.append(np.vstack([first[fits], end[fits], place, latency_us]))
    columns = np.hstack([np.empty((6, 0), dtype=np.int64), *lots])
    first, end, classes, m_s, batches, latencies_us = columns
    return Stages(
        first=first, end=end, gpu_class=classes, m=m_s, batch=batches, latency_us=latencies_us
    )


def _timed(
    model: ModelInputs, gpu_class: GpuClass, max_batch: int
) -> Iterator[tuple[int, int, Ints]]:
    """Yield shares and batches on a class, with when each block begins and ends (blocks + 1,)."""
    table = model.latencies[gpu_class.name]
    for share in table.shares:
        if share.numerator != 1 or share.denominator > gpu_class.max_share_denominator:
            continue
        for batch in (each for each in table.batches(share) if each <= max_batch):
            cells = [table.stage_latency_us(at, at + 1, batch, share) for at in range(model.blocks)]
            yield share.denominator, batch, np.cumsum([0, *cells])


class _Growth:
    """Grows paths stage by stage; drops those that can no longer meet the budget."""

    def __init__(
        self,
        model: ModelInputs,
        inputs: PlannerInputs,
        rows: Stages,
        rate_rps: float,
        *,
        limited: bool,
    ) -> None:
        options = inputs.options
        self._blocks = model.blocks
        self._rows = rows
        self._budget_us = model.budget_us if limited else _NO_LIMIT
        self._hop_us = options.hop_overhead_us
        self._max_stages = model.max_stages
        self._rebatch = options.rebatch
        self._transfer_us = by_class_pair(inputs.gpu_classes, model.cut_bytes, exact=False).astype(
            np.int64
        )
        self._batches = [int(each) for each in np.unique(rows.batch)]
        self._build_us = {
            batch: batch_build_us(batch, rate_rps, options.batch_build_factor)
            for batch in self._batches
        }
        self._least_tail_us = {batch: self._least_tails(batch) for batch in self._batches}
        self._starting: dict[tuple[int, int, int], Ints] = self._by_start()

    def complete(self) -> Iterator[tuple[Grown, int]]:
        """Yield complete paths in lots with the same batch and number of stages."""
        grown = self._first_stages()
        for position in range(self._max_stages):
            for (end, batch), lot in grown.items():
                if end == self._blocks:
                    yield lot, self._build_us[batch]
            if position + 1 < self._max_stages:
                grown = self._extended(grown, is_last=position + 2 == self._max_stages)

    def _by_start(self) -> dict[tuple[int, int, int], Ints]:
        rows = self._rows
        found: defaultdict[tuple[int, int, int], list[int]] = defaultdict(list)
        keys = zip(rows.first.tolist(), rows.end.tolist(), rows.batch.tolist(), strict=True)
        for row, key in enumerate(keys):
            found[key].append(row)
        return {key: np.array(each, dtype=np.int64) for key, each in found.items()}

    def _least_tails(self, batch: int) -> Ints:
        """Return, for each block, what a group of `batch` takes from there on at the very least."""
        rows = self._rows
        single = rows.end == rows.first + 1
        if not self._rebatch:
            single &= rows.batch == batch
        tails = np.zeros(self._blocks + 1, dtype=np.int64)
        for block in reversed(range(self._blocks)):
            at = rows.where(single & (rows.first == block))
            group = np.maximum(batch, rows.batch[at])
            least = (rows.latency_us[at] * group // rows.batch[at]).min(initial=_NO_LIMIT)
            tails[block] = tails[block + 1] + (0 if least == _NO_LIMIT else least)
        return tails

    def _first_stages(self) -> dict[tuple[int, int], Grown]:
        grown = {}
        for (first, end, batch), stages in self._starting.items():
            if first == 0 and (self._max_stages > 1 or end == self._blocks):
                spent_us = 2 * self._hop_us + self._rows.latency_us[stages]
                kept = spent_us + self._still_us(end, batch) <= self._budget_us
                if kept.any():
                    grown[end, batch] = Grown(stages=stages[kept, None], spent_us=spent_us[kept])
        return grown

    def _still_us(self, end: int, batch: int) -> int:
        return int(self._least_tail_us[batch][end]) + self._build_us[batch]

    def _extended(
        self, grown: dict[tuple[int, int], Grown], *, is_last: bool
    ) -> dict[tuple[int, int], Grown]:
        found: defaultdict[tuple[int, int], list[Grown]] = defaultdict(list)
        for (first, group), lot in grown.items():
            for end in range(self._blocks if is_last else first + 1, self._blocks + 1):
                for batch in self._matching(group):
                    stages = self._starting.get((first, end, batch))
                    if first < self._blocks and stages is not None:
                        longer = self._joined(lot, stages, first, end, (group, batch))
                        if len(longer.spent_us):
                            found[end, max(group, batch)].append(longer)
        return {
            key: Grown(
                stages=np.concatenate([each.stages for each in lots]),
                spent_us=np.concatenate([each.spent_us for each in lots]),
            )
            for key, lots in found.items()
        }

    def _matching(self, group: int) -> list[int]:
        if not self._rebatch:
            return [group]
        return [each for each in self._batches if group % each == 0 or each % group == 0]

    def _joined(
        self, lot: Grown, stages: Ints, first: int, end: int, batches: tuple[int, int]
    ) -> Grown:
        """Return every partial path of a lot with every stage that follows, within the budget."""
        rows, (group, batch) = self._rows, batches
        after = max(group, batch)
        senders = rows.gpu_class[lot.stages[:, -1]]
        moving_us = group * self._transfer_us[first - 1][senders][:, rows.gpu_class[stages]]
        stage_us = rows.latency_us[stages] * (after // batch) + self._hop_us
        spent_us = lot.spent_us[:, None] + moving_us + stage_us[None, :]
        left, right = np.nonzero(spent_us + self._still_us(end, after) <= self._budget_us)
        return Grown(
            stages=np.concatenate([lot.stages[left], stages[right, None]], axis=1),
            spent_us=spent_us[left, right],
        )
