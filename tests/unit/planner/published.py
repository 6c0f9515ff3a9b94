"""Reads the published PPipe inputs and plans in their own layout, for comparison only."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from penstock.domain.cluster import Cluster, GpuClass, PlannerOptions, ServedModel
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.profiles import LatencyProfile, ProfileRow
from planner.candidates import Rates
from planner.inputs import Profiles
from tests.unit.planner.fleets import PROVENANCE

DATA = Path(__file__).parents[3].parent / "shared" / "reference" / "ppipe" / "data"
PLENTY = 1 << 50  # the published planner does not look at memory
COUNTS = (25, 75)


@dataclass(frozen=True)
class Configuration:
    """A published plan: what was planned with, and what came out."""

    cluster: Cluster
    profiles: Profiles
    rates: Rates
    objective_rps: float


def plan_files(kind: str) -> list[Path]:
    """Return the plan files of a kind: ``v4`` or ``bl``."""
    return sorted((DATA / "plans" / "maf19").glob(f"*_{kind}.json"))


def read_configuration(path: Path) -> Configuration:
    plans = json.loads(path.read_text(encoding="utf-8"))
    configs = [plan["config"] for plan in plans]
    weights = [float(each) for each in _weights(path.name)]
    classes = _classes(configs[0])
    models = tuple(
        ServedModel(
            name=ModelName(each["dnn_name"]), source="", slo_us=int(each["sla"]), weight=weight
        )
        for each, weight in zip(configs, weights, strict=True)
    )
    options = PlannerOptions(max_stages=configs[0]["max_num_parts"], max_batch=8)
    return Configuration(
        cluster=Cluster(gpu_classes=classes, models=models, options=options),
        profiles={
            (ModelName(config["dnn_name"]), each.name): _profile(config, each)
            for config in configs
            for each in classes
        },
        rates={ModelName(each["dnn_name"]): each["est_xput"] for each in configs},
        objective_rps=min(p["xput"] / w for p, w in zip(plans, weights, strict=True)),
    )


def _weights(name: str) -> list[str]:
    head = name.split("_L4-", maxsplit=1)[0].split("_V100-", maxsplit=1)[0]
    return head.rsplit("_", 1)[1].split("-")


def _classes(config: dict[str, Any]) -> tuple[GpuClass, ...]:
    return tuple(
        GpuClass(
            name=GpuClassName(name),
            count=count,
            memory_bytes=PLENTY,
            gpus_per_server=per_server,
            network_gbps=config["bw_gbps"],
            max_share_denominator=levels,
        )
        for name, count, per_server, levels in zip(
            config["gpu_name_arr"],
            COUNTS,
            config["num_gpu_per_server_arr"],
            config["num_mps_levels"],
            strict=True,
        )
    )


def _profile(config: dict[str, Any], gpu_class: GpuClass) -> LatencyProfile:
    rows = [
        ProfileRow(
            block=block,
            batch=batch,
            share=Fraction(1, m),
            latency_mean_us=int(latency),
            latency_p99_us=int(latency),
            samples=1,
        )
        for m in range(1, gpu_class.max_share_denominator + 1)
        for block, line in enumerate(_timings(config["dnn_name"], gpu_class.name, m))
        for batch, latency in enumerate(line, start=1)
    ]
    blocks = 1 + max(row.block for row in rows)
    bytes_per_us = config["bw_gbps"] * 1e3 / 8
    return LatencyProfile(
        model=ModelName(config["dnn_name"]),
        gpu_class=gpu_class.name,
        blocks=blocks,
        rows=tuple(rows),
        cut_bytes=tuple(round(us * bytes_per_us) for us in config["transmit_time_us_arr"]),
        weight_bytes=(0,) * blocks,
        activation_bytes=(0,) * blocks,
        provenance=PROVENANCE,
    )


def _timings(model: str, gpu_class: str, m: int) -> list[list[str]]:
    path = DATA / "models" / "block-timing-tf32" / f"{model}-{gpu_class}-{m}.csv"
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.reader(lines))
