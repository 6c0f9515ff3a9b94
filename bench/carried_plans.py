"""Plans of ours for `ppipe_load`, made by the margin loop; and who shares a network card."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial

from penstock.domain.errors import PlanningFailed
from penstock.domain.plan import Plan
from planner.margin_loop import plan_with_margins
from planner.margins import Chosen
from planner.published import PublishedConfiguration
from simulator.sustain import Trials

PLAN_GAP = 3e-3
PLANS = 8  # of the planning time: so much of it may one plan take
TRIAL_US = 15_000_000  # simulated, of each try of margins
OTHER_SEED = 1000


class Cards(StrEnum):
    """Who shares a network card."""

    GPU = "gpu"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class NoPlan:
    """No plan of ours meets the target under any load that was tried."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Planning:
    """A plan of ours to be made: margins found by simulation, with other arrivals than the load's.

    Attributes:
        stages: most per pipeline; None: as published.
        seconds: to search for.
    """

    configuration: PublishedConfiguration
    trials: Trials
    cards: Cards
    stages: int | None
    seconds: float

    def run(self) -> Chosen | NoPlan:
        """Make it."""
        cluster = self.configuration.cluster
        options = replace(
            cluster.options,
            mode="general",
            packing="whole-gpu",
            max_stages=self.stages or cluster.options.max_stages,
            relative_gap=PLAN_GAP,
            time_limit_s=self.seconds / PLANS,
        )
        scenario = replace(self.trials.scenario, seed=self.trials.scenario.seed + OTHER_SEED)
        try:
            return plan_with_margins(
                replace(cluster, options=options),
                self.configuration.profiles,
                replace(self.trials, scenario=scenario, span_us=TRIAL_US),
                blocks_digests={},
                seconds=self.seconds,
                as_simulated=partial(with_cards, cards=self.cards),
            )
        except PlanningFailed as error:
            return NoPlan(str(error))


def with_cards(plan: Plan, cards: Cards) -> Plan:
    """Return the plan on servers of one GPU each, if every GPU has a card of its own."""
    if cards == Cards.SERVER:
        return plan
    alone = tuple(replace(each, gpus_per_server=1) for each in plan.gpu_classes)
    return replace(plan, gpu_classes=alone)
