"""Reads what was published with PPipe, in its own layout, as a yardstick.

Point it at a clone of the artifact (or at its ``data`` folder): plans under ``plans/<set>``, block
latencies under ``models/block-timing-tf32``. Nothing is copied from there into Penstock.
"""

from planner.published.configurations import (
    configuration_names,
    configurations,
    read_configuration,
)
from planner.published.names import data_folder, plan_sets
from planner.published.project import write_project
from planner.published.values import (
    PublishedConfiguration,
    PublishedPipeline,
    PublishedPlan,
    PublishedStage,
    Scheduler,
)

__all__ = [
    "PublishedConfiguration",
    "PublishedPipeline",
    "PublishedPlan",
    "PublishedStage",
    "Scheduler",
    "configuration_names",
    "configurations",
    "data_folder",
    "plan_sets",
    "read_configuration",
    "write_project",
]
