"""The difference of two plans in words and as plain values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from penstock.domain.units import Micros, ms_from_micros
from planner.diff import (
    ClassChange,
    ModelChange,
    PipelineChange,
    PlanDiff,
    StageChange,
    StageName,
)
from planner.words import blocks, milliseconds, part_of

_MARKS = {"added": "+", "removed": "-", "changed": "~"}


def diff_text(diff: PlanDiff) -> str:
    """Return the difference for a person: what is the same is left out."""
    return "\n".join(_lines(diff))


def diff_facts(diff: PlanDiff) -> dict[str, Any]:
    """Return the difference as plain values for programs; what is the same is in it too."""
    return {
        "same": diff.same,
        "instances": {"kept": diff.kept, "started": diff.started, "stopped": diff.stopped},
        "cost_per_hour": list(diff.cost_per_hour),
        "gpus": {
            each.gpu_class: {"used": list(each.used), "count": list(each.count)}
            for each in diff.gpus
        },
        "models": {
            each.model: {
                "throughput_rps": list(each.rps),
                "slo_us": list(each.slo_us),
                "margin_us": list(each.margin_us),
            }
            for each in diff.models
        },
        "pools": [_stage_facts(each) for each in diff.stages],
        "pipelines": [_pipeline_facts(each) for each in diff.pipelines],
    }


def _stage_facts(change: StageChange) -> dict[str, Any]:
    return {
        "model": change.model,
        **_named(change.stage),
        "instances": list(change.instances),
        "batches": [list(each) for each in change.batches],
    }


def _pipeline_facts(change: PipelineChange) -> dict[str, Any]:
    return {
        "model": change.model,
        "change": change.kind,
        "stages": [_named(each) for each in change.stages],
        "throughput_rps": list(change.rps),
        "batches": [[list(each) for each in side] for side in change.batches],
    }


def _named(stage: StageName) -> dict[str, Any]:
    return {
        "first_block": stage.first_block,
        "end_block": stage.end_block,
        "gpu_class": stage.gpu_class,
        "share": str(stage.share),
    }


def _lines(diff: PlanDiff) -> Iterator[str]:
    if diff.same:
        yield f"no difference; {diff.kept} instances kept"
        return
    yield from _table("models", [_model_row(each) for each in diff.models if each.changed])
    yield from _table("GPUs used", [_class_row(each) for each in diff.gpus if each.changed])
    costs = diff.cost_per_hour
    if costs[0] is not None and costs[1] is not None and costs[0] != costs[1]:
        more = costs[1] - costs[0]
        yield from _table(
            "cost", [("per hour", f"{costs[0]:.2f} → {costs[1]:.2f}", f"{more:+.2f}")]
        )
    yield from _table(
        "pipelines", [_pipeline_row(each) for each in diff.pipelines if each.kind != "same"]
    )
    yield from _table(
        "pools (instances)", [_stage_row(each) for each in diff.stages if each.changed]
    )
    yield f"instances: {diff.kept} kept, {diff.started} started, {diff.stopped} stopped"


def _table(head: str, rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield rows with aligned columns below a heading; nothing without rows."""
    if not rows:
        return
    yield head
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f"  {'  '.join(cells)}".rstrip()


def _model_row(change: ModelChange) -> tuple[str, ...]:
    before, after = change.rps
    if before is None or after is None:
        return change.model, "added" if before is None else "removed", "", ""
    part = f"{after / before - 1:+.1%}" if before else ""
    return change.model, f"{before:.1f} → {after:.1f} samples/s", part, _budget(change)


def _budget(change: ModelChange) -> str:
    """Return what of SLO and margin changes."""
    told = []
    for name, (before, after) in (("SLO", change.slo_us), ("margin", change.margin_us)):
        if before is not None and after is not None and before != after:
            told.append(f"{name} {_bare_ms(before)} → {milliseconds(after)}")
    return ", ".join(told)


def _bare_ms(us: Micros) -> str:
    return milliseconds(us).removesuffix(" ms") if us else f"{ms_from_micros(us):g}"


def _class_row(change: ClassChange) -> tuple[str, ...]:
    (before, after), (there, now) = change.used, change.count
    fleet = f"of {now}" if there == now else f"of {there} → {now}"
    return change.gpu_class, f"{before} → {after}", fleet


def _pipeline_row(change: PipelineChange) -> tuple[str, ...]:
    before, after = change.rps
    told = [f"{each:.1f}" for each in (before, after) if each is not None]
    sizes = [_sizes(each) for each in change.batches if each]
    batches = sizes[0] if len(set(sizes)) == 1 else " → ".join(sizes)
    way = " → ".join(_stage(each) for each in change.stages)
    flow = f"{' → '.join(told)} samples/s"
    return _MARKS[change.kind], change.model, flow, f"batch {batches}", way


def _sizes(batches: Sequence[Sequence[int]]) -> str:
    return " and ".join(
        str(each[0]) if len(set(each)) == 1 else "/".join(map(str, each)) for each in batches
    )


def _stage_row(change: StageChange) -> tuple[str, ...]:
    before, after = change.instances
    sizes = ["/".join(map(str, each)) for each in change.batches if each]
    batches = sizes[0] if len(set(sizes)) == 1 else " → ".join(sizes)
    return change.model, _stage(change.stage), f"{before} → {after}", f"batch {batches}"


def _stage(stage: StageName) -> str:
    return (
        f"{blocks(stage.first_block, stage.end_block)} on {part_of(stage.share, stage.gpu_class)}"
    )
