"""What more would be worth, in words and as plain values; and what binds a plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from penstock.domain.plan import Plan
from penstock.domain.units import ms_from_micros
from planner.outlook import ClassOutlook, Gain, Outlook, SloOutlook
from planner.usage import latency_parts, pool_use
from planner.words import blocks, listed, number, part_of, valued


def outlook_text(outlook: Outlook, plan: Plan) -> str:
    """Return what binds and what more would be worth, a line each."""
    return "\n".join([*_binding(outlook, plan), *_worth(outlook)])


def outlook_facts(outlook: Outlook, plan: Plan) -> dict[str, Any]:
    """Return the same as plain values for programs."""
    return {
        "binds": list(_binding(outlook, plan)),
        "unit": outlook.unit,
        "value": outlook.value,
        "relaxed_value": outlook.relaxed_value,
        "seconds_each": outlook.seconds_each,
        "gpu_classes": [_class_facts(each) for each in outlook.classes],
        "slos": [asdict(each) for each in outlook.slos],
        "next_gpu": outlook.next_gpu,
        "next_gpu_per_price": outlook.next_gpu_per_price,
    }


def _class_facts(each: ClassOutlook) -> dict[str, Any]:
    return {
        **asdict(each),
        "shadow_per_price": each.shadow_per_price,
        "gain_per_price": each.gain.per(each.price_per_hour),
    }


def _binding(outlook: Outlook, plan: Plan) -> Iterator[str]:
    """Say what binds: classes, links, SLOs."""
    for each in outlook.classes:
        if each.used_up:
            yield f"Binds: GPU class {each.name}, {each.used} of {each.usable} in use"
    yield from _links(plan)
    slos = [each for each in outlook.slos if each.relaxed > 0 and each.model is not None]
    slos = slos or [each for each in outlook.slos if each.relaxed > 0]
    for slo in slos:
        yield f"Binds: {_whose(slo, plan)}; {_slack(slo, plan)}"


def _links(plan: Plan) -> Iterator[str]:
    for model in plan.models:
        for pool in model.pools:
            use = pool_use(pool, model, plan)
            if use.full and use.work != "computing":
                yield (
                    f"Binds: the network of {part_of(pool.share, pool.gpu_class)}, "
                    f"{use.part:.0%} busy {use.work} for {model.model}, "
                    f"{blocks(pool.first_block, pool.end_block)}"
                )


def _whose(each: SloOutlook, plan: Plan) -> str:
    models = [model.model for model in plan.models if each.model in {None, model.model}]
    return f"the SLO of {models[0]}" if len(models) == 1 else "the SLOs of all models together"


def _slack(each: SloOutlook, plan: Plan) -> str:
    """Say how much of an SLO the tightest pipeline leaves."""
    least = min(
        (ms_from_micros(latency_parts(pipeline, model, plan).spare_us), model.model)
        for model in plan.models
        for pipeline in model.pipelines
        if each.model in {None, model.model}
    )
    return f"the tightest pipeline leaves {least[0]:.2f} ms, a faster or fuller one needs more"


def _worth(outlook: Outlook) -> Iterator[str]:
    unit = outlook.unit
    direction = "more" if outlook.maximise else "less"
    yield (
        f"What more would be worth, in {valued(0, unit).removeprefix(number(0, unit)).strip()} "
        f"{direction} than {valued(outlook.value, unit)}:"
    )
    rows = [_class_row(each, outlook) for each in outlook.classes]
    rows += [_slo_row(each, outlook) for each in outlook.slos]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, price, gain in rows:
        yield f"  {name.ljust(widths[0])}  {price.ljust(widths[1])}  {gain}".rstrip()
    yield (
        "  (relaxation: the worth of a small change if instances could be split; planned again: "
        f"at most {outlook.seconds_each:g} s each)"
    )
    yield _next(outlook)


def _class_row(each: ClassOutlook, outlook: Outlook) -> tuple[str, str, str]:
    price = f"shadow price of the relaxation {_told(each.shadow_price, outlook)}"
    if each.shadow_per_price is not None and outlook.unit != "per-hour":
        price += f" ({each.shadow_per_price:.3g} per unit of price)"
    gain = _gain(each.gain, outlook)
    per = each.gain.per(each.price_per_hour)
    if per and outlook.unit != "per-hour":
        gain += f", {per:.3g} per unit of price"
    return f"1 GPU more of {each.name}", price, gain


def _slo_row(each: SloOutlook, outlook: Outlook) -> tuple[str, str, str]:
    longer = f"{each.stretch - 1:.0%} longer"
    name = f"all SLOs {longer}" if each.model is None else f"SLO of {each.model} {longer}"
    gain = "" if each.gain is None else _gain(each.gain, outlook)
    return name, f"relaxation gains {_told(each.relaxed, outlook)}", gain


def _gain(gain: Gain, outlook: Outlook) -> str:
    if gain.found is None:
        return "planned again: nothing found in time"
    told = f"planned again: gains {_told(gain.found, outlook)}"
    if gain.most is not None and gain.most - gain.found > abs(outlook.value) * 1e-3:
        told += f" (at most {_told(gain.most, outlook)})"
    return told


def _told(value: float, outlook: Outlook) -> str:
    return number(value, outlook.unit) if value else "0"


def _next(outlook: Outlook) -> str:
    best, cheap = outlook.next_gpu, outlook.next_gpu_per_price
    if best is None:
        known = [each for each in outlook.classes if each.gain.found is not None]
        if not known:
            return "The next GPU: unknown, nothing was found in time"
        priced = [each.name for each in known if each.shadow_price > 0]
        more = f"; the relaxation values {listed(priced)}" if priced else ""
        return f"The next GPU: no single GPU more gains anything{more}"
    told = f"The next GPU should be: {best}, for the greatest gain"
    if cheap is None:
        return told
    return f"{told}; {cheap}, for the greatest gain per price"
