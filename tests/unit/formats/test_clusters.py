from __future__ import annotations

import pytest

from penstock.domain.cluster import DeviceRates
from penstock.domain.errors import InvalidCluster
from penstock.formats.clusters import read_cluster, write_cluster
from penstock.formats.sources import Source
from penstock.formats.yaml_text import parse_yaml, write_yaml

GOOD = """\
schema: penstock.cluster/1
gpu_classes:
  - name: L4
    count: 4
    memory_gib: 24
    gpus_per_server: 2
    network_gbps: 10
    price_per_hour: 0.7
    max_share_denominator: 2
    peak_tflops: 30.3
    memory_gbytes_per_s: 300
    launch_us: 5
  - name: T4
    count: 8
    network_gbps: 10
    datasheet: T4
models:
  - name: digits
    source: examples.digits.model:build
    slo_ms: 100
    weight: 2
    rate_rps: 200
planner:
  max_stages: 3
  hop_overhead_ms: 1.5
  relative_gap: 1e-4
"""


def test_reads_units_people_write_into_units_of_the_domain() -> None:
    cluster = read_cluster(GOOD, "cluster.yaml")
    l4, t4 = cluster.gpu_classes
    (digits,) = cluster.models
    assert (l4.name, l4.count, l4.memory_bytes) == ("L4", 4, 24 << 30)
    assert l4.rates == DeviceRates(peak_tflops=30.3, memory_gbytes_per_s=300.0, launch_us=5.0)
    assert (t4.memory_bytes, t4.gpus_per_server, t4.price_per_hour) == (16 << 30, 1, None)
    assert t4.rates is not None
    assert (digits.slo_us, digits.weight, digits.rate_rps) == (100_000, 2.0, 200.0)
    assert cluster.options.hop_overhead_us == 1_500
    assert cluster.options.relative_gap == 1e-4
    assert cluster.options.max_batch == 8


def test_rates_in_the_file_override_single_rates_of_the_datasheet() -> None:
    text = GOOD.replace("    datasheet: T4\n", "    datasheet: T4\n    launch_us: 9\n")
    rates = read_cluster(text, "cluster.yaml").gpu_classes[1].rates
    assert rates is not None
    assert (rates.launch_us, rates.memory_gbytes_per_s) == (9.0, 320.0)


def test_a_class_without_rates_has_none() -> None:
    text = GOOD.replace("datasheet: T4", "memory_gib: 16")
    assert read_cluster(text, "cluster.yaml").gpu_classes[1].rates is None


def test_writing_and_reading_back_gives_the_same_cluster() -> None:
    cluster = read_cluster(GOOD, "cluster.yaml")
    assert read_cluster(write_cluster(cluster), "again") == cluster


def test_tolerates_a_byte_order_mark_and_crlf() -> None:
    text = "\ufeff" + GOOD.replace("\n", "\r\n")
    assert read_cluster(text, "cluster.yaml") == read_cluster(GOOD, "cluster.yaml")


@pytest.mark.parametrize("text", ["no", "on", "2024-01-01", "1:30", "0x10", "1_000", "1.2.3"])
def test_text_is_what_it_looks_like(text: str) -> None:
    source = "examples.digits.model:build"
    assert read_cluster(GOOD.replace(source, text), "cluster.yaml").models[0].source == text


@pytest.mark.parametrize("text", ["1e5", "1", "null", "~", "true", ".5", ".inf", "", "a: b", "é#"])
def test_text_is_quoted_where_it_would_be_read_as_something_else(text: str) -> None:
    assert parse_yaml(write_yaml({"a": text}), Source("x", InvalidCluster)) == {"a": text}


BAD = [
    # what is replaced, by what, place, expected, found
    ("penstock.cluster/1", "penstock.cluster/2", "schema", "'penstock.cluster/1'", "'penstock.clu"),
    ("schema: penstock.cluster/1\n", "", "schema", "'penstock.cluster/1'", "none"),
    ("name: T4", "name: L4", "gpu_classes[1].name", "another name than that of gpu_c", "'L4'"),
    ("name: T4", "name: a b", "gpu_classes[1].name", "a name of letters", "'a b'"),
    ("name: T4", "name: ../T4", "gpu_classes[1].name", "a name of letters", "'../T4'"),
    ("name: T4", "name: 4", "gpu_classes[1].name", "text", "4"),
    ("name: T4", "name:", "gpu_classes[1].name", "text", "null"),
    ("count: 8", "count: 0", "gpu_classes[1].count", "at least 1", "0"),
    ("count: 8", "count: -1", "gpu_classes[1].count", "at least 1", "-1"),
    ("count: 8", "count: 1.5", "gpu_classes[1].count", "an integer", "1.5"),
    ("count: 8", "count: true", "gpu_classes[1].count", "an integer", "true"),
    ("count: 8", "count: '8'", "gpu_classes[1].count", "an integer", "'8'"),
    ("count: 8", f"count: {'9' * 30}", "gpu_classes[1].count", "an integer of at most 64", "999"),
    ("count: 8", f"count: {'9' * 9000}", "gpu_classes[1].count", "an integer of at most 64", "999"),
    ("count: 8", "count: [8]", "gpu_classes[1].count", "an integer", "a list of 1"),
    ("count: 8", "count: {}", "gpu_classes[1].count", "an integer", "an empty object"),
    ("    count: 8\n", "", "gpu_classes[1].count", "a value, which is required", "none"),
    ("count: 8", "cuont: 8", "gpu_classes[1]", "only the fields name, count, m", "'cuont'"),
    ("memory_gib: 24", "memory_gib: 0", "gpu_classes[0].memory_gib", "more than 0", "0"),
    ("memory_gib: 24", "memory_gib: 1e300", "gpu_classes[0].memory_gib", "at most 1e+09", "1e+300"),
    ("memory_gib: 24", "memory_gib: .nan", "gpu_classes[0].memory_gib", "a finite number", "nan"),
    ("memory_gib: 24", "memory_gib: -.inf", "gpu_classes[0].memory_gib", "a finite number", "-inf"),
    ("    datasheet: T4\n", "", "gpu_classes[1].memory_gib", "or a datasheet that says it", "none"),
    (
        "datasheet: T4",
        "datasheet: T5",
        "gpu_classes[1].datasheet",
        "one of A10, A100, H100",
        "'T5'",
    ),
    (
        "    launch_us: 5\n",
        "",
        "gpu_classes[0].launch_us",
        "memory_gbytes_per_s, launch_us",
        "none",
    ),
    ("slo_ms: 100", "slo_ms: 0", "models[0].slo_ms", "at least 0.001", "0"),
    ("slo_ms: 100", "slo_ms: -5", "models[0].slo_ms", "at least 0.001", "-5"),
    ("slo_ms: 100", "slo: 100", "models[0]", "only the fields name, source, slo_ms", "'slo'"),
    ("weight: 2", "weight: 0", "models[0].weight", "more than 0", "0"),
    ("rate_rps: 200", "rate_rps: -1.0", "models[0].rate_rps", "more than 0", "-1.0"),
    ("source: examples.digits.model:build", "source: ''", "models[0].source", "text on one", "''"),
    ("max_stages: 3", "slo_margin: 1.0", "planner.slo_margin", "less than 1", "1.0"),
    ("max_stages: 3", "max_stage: 3", "planner", "only the fields max_stages, max_", "'max_stage'"),
    ("count: 8", "count: 8\n    count: 9", "gpu_classes[1]", "every key once", "'count' twice"),
    ("count: 8", "? [a]\n    : 1", "line 14, column 7", "YAML", "a key that is not text"),
    ("count: 8", "1: 8", "gpu_classes[1]", "text as keys", "1"),
    ("count: 8", "count: 8: 9", "line 14, column 13", "YAML", "mapping values are not allowed"),
    ("count: 8", "count: &a 8\n    x: *a", "line 15, column 8", "YAML", "an alias; write the v"),
    ("count: 8", "count: !!python/name:os.system 8", "line 14, column 12", "YAML", "the tag 'tag"),
    ("count: 8", "count: !!int x", "line 14, column 12", "YAML", "the tag 'tag:yaml.org,2002:int'"),
    ("count: 8", "count: ! 8", "line 14, column 12", "YAML", "the tag '!'"),
    ("count: 8", "count: \0", "", "YAML", "the character #x0000"),
    ("count: 8", "count: 8\n---\n", "line 15, column 1", "YAML", "but found another document"),
    (GOOD, "", "", "an object with schema 'penstock.cluster/1'", "null"),
    (GOOD, "[" * 50_000, "line 1, column 42", "YAML", "more than 40 levels of nesting"),
    (
        GOOD,
        "schema: penstock.cluster/1\ngpu_classes: []",
        "gpu_classes",
        "at least one",
        "an empty",
    ),
    (
        GOOD,
        "schema: penstock.cluster/1\ngpu_classes: {}",
        "gpu_classes",
        "a list",
        "an empty object",
    ),
]


@pytest.mark.parametrize(("old", "new", "place", "expected", "found"), BAD)
def test_a_bad_file_gets_one_clear_line(
    old: str, new: str, place: str, expected: str, found: str
) -> None:
    assert old in GOOD
    with pytest.raises(InvalidCluster) as caught:
        read_cluster(GOOD.replace(old, new), "cluster.yaml")
    error = caught.value
    assert (error.source, error.place) == ("cluster.yaml", place)
    assert expected in error.expected
    assert found in error.found
    assert str(error).count("\n") == 0
    assert len(str(error)) < 400
