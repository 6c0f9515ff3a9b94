"""Baselines: what a fleet does without this planner's main idea.

*No partition*: every model whole, on whole GPUs, still with the best batch and GPU class.
"""

from __future__ import annotations

from dataclasses import replace

from planner.inputs import PlannerInputs


def no_partition(inputs: PlannerInputs) -> PlannerInputs:
    """Return the inputs with one stage and whole GPUs only."""
    return replace(
        inputs,
        gpu_classes=tuple(replace(each, max_share_denominator=1) for each in inputs.gpu_classes),
        models=tuple(replace(each, max_stages=1) for each in inputs.models),
        options=replace(inputs.options, max_stages=1),
    )
