"""A fleet that has a plan soon and whose best plan takes long to prove."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from random import Random

from penstock.domain.cluster import Cluster, PlannerOptions
from penstock.formats.clusters import write_cluster
from penstock.formats.layout import profile_paths
from penstock.formats.profiles import write_profile
from planner.inputs import Profiles
from tests.unit.planner.fleets import gpu_class, profile, served

_CLASSES, _MODELS, _BLOCKS = 4, 3, 6


def long_fleet(time_limit_s: float = 60.0) -> tuple[Cluster, Profiles]:
    """Least cost for three models on four classes with shares, to the last cent."""
    rng = Random(3)
    classes = tuple(
        gpu_class(f"c{at}", rng.randint(30, 60), max_share_denominator=4, price_per_hour=1.0 + at)
        for at in range(_CLASSES)
    )
    models = tuple(
        served(f"m{at}", slo_ms=rng.uniform(60, 140), rate_rps=rng.uniform(200, 400))
        for at in range(_MODELS)
    )
    options = PlannerOptions(
        objective="least-cost",
        max_stages=2,
        max_batch=2,
        relative_gap=0.0,
        time_limit_s=time_limit_s,
    )
    profiles = {}
    for model in models:
        base = [rng.randint(1000, 6000) for _ in range(_BLOCKS)]
        for each in classes:
            slower = [rng.uniform(0.6, 3) for _ in range(_BLOCKS)]
            table = {
                (batch, Fraction(1, m)): [
                    int(us * by * (0.45 + 0.55 * batch) * (0.4 + 0.6 * m))
                    for us, by in zip(base, slower, strict=True)
                ]
                for batch in (1, 2)
                for m in (1, 2, 3, 4)
            }
            profiles[model.name, each.name] = profile(model.name, each.name, table)
    return Cluster(gpu_classes=classes, models=models, options=options), profiles


def write_fleet(cluster: Cluster, profiles: Profiles, root: Path) -> None:
    """Write ``cluster.yaml`` and ``profiles`` under a folder."""
    (root / "cluster.yaml").write_text(write_cluster(cluster), encoding="utf-8")
    for (model, gpu_class_name), each in profiles.items():
        paths = profile_paths(root / "profiles", model, gpu_class_name)
        for path, text in zip(paths, write_profile(each), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
