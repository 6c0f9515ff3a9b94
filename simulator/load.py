"""The load of a trace on a plan."""

from __future__ import annotations

import random

from penstock.arrivals import Replay, offered_rps, scale, traced_load
from penstock.domain.arrivals import Load
from penstock.domain.errors import UnknownName
from penstock.domain.plan import Plan


def replayed_load(plan: Plan, replay: Replay, load: float | None, seed: int) -> Load:
    """Return what a trace asks of a plan's models, one row per request unless it tells.

    Args:
        plan: its models are asked.
        replay: the trace, its window and its scale.
        load: offer each model that is asked so many times its planned throughput; None: as the
            trace has it.
        seed: of all that is drawn.

    Raises:
        InvalidSettings: no request is left, or too many are.
        UnknownName: the trace names a model that the plan does not have.
    """
    planned_rps = {model.model: model.throughput_rps for model in plan.models}
    dice = random.Random(seed)
    traced = traced_load(replay.trace, replay.window, planned_rps, 1, dice)
    rates = offered_rps(traced)
    for model in rates:
        if model not in planned_rps:
            raise UnknownName("model of the trace", model, planned_rps)
    if load is not None:
        factors = {model: load * planned_rps[model] / rate for model, rate in rates.items()}
        return scale(traced, factors, dice)
    if replay.rate_scale is not None:
        return scale(traced, dict.fromkeys(rates, replay.rate_scale), dice)
    return traced
