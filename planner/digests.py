"""Digests of what a plan was made from, so that a plan is never run on other inputs unnoticed.

Taken over the canonical text of the values, not over the files: a comment in ``cluster.yaml``
changes nothing. Planner options are left out: what of them binds a plan (margin, hop overhead, most
stages, largest batch) the verifier compares as numbers.
"""

from __future__ import annotations

from dataclasses import replace

from penstock.domain.cluster import Cluster, PlannerOptions
from penstock.domain.plan import Digest
from penstock.formats.clusters import write_cluster
from penstock.formats.codec import digest
from penstock.formats.profiles import write_profile
from planner.inputs import Profiles


def input_digests(cluster: Cluster, profiles: Profiles) -> tuple[Digest, ...]:
    """Return the digests of the cluster and of each profile it needs, in a fixed order."""
    fleet = replace(cluster, options=PlannerOptions())
    found = [Digest(name="cluster", sha256=digest(write_cluster(fleet)))]
    for model in cluster.models:
        for gpu_class in cluster.gpu_classes:
            texts = write_profile(profiles[model.name, gpu_class.name])
            name = f"profile {model.name} {gpu_class.name}"
            found.append(Digest(name=name, sha256=digest("\0".join(texts))))
    return tuple(found)
