"""Histograms: what Prometheus reads from them is what its own library would have written."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Histogram as Theirs

from frontend.histograms import Histogram

BOUNDS = (0.001, 0.5, 1.0, 2.5, 10.0)


def page(registry: CollectorRegistry) -> list[str]:
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if "_created" not in line]


@given(st.lists(st.sampled_from([0.0, 0.001, 0.25, 0.5, 1.0, 2.0, 10.0, 11.5, 1e9]), max_size=30))
def test_the_page_is_the_librarys_own(values: list[float]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    mine = Histogram("spread_seconds", "Some text.", ("model", "pool"), BOUNDS)
    ours.register(mine)
    other = Theirs(
        "spread_seconds", "Some text.", ("model", "pool"), buckets=BOUNDS, registry=theirs
    )
    for place, value in enumerate(values):
        labels = ("m", f"p{place % 2}")
        mine.labels(*labels).observe(value)
        other.labels(*labels).observe(value)
    assert page(ours) == page(theirs)
