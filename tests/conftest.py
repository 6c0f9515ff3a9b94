"""What holds for every test: Hypothesis repeats itself, so that a red build stays red."""

from __future__ import annotations

import gc
import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", settings.get_profile("ci"), derandomize=False, max_examples=2000)
settings.load_profile(os.environ.get("PENSTOCK_HYPOTHESIS_PROFILE", "ci"))


def pytest_collection_finish() -> None:
    """Take what collection imported out of garbage collection.

    Torch leaves hundreds of thousands of objects; a full collection that walks them would stop
    the event loops of later tests for more than 100 ms.
    """
    gc.collect()
    gc.freeze()
