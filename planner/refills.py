"""Refills: bundles near a given one, found by knapsack.

Part of one of its flows is taken out: what a few instances carry, or all of it. The cheapest
items that carry as much come in instead. One bundle that keeps much of what runs has hundreds of
such neighbours, each found in a millisecond; they take other GPUs, so that some of them fit beside
what the other models have.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from planner.assemble import Assembler
from planner.bundles import Bundle, Flows, bundle_of
from planner.paths import Floats, PathTable

_INSTANCES = (1, 2, 3, 5, 8, 12)  # whose flow is taken out, if it is not all of it


def refills(
    assembler: Assembler, number: int, bundle: Bundle, target: float, unit_prices: Floats
) -> list[Bundle]:
    """Return bundles that carry one model's demand and differ from another in one flow.

    Args:
        assembler: its items and terms.
        number: of the model.
        bundle: carries the demand.
        target: what the demand follows from.
        unit_prices: of a unit, per class: what comes in is cheap at these.
    """
    table = assembler.tables[number]
    spare = sum(flow for _, flow in bundle.flows) - assembler.demand(number, target)
    found = []
    for at, (path, flow) in enumerate(bundle.flows):
        for cut in _cuts(table, path, flow):
            if cut <= spare:
                continue
            rest = (*bundle.flows[:at], (path, flow - cut), *bundle.flows[at + 1 :])
            for filling in assembler.covering(number, cut - spare, unit_prices):
                flows = _joined(rest, filling.flows)
                found.append(bundle_of(table, flows, assembler.terms))
    return found


def _cuts(table: PathTable, path: int, flow: float) -> Iterator[float]:
    """Yield the samples/s that few instances of its busiest stage carry, and all of them."""
    for count in _INSTANCES:
        carried = count / float(np.max(table.loads[path]))
        if carried >= flow:
            break
        yield carried
    yield flow


def _joined(left: Flows, right: Flows) -> Flows:
    flows: dict[int, float] = {}
    for path, flow in (*left, *right):
        if flow > 0:
            flows[path] = flows.get(path, 0.0) + flow
    return tuple(flows.items())
