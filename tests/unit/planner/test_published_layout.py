from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from penstock.domain.errors import InvalidInput, UnknownName
from penstock.domain.ids import GpuClassName, ModelName
from penstock.latency.table import StageLatency
from planner.files import load_cluster, load_profiles
from planner.inputs import margin_us
from planner.planning import make_plan
from planner.published import (
    PublishedConfiguration,
    Scheduler,
    configuration_names,
    configurations,
    data_folder,
    plan_sets,
    read_configuration,
    write_project,
)

DATA = Path(__file__).parents[3].parent / "shared" / "reference" / "ppipe" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the published inputs are not at {DATA}")

NAME = "wide_net_2-b-3_0.4-0.6_L4-T4_2-3_bw-gbps-8_sla-multiplier-5"
MODELS = ("wide_net_2", "b-3")
WIDE, B3 = map(ModelName, MODELS)
L4, T4 = GpuClassName("L4"), GpuClassName("T4")

Entry = dict[str, Any]


def entry(model: str, **config: object) -> Entry:
    """Return one model of a plan: three blocks, two of them on L4."""
    stages = [(0, 2, "L4", 1, 1.5), (2, 3, "T4", 0, 2.0)]
    return {
        "xput": 100.0,
        "config": {
            "dnn_name": model,
            "gpu_name_arr": ["L4", "T4"],
            "sla": 50_000.75,
            "num_mps_levels": [2, 1],
            "max_num_parts": 2,
            "bs_same": True,
            "transmit_time_us_arr": [1000.0, 0.5],
            "est_xput": 80.0,
            "batch_build_factor": 1.3,
            "hist_adjustment": 20_000,
            "hist_adjustment_w_scheduling": 0,
            "num_gpu_per_server_arr": [4, 2],
            "bw_gbps": 8,
            **config,
        },
        "pipelines": [
            {
                "xput": 100.0,
                "partitions": [
                    {
                        "layers": [first, end],
                        "gpu": gpu,
                        "mps": mps,
                        "bs": 1,
                        "num_gpu": gpus,
                        "lat_infer": 2000.0,
                    }
                    for first, end, gpu, mps, gpus in stages
                ],
            }
        ],
        "runtime": 1.5,
    }


def write_timings(
    data: Path, models: Sequence[str] = MODELS, gpu_classes: Sequence[str] = ("L4", "T4")
) -> None:
    """Write latencies of three blocks: batches 1 to 3 on whole GPUs, 1 and 2 on halves."""
    folder = data / "models" / "block-timing-tf32"
    folder.mkdir(parents=True, exist_ok=True)
    for model in models:
        for gpu_class in gpu_classes:
            (folder / f"{model}-{gpu_class}-1.csv").write_text("1000,1500,2000\n" * 3)
            (folder / f"{model}-{gpu_class}-2.csv").write_text("1800.4,2900\n" * 3)


def write_plans(
    data: Path, entries: object, name: str = NAME, scheduler: str = "v4", plan_set: str = "main"
) -> Path:
    path = data / "plans" / plan_set / f"{name}_{scheduler}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(entries if isinstance(entries, str) else json.dumps(entries))
    return path


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """An artifact with one configuration of two models, planned by PPipe alone."""
    write_timings(tmp_path)
    write_plans(tmp_path, [entry(model) for model in MODELS])
    return tmp_path


def only(data: Path) -> PublishedConfiguration:
    (found,) = configurations(data, "main")
    return found


def test_a_configuration_is_read(artifact: Path) -> None:
    found = only(artifact)
    assert found.name == NAME
    assert [model.weight for model in found.cluster.models] == [0.4, 0.6]
    assert [model.slo_us for model in found.cluster.models] == [50_000, 50_000]
    assert [(each.name, each.count) for each in found.cluster.gpu_classes] == [("L4", 2), ("T4", 3)]
    assert [each.gpus_per_server for each in found.cluster.gpu_classes] == [4, 2]
    assert [each.max_share_denominator for each in found.cluster.gpu_classes] == [2, 1]
    assert {each.network_gbps for each in found.cluster.gpu_classes} == {8}
    assert found.rates == {WIDE: 80.0, B3: 80.0}
    assert found.cluster.options.max_stages == 2
    assert found.cluster.options.max_batch == 3
    assert found.objectives == {Scheduler.PPIPE: pytest.approx(100 / 0.6)}
    assert found.leading.seconds == 3.0
    assert found.leading.gap is None


def test_profiles_have_the_shares_that_plans_may_use(artifact: Path) -> None:
    found = only(artifact).profiles[WIDE, L4]
    cells = {(row.block, row.batch, row.share): row.latency_mean_us for row in found.rows}
    assert cells[2, 3, Fraction(1)] == 2000
    assert cells[0, 1, Fraction(1, 2)] == 1800  # to whole microseconds
    assert len(cells) == 3 * 3 + 3 * 2
    assert found.cut_bytes == (1_000_000, 500)
    assert {row.share for row in only(artifact).profiles[WIDE, T4].rows} == {Fraction(1)}


def test_stages_are_read_with_their_instances(artifact: Path) -> None:
    plan = only(artifact).leading
    stages = plan.pipelines[0].stages
    assert [(each.gpu_class, each.m, each.instances) for each in stages] == [
        ("L4", 2, 3),
        ("T4", 1, 2),
    ]
    assert plan.gpus() == {(m, c): 2 for m in (WIDE, B3) for c in (L4, T4)}  # 1.5 GPUs are two


@pytest.mark.parametrize(
    ("slos", "margins"),
    [
        ((50_000.75, 50_000.75), (20_000, 20_000)),
        ((77_895.475, 86_734.3), (31_158, 34_694)),
        ((71_752.36, 23_436.56), (28_701, 9_375)),
        ((71_752.36, 23_436.56), (7_175, 2_344)),
        ((100.0, 3_000_000.0), (0, 0)),
        ((100.0, 7_000_001.0), (99, 6_930_001)),
    ],
)
def test_margins_come_back_to_the_microsecond(
    tmp_path: Path, slos: tuple[float, float], margins: tuple[int, int]
) -> None:
    write_timings(tmp_path)
    pairs = zip(MODELS, slos, margins, strict=True)
    write_plans(tmp_path, [entry(m, sla=slo, hist_adjustment=us) for m, slo, us in pairs])
    plan = only(tmp_path).leading
    options = plan.cluster.options
    given = [margin_us(each.slo_us, options.slo_margin) for each in plan.cluster.models]
    assert given == list(margins) == list(plan.margins_us.values())


def test_margins_that_were_rounded_apart_are_never_cut(tmp_path: Path) -> None:
    write_timings(tmp_path)
    pairs = zip(MODELS, (10_000, 20_000), (1_001, 2_000), strict=True)  # no common fraction
    write_plans(tmp_path, [entry(m, sla=slo, hist_adjustment=us) for m, slo, us in pairs])
    plan = only(tmp_path).leading
    given = [
        margin_us(each.slo_us, plan.cluster.options.slo_margin) for each in plan.cluster.models
    ]
    assert given == [1_001, 2_001]


def test_schedulers_keep_what_each_was_planned_with(artifact: Path) -> None:
    write_plans(artifact, [entry(m, est_xput=70.0) for m in MODELS], scheduler="bl")
    halves = {"num_mps_levels": [2, 2], "max_num_parts": 3}
    write_plans(artifact, [entry(m, **halves) for m in MODELS], scheduler="dart-r")
    found = only(artifact)
    assert list(found.plans) == [Scheduler.PPIPE, Scheduler.DART_R, Scheduler.NO_PARTITION]
    stages = {each: plan.cluster.options.max_stages for each, plan in found.plans.items()}
    assert stages == {"v4": 2, "dart-r": 3, "bl": 1}  # whatever the file of no-partition says
    assert found.plans[Scheduler.NO_PARTITION].rates == {WIDE: 70.0, B3: 70.0}
    whole = found.plans[Scheduler.NO_PARTITION].cluster.gpu_classes
    assert [each.max_share_denominator for each in whole] == [1, 1]
    assert Fraction(1, 2) in {row.share for row in found.profiles[B3, T4].rows}  # for DART-r


def test_a_plan_may_stand_alone(artifact: Path) -> None:
    write_plans(artifact, [entry("b-3")], "b-3_L4-T4_1-1_bw-gbps-8", "bl", "ablation")
    assert plan_sets(artifact) == ("ablation", "main")
    (found,) = configurations(artifact, "ablation")
    assert [each.weight for each in found.cluster.models] == [1.0]
    assert found.leading.scheduler == Scheduler.NO_PARTITION


def test_a_lone_model_whose_name_ends_like_a_weight(artifact: Path) -> None:
    write_plans(artifact, [entry("wide_net_2")], "wide_net_2_L4-T4_1-1_bw-gbps-8", plan_set="solo")
    write_plans(artifact, [entry("wide_net_2")], "wide_net_2_3_L4-T4_1-1_bw-gbps-8", plan_set="two")
    for plan_set, weight in (("solo", 1.0), ("two", 3.0)):
        (found,) = configurations(artifact, plan_set)
        assert [each.weight for each in found.cluster.models] == [weight]


def test_more_classes_and_other_names(tmp_path: Path) -> None:
    classes = ("A100-80", "GTX_1080", "T4")
    write_timings(tmp_path, ("b-3",), classes)
    fleet = {
        "gpu_name_arr": list(classes),
        "num_mps_levels": [2, 1, 1],
        "num_gpu_per_server_arr": [8, 1, 1],
        "bw_gbps": 2.5,
    }
    content = entry("b-3", **fleet)
    content["pipelines"] = []
    write_plans(tmp_path, [content], "b-3_1.0_A100-80-GTX_1080-T4_5-0-7_bw-gbps-2.5")
    found = only(tmp_path)
    counts = [(each.name, each.count) for each in found.cluster.gpu_classes]
    assert counts == [("A100-80", 5), ("T4", 7)]  # there is no GTX_1080
    assert found.profiles[B3, GpuClassName("T4")].cut_bytes == (312_500, 156)


def test_configurations_come_in_the_order_of_their_names(artifact: Path) -> None:
    for count in (9, 10):
        name = NAME.replace("2-3_bw", f"{count}-3_bw")
        write_plans(artifact, [entry(model) for model in MODELS], name)
    names = configuration_names(artifact, "main")
    assert list(names) == sorted(names)
    assert [each.name for each in configurations(artifact, "main")] == list(names)
    assert read_configuration(artifact, "main", names[0]) == configurations(artifact, "main")[0]


def test_a_clone_is_as_good_as_its_data_folder(artifact: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    clone.mkdir()
    (clone / "data").symlink_to(artifact)
    assert configurations(clone, "main") == configurations(artifact, "main")
    with pytest.raises(InvalidInput, match="expected the data folder of the PPipe artifact"):
        data_folder(tmp_path / "models")


def test_unknown_names_are_told_with_the_known(artifact: Path) -> None:
    with pytest.raises(UnknownName, match="unknown plan set 'maf99'; known: main"):
        configurations(artifact, "maf99")
    with pytest.raises(UnknownName, match=f"unknown configuration 'x'; known: {NAME}"):
        read_configuration(artifact, "main", "x")


def test_a_written_project_can_be_planned(artifact: Path, tmp_path: Path) -> None:
    found = only(artifact)
    cluster_file, profiles_folder = write_project(found, tmp_path / "made" / "here")
    cluster = load_cluster(cluster_file)
    assert cluster == found.cluster
    profiles = load_profiles(profiles_folder, cluster)
    assert {key: each.cut_bytes for key, each in profiles.items()} == {
        key: each.cut_bytes for key, each in found.profiles.items()
    }
    assert {row.share for row in profiles[WIDE, L4].rows} == {Fraction(1), Fraction(1, 2)}
    assert make_plan(cluster, profiles).solve.objective_rps > 0


def test_a_project_can_have_another_schedulers_options(artifact: Path, tmp_path: Path) -> None:
    write_plans(artifact, [entry(model) for model in MODELS], scheduler="bl")
    cluster_file, _ = write_project(only(artifact), tmp_path / "made", Scheduler.NO_PARTITION)
    assert load_cluster(cluster_file).options.max_stages == 1
    with pytest.raises(UnknownName, match="unknown scheduler 'dart-r'; known: bl, v4"):
        write_project(only(artifact), tmp_path / "made", Scheduler.DART_R)


Change = Callable[[list[Entry]], object]


def config(**fields: object) -> Change:
    return lambda entries: entries[1]["config"].update(fields)


def without(field: str) -> Change:
    return lambda entries: entries[0]["config"].pop(field)


def partition(**fields: object) -> Change:
    return lambda entries: entries[0]["pipelines"][0]["partitions"][1].update(fields)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (without("sla"), r"\[0\]\.config\.sla: expected a value, which is required, found none"),
        (without("est_xput"), r"\[0\]\.config\.est_xput: expected a value"),
        (without("dnn_name"), r"\[0\]\.config\.dnn_name: expected a value"),
        (config(sla="50"), r"\[1\]\.config\.sla: expected a number, found '50'"),
        (config(sla=math.nan), r"\[1\]\.config\.sla: expected a finite number, found nan"),
        (config(sla=1e300), r"\[1\]\.config\.sla: expected 0 to"),
        (config(sla=-1), r"\[1\]\.config\.sla: expected at least 1"),
        (config(est_xput=math.inf), r"\[1\]\.config\.est_xput: expected a finite number"),
        (config(est_xput=0), r"\[1\]\.config\.est_xput: expected more than 0"),
        (config(hist_adjustment=50_000), r"hist_adjustment: expected less than the SLO of 50000"),
        (config(hist_adjustment=100), "hist_adjustment: expected one and the same part of every"),
        (config(transmit_time_us_arr=[1.0, -2.0]), r"transmit_time_us_arr\[1\]: expected 0 to"),
        (config(transmit_time_us_arr=[1.0]), r"partitions: expected stages that cover blocks 0 to"),
        (config(num_mps_levels=[4]), r"num_mps_levels: expected 2 values, one for each GPU class"),
        (config(num_mps_levels=[4, 0]), r"num_mps_levels\[1\]: expected at least 1"),
        (config(gpu_name_arr=["L4", "L4"]), r"gpu_name_arr\[1\]: expected another name"),
        (config(gpu_name_arr=[]), "gpu_name_arr: expected at least one"),
        (config(dnn_name="../b"), r"\[1\]\.config\.dnn_name: expected a name of letters"),
        (config(dnn_name="wide_net_2"), r"\[1\]\.config\.dnn_name: expected another name"),
        (config(dnn_name="c"), "file name: expected the models and GPU classes of the content"),
        (config(max_num_parts=3), r"\[1\]\.config: expected fleet, stages and .* of \[0\]"),
        (config(bs_same=False), "bs_same: expected true: all stages of a pipeline have one batch"),
        (config(hist_adjustment_w_scheduling=5), "hist_adjustment_w_scheduling: expected 0"),
        (partition(gpu="V100"), r"partitions\[1\]\.gpu: expected one of L4, T4, found 'V100'"),
        (
            partition(layers=[1, 3]),
            "expected stages that cover blocks 0 to 3 once, in order, found",
        ),
        (partition(layers=[2]), r"partitions\[1\]\.layers"),
        (
            partition(mps=1),
            r"partitions\[1\]\.mps: expected less than 1, the levels of T4, found 1",
        ),
        (partition(bs=0), r"partitions\[1\]\.bs: expected at least 1"),
        (lambda entries: entries[0].pop("xput"), r"\[0\]\.xput: expected a value"),
        (lambda entries: entries[0].pop("pipelines"), r"\[0\]\.pipelines: expected a list"),
        (lambda entries: entries[0].pop("config"), r"\[0\]\.config: expected an object"),
        (lambda entries: entries.pop(), "file name: expected the models and GPU classes"),
        (lambda entries: entries.clear(), "expected at least one, found an empty list"),
    ],
)
def test_malformed_content_is_named(artifact: Path, change: Change, complaint: str) -> None:
    entries = [entry(model) for model in MODELS]
    change(entries)
    path = write_plans(artifact, entries)
    with pytest.raises(InvalidInput, match=complaint) as caught:
        configurations(artifact, "main")
    assert caught.value.source == str(path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "expected JSON"),
        ("[{", "expected JSON"),
        ("{}", "expected a list, found an empty object"),
        ("[1]", r"\[0\]: expected an object, found 1"),
        ('[{"xput": NaN}]', r"\[0\]\.xput: expected a finite number"),
        ('[{"xput": 1, "xput": 2}]', "expected every key once"),
    ],
)
def test_files_that_are_no_plans_are_named(artifact: Path, text: str, complaint: str) -> None:
    path = write_plans(artifact, text)
    with pytest.raises(InvalidInput, match=complaint) as caught:
        configurations(artifact, "main")
    assert caught.value.source == str(path)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("_0.4-0.6_", "_0.4_", "expected 2 weights, one for each model, found 1"),
        ("_0.4-0.6_", "_", "expected 2 weights, one for each model, found 0"),
        ("_0.4-0.6_", "_0.4-x_", "expected the models and GPU classes of the content"),
        ("_0.4-0.6_", "_0.0-0.6_", "expected weights of more than 0"),
        ("_L4-T4_", "_L4-P4_", "expected the models and GPU classes of the content"),
        ("_2-3_", "_2_", "expected 2 counts, one for each GPU class, found 1"),
        ("_2-3_", "_0-0_", "expected at least one GPU"),
        ("_2-3_", "_", "expected a name such as"),
        ("gbps-8", "gbps-9", r"\[0\]\.config\.bw_gbps: expected 9, as in the file name, found 8"),
    ],
)
def test_names_that_do_not_fit_their_content(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    write_timings(tmp_path)
    write_plans(tmp_path, [entry(model) for model in MODELS], NAME.replace(old, new))
    with pytest.raises(InvalidInput, match=complaint):
        configurations(tmp_path, "main")


def test_an_unknown_scheduler_is_refused(artifact: Path) -> None:
    write_plans(artifact, [], scheduler="v5")
    with pytest.raises(InvalidInput, match=r"expected a name ending in _v4\.json or _dart-r"):
        configuration_names(artifact, "main")


def test_schedulers_must_agree_on_the_bytes_of_cuts(artifact: Path) -> None:
    others = [entry(model, transmit_time_us_arr=[900.0, 0.5]) for model in MODELS]
    write_plans(artifact, others, scheduler="dart-r")
    with pytest.raises(InvalidInput, match="transmit_time_us_arr of wide_net_2: expected the same"):
        configurations(artifact, "main")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "expected a file, found none"),
        ("", "expected 3 rows, one for each block, found 0"),
        ("1,2\n3,4\n", "expected 3 rows, one for each block, found 2"),
        ("1,2\n3\n4,5\n", "line 2: expected 2 latencies, as in line 1, found 1"),
        ("1,2\n3,-4\n5,6\n", "line 2, column 2: expected a latency in microseconds"),
        ("1,2\n3,0\n5,6\n", "line 2, column 2: expected a latency in microseconds"),
        ("1,2\n3,nan\n5,6\n", "line 2, column 2: expected a latency"),
        ("1,2\n3,inf\n5,6\n", "line 2, column 2: expected a latency"),
        ("1,2\n3,\n5,6\n", "line 2, column 2: expected a latency in microseconds, more than 0"),
        ("batch1\n1\n2\n", "line 1, column 1: expected a latency .* found 'batch1'"),
        (b"\xff\xfe", "expected text in UTF-8"),
    ],
)
def test_malformed_latencies_are_named(
    artifact: Path, text: str | bytes | None, complaint: str
) -> None:
    path = artifact / "models" / "block-timing-tf32" / "wide_net_2-L4-2.csv"
    path.unlink()
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InvalidInput, match=complaint) as caught:
        configurations(artifact, "main")
    assert caught.value.source == str(path)


@needs_data
def test_the_published_plans_are_all_read() -> None:
    found = configurations(DATA, "maf19")
    assert len(found) == 24
    for each in found:
        assert list(each.plans) == list(Scheduler)
        for plan in each.plans.values():
            options = plan.cluster.options
            margins = {m.name: margin_us(m.slo_us, options.slo_margin) for m in plan.cluster.models}
            assert margins == plan.margins_us
    gains = [each.objectives[Scheduler.PPIPE] / each.objectives[Scheduler.DART_R] for each in found]
    assert sum(gains) / len(gains) == pytest.approx(1.39, abs=0.005)


@needs_data
@pytest.mark.parametrize("scheduler", Scheduler)
def test_published_stages_have_the_latencies_of_the_profiles(scheduler: Scheduler) -> None:
    for configuration in configurations(DATA, "maf19"):
        tables = {key: StageLatency(each) for key, each in configuration.profiles.items()}
        for pipeline in configuration.plans[scheduler].pipelines:
            for stage in pipeline.stages:
                table = tables[pipeline.model, stage.gpu_class]
                blocks, share = (stage.first_block, stage.end_block), Fraction(1, stage.m)
                assert table.stage_latency_us(*blocks, stage.batch, share) == stage.latency_us


@needs_data
@pytest.mark.parametrize("scheduler", Scheduler)
def test_published_plans_keep_to_their_fleets(scheduler: Scheduler) -> None:
    for configuration in configurations(DATA, "maf19"):
        plan = configuration.plans[scheduler]
        for each in plan.cluster.gpu_classes:
            held = sum(n for (_, gpu_class), n in plan.gpus().items() if gpu_class == each.name)
            assert held <= each.count
