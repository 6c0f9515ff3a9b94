from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction

import pytest

from penstock.domain.errors import InvalidPlan
from penstock.domain.plan import Digest, Plan, SolvePhase
from penstock.formats.plans import read_plan, write_plan
from tests.support.builders import a_model_plan, a_plan, a_pool

GOLDEN = """\
{
  "gpu_classes": [
    {
      "count": 8,
      "gpus_per_server": 1,
      "memory_bytes": 1073741824,
      "name": "fast",
      "network_gbps": 10.0,
      "price_per_hour": null
    },
    {
      "count": 8,
      "gpus_per_server": 1,
      "memory_bytes": 1073741824,
      "name": "slow",
      "network_gbps": 10.0,
      "price_per_hour": null
    }
  ],
  "hop_overhead_us": 500,
  "inputs": [
    {
      "name": "cluster",
      "sha256": "0000000000000000000000000000000000000000000000000000000000000000"
    }
  ],
  "models": [
    {
      "blocks": 2,
      "blocks_digest": "",
      "execution": {
        "capture": true,
        "compile": "auto",
        "max_error": null,
        "memory_format": "contiguous",
        "precision": "fp32"
      },
      "margin_us": 0,
      "model": "m",
      "pipelines": [
        {
          "batch_build_us": 0,
          "id": "m.0",
          "latency_us": 42000,
          "pools": [
            "m.a",
            "m.b"
          ],
          "throughput_rps": 100.0,
          "transfers": [
            {
              "bytes_per_sample": 70,
              "us_per_sample": 70
            }
          ]
        }
      ],
      "pools": [
        {
          "batch": 2,
          "end_block": 1,
          "first_block": 0,
          "gpu_class": "slow",
          "id": "m.a",
          "instances": 3,
          "latency_us_by_batch": [
            20000,
            30000
          ],
          "memory_bytes": 1,
          "position": 0,
          "share": "1/1"
        },
        {
          "batch": 2,
          "end_block": 2,
          "first_block": 1,
          "gpu_class": "fast",
          "id": "m.b",
          "instances": 1,
          "latency_us_by_batch": [
            10000,
            12000
          ],
          "memory_bytes": 1,
          "position": 1,
          "share": "1/2"
        }
      ],
      "slo_us": 100000,
      "throughput_rps": 100.0,
      "weight": 1.0
    }
  ],
  "packing": "per-stage",
  "schema": "penstock.plan/1",
  "solve": {
    "bound": 1.0,
    "formulation": "by hand",
    "gap": 0.0,
    "objective": "max-min",
    "objective_rps": 1.0,
    "phases": [],
    "seconds": 0.0,
    "seed": 0,
    "solver": "none",
    "status": "feasible",
    "unit": "rps",
    "value": 1.0
  }
}
"""


def small_plan() -> Plan:
    first = a_pool("m.a", gpu_class="slow", latencies_us=(20_000, 30_000), instances=3)
    last = a_pool(
        "m.b", position=1, blocks=(1, 2), latencies_us=(10_000, 12_000), share=Fraction(1, 2)
    )
    plan = a_plan(a_model_plan((first, last), transfer_us=70), hop_us=500)
    return replace(plan, inputs=(Digest(name="cluster", sha256="0" * 64),))


def test_a_small_plan_is_written_byte_for_byte() -> None:
    assert write_plan(small_plan()) == GOLDEN


def test_reading_back_gives_the_same_plan() -> None:
    assert read_plan(GOLDEN, "plan.json") == small_plan()


def test_an_infinite_number_is_never_written() -> None:
    plan = small_plan()
    with pytest.raises(ValueError, match="inf"):
        write_plan(replace(plan, solve=replace(plan.solve, bound=float("inf"))))


def changed(path: str, value: object) -> str:
    """Return the golden plan with one place set; the path is dotted, relative to model 0."""
    content = json.loads(GOLDEN)
    *parents, last = [int(part) if part.isdecimal() else part for part in path.split(".")]
    node = content if parents[:1] == [""] else content["models"][0]
    for part in parents:
        node = node[part] if part != "" else node
    node[last] = value
    return json.dumps(content)


M, P, L = "models[0]", "models[0].pools[1]", "models[0].pipelines[0]"
BAD: list[tuple[str, object, str, str, str]] = [
    # dotted path (relative to the model, from the top with a leading dot), value, place, …
    (".schema", "penstock.plan/2", "schema", "'penstock.plan/1', the one", "'penstock.plan/2'"),
    (".schema", None, "schema", "'penstock.plan/1'", "none"),
    (".schema", ["x"], "schema", "'penstock.plan/1'", "a list of 1"),
    (".models", [], "models", "at least one", "an empty list"),
    (".models", {}, "models", "a list", "an empty object"),
    (".models", [3], "models[0]", "an object", "3"),
    (".hop_overhead_us", -1, "hop_overhead_us", "at least 0", "-1"),
    (".extra", 1, "", "only the fields gpu_classes, models", "'extra'"),
    (".a b\n", 1, "", "only the fields", r"'a b\n'"),
    (".inputs.0.sha256", "AB", "inputs[0].sha256", "a SHA-256", "'AB'"),
    (".inputs.0.name", "", "inputs[0].name", "text on one line", "''"),
    (".gpu_classes.0.name", "slow", "gpu_classes[1].name", "another name", "'slow'"),
    (".gpu_classes.0.count", 0, "gpu_classes[0].count", "at least 1", "0"),
    (".gpu_classes.0.network_gbps", 0, "gpu_classes[0].network_gbps", "more than 0", "0"),
    (".gpu_classes.1.price_per_hour", -0.5, "gpu_classes[1].price_per_hour", "at least 0", "-0.5"),
    (".packing", "whole", "packing", "'whole-gpu' or 'per-stage'", "'whole'"),
    (".solve.gap", "0", "solve.gap", "a number", "'0'"),
    (".solve.gap", -0.1, "solve.gap", "at least 0", "-0.1"),
    (".solve.gap", 1.5, "solve.gap", "at most 1", "1.5"),
    (".solve.value", -1.0, "solve.value", "at least 0", "-1.0"),
    (".solve.value", float("nan"), "solve.value", "a finite number", "nan"),
    (".solve.bound", -1.0, "solve.bound", "at least 0", "-1.0"),
    (".solve.bound", float("inf"), "solve.bound", "a finite number", "inf"),
    (".solve.bound_rps", 1.0, "solve", "only the fields solver, formulation", "'bound_rps'"),
    (".solve.objective_rps", -1.0, "solve.objective_rps", "at least 0", "-1.0"),
    (".solve.seconds", -1.0, "solve.seconds", "at least 0", "-1.0"),
    (".solve.objective", "best", "solve.objective", "'max-min', 'goodput', 'least-c", "'best'"),
    (".solve.objective", "least-cost", "solve.unit", "'per-hour', the unit of obj", "'rps'"),
    (".solve.unit", "gpus", "solve.unit", "'rps', the unit of objective max-min", "'gpus'"),
    (".solve.unit", "qps", "solve.unit", "'rps', 'per-hour' or 'gpus'", "'qps'"),
    (".solve.phases", [{"name": "", "seconds": 1}], "solve.phases[0].name", "text", "''"),
    (".solve.phases", [{"name": "a", "seconds": -1}], "solve.phases[0].seconds", "at le", "-1"),
    ("model", "", f"{M}.model", "a name of letters", "''"),
    ("slo_us", 0, f"{M}.slo_us", "at least 1", "0"),
    ("slo_us", "100", f"{M}.slo_us", "an integer", "'100'"),
    ("slo_us", 1.0, f"{M}.slo_us", "an integer", "1.0"),
    ("slo_us", True, f"{M}.slo_us", "an integer", "true"),
    ("slo_us", 1 << 63, f"{M}.slo_us", "an integer of at most 64 bits", "9223372036854775808"),
    ("slo_us", 10**3000, f"{M}.slo_us", "at most 64 bits", "an integer of 9966 bits"),
    ("weight", float("nan"), f"{M}.weight", "a finite number", "nan"),
    ("weight", float("inf"), f"{M}.weight", "a finite number", "inf"),
    ("weight", 0, f"{M}.weight", "more than 0", "0"),
    ("weight", -1.5, f"{M}.weight", "more than 0", "-1.5"),
    ("margin_us", 100_000, f"{M}.margin_us", "less than slo_us (100000)", "100000"),
    ("blocks_digest", "x", f"{M}.blocks_digest", "a SHA-256 of 64 hex digits", "'x'"),
    ("blocks", 3, f"{L}.pools", "pools that cover all 3 blocks", "the end at block 2"),
    ("blocks", 1, f"{P}.end_block", "at most blocks (1)", "2"),
    ("pipelines", [], f"{M}.pipelines", "at least one", "an empty list"),
    ("pools.1.id", "m.a", f"{P}.id", f"another name than that of {M}.pools[0].id", "'m.a'"),
    ("pools.1.id", "é\nb", f"{P}.id", "text on one line", r"'é\nb'"),
    ("pools.1.id", "\ud800", f"{P}.id", "Unicode text", r"'\ud800'"),
    ("pools.1.gpu_class", "T4", f"{P}.gpu_class", "one of gpu_classes (fast, slow)", "'T4'"),
    ("pools.1.share", "2/3", f"{P}.share", "a share of one GPU such as", "'2/3'"),
    ("pools.1.share", "0.5", f"{P}.share", "a share of one GPU such as", "'0.5'"),
    ("pools.1.share", "1", f"{P}.share", "a share of one GPU such as", "'1'"),
    ("pools.1.share", 0.5, f"{P}.share", "a share of one GPU such as", "0.5"),
    ("pools.1.share", "1/2\n", f"{P}.share", "a share of one GPU such as", r"'1/2\n'"),
    ("pools.1.share", "1e999999999", f"{P}.share", "a share of one GPU such as", "'1e999999999'"),
    ("pools.1.instances", 0, f"{P}.instances", "at least 1", "0"),
    ("pools.1.batch", 3, f"{P}.latency_us_by_batch", "3 values, one for each batch", "2"),
    ("pools.1.latency_us_by_batch.1", 0, f"{P}.latency_us_by_batch[1]", "at least 1", "0"),
    ("pools.1.first_block", 2, f"{P}.end_block", "more than first_block (2)", "2"),
    ("pools.1.first_block", 0, f"{L}.pools[1]", "starts at block 1", "starts at block 0"),
    ("pools.1.position", 2, f"{L}.pools[1]", "a pool of position 1", "'m.b' of position 2"),
    ("pipelines.0.pools.1", "m.c", f"{L}.pools[1]", "the id of one of the model's", "'m.c'"),
    ("pipelines.0.pools", [], f"{L}.pools", "at least one", "an empty list"),
    ("pipelines.0.transfers", [], f"{L}.transfers", "1 values, one for each cut", "0"),
    ("pipelines.0.transfers.0.us_per_sample", -1, f"{L}.transfers[0].us_per_sample", "at", "-1"),
    ("pipelines.0.transfers.0.us", 1, f"{L}.transfers[0]", "only the fields bytes_per_s", "'us'"),
    ("pipelines.0.throughput_rps", 0, f"{L}.throughput_rps", "more than 0", "0"),
    ("pipelines.0", {}, f"{L}.id", "a value, which is required", "none"),
]


def with_batches(*batches: int) -> str:
    """Return a plan of one pipeline whose pools have these batches."""
    pools = [
        a_pool(f"p{number}", position=number, blocks=(number, number + 1), latencies_us=[9] * batch)
        for number, batch in enumerate(batches)
    ]
    return write_plan(a_plan(a_model_plan(pools)))


@pytest.mark.parametrize("batches", [(3, 3), (1, 8), (8, 2), (6, 2, 3), (4, 1, 2), (2, 6, 3, 12)])
def test_batches_may_be_gathered_and_split_by_whole_multiples(batches: tuple[int, ...]) -> None:
    plan = read_plan(with_batches(*batches), "plan.json")
    assert tuple(pool.batch for pool in plan.models[0].pools) == batches


@pytest.mark.parametrize(
    ("batches", "position", "largest"), [((3, 2), 1, 3), ((4, 2, 3), 2, 4), ((2, 6, 4), 2, 6)]
)
def test_batches_that_do_not_go_into_each_other_are_refused(
    batches: tuple[int, ...], position: int, largest: int
) -> None:
    error = refused(with_batches(*batches))
    assert error.place == f"models[0].pipelines[0].pools[{position}]"
    assert f"divides {largest}, the largest before, or is a multiple" in error.expected
    assert error.found == f"'p{position}' of batch {batches[position]}"


def test_what_a_plan_may_leave_out_has_a_default() -> None:
    content = json.loads(GOLDEN)
    for name in ("objective", "unit", "phases"):
        del content["solve"][name]
    del content["packing"], content["gpu_classes"][0]["price_per_hour"]
    assert read_plan(json.dumps(content), "plan.json") == small_plan()


def test_packing_price_and_phases_are_read_back() -> None:
    plan = small_plan()
    solve = replace(
        plan.solve,
        objective="least-cost",
        unit="per-hour",
        phases=(SolvePhase(name="paths", seconds=0.25),),
    )
    priced = tuple(replace(each, price_per_hour=0.5) for each in plan.gpu_classes)
    plan = replace(plan, packing="whole-gpu", solve=solve, gpu_classes=priced)
    assert read_plan(write_plan(plan), "plan.json") == plan


def refused(text: str) -> InvalidPlan:
    with pytest.raises(InvalidPlan) as caught:
        read_plan(text, "plan.json")
    assert caught.value.source == "plan.json"
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    return caught.value


@pytest.mark.parametrize(("path", "value", "place", "expected", "found"), BAD)
def test_a_bad_plan_gets_one_clear_line(
    path: str, value: object, place: str, expected: str, found: str
) -> None:
    error = refused(changed(path, value))
    assert error.place == place
    assert expected in error.expected
    assert found in error.found


@pytest.mark.parametrize(
    ("name", "place"),
    [("m", "models[1].model"), ("n", "models[1].pools[0].id")],
)
def test_ids_hold_across_models(name: str, place: str) -> None:
    content = json.loads(GOLDEN)
    content["models"].append({**content["models"][0], "model": name})
    assert refused(json.dumps(content)).place == place


def test_the_whole_line_reads_well() -> None:
    assert str(refused(changed("slo_us", "100"))) == (
        "plan.json: models[0].slo_us: expected an integer, found '100'"
    )


BAD_TEXTS = [
    ("", "line 1, column 1", "JSON", "the end of the text (Expecting value)"),
    ("null", "", "an object with schema 'penstock.plan/1'", "null"),
    ("[]", "", "an object with schema 'penstock.plan/1'", "an empty list"),
    ("7", "", "an object with schema", "7"),
    ('{"a": 1,\n "b": }', "line 2, column 7", "JSON", "'}' (Expecting value)"),
    ('{"a": 1} x', "line 1, column 10", "JSON", "'x' (Extra data)"),
    ('{"a": "\0"}', "line 1, column 8", "JSON", "Invalid control character"),
    ('{"a": 1, "a": 2}', "", "every key once", "'a' twice"),
    ('{"a": [{"b": 1, "b": 2}]}', "a[0]", "every key once", "'b' twice"),
    ('{"a": NaN}', "a", "a finite number", "nan"),
    ('{"a": -Infinity}', "a", "a finite number", "-inf"),
    ('{"a": 1e999}', "a", "a finite number", "inf"),
    ('{"a": ' + "9" * 100_000 + "}", "", "integers of at most 64 bits", "a far longer one"),
    ('{"share": "1/2", "x": {"share": 1}}', "x.share", "a share of one GPU", "1"),
    ("[" * 100_000, "", "at most 40 levels of nesting", "more"),
    ('{"a":' * 60 + "1" + "}" * 60, "", "at most 40 levels of nesting", "more"),
]


@pytest.mark.parametrize(("text", "place", "expected", "found"), BAD_TEXTS)
def test_bad_json_gets_one_clear_line(text: str, place: str, expected: str, found: str) -> None:
    error = refused(text)
    assert error.place == place
    assert expected in error.expected
    assert found in error.found
