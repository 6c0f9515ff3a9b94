"""Pictures: real files of each format that say what they should."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from penstock.domain.errors import InvalidSettings
from penstock.domain.ids import BatchId, InstanceId, ModelName, PoolId
from penstock.domain.outcomes import Interval, Outcome
from penstock.domain.plan import Plan
from penstock.pictures import frontier
from penstock.pictures.attainment import draw_attainment
from penstock.pictures.canvas import PALETTE, ink_on, tint
from penstock.pictures.curve import draw_slo_curve
from penstock.pictures.frontier import draw_frontier
from penstock.pictures.latency import draw_latency
from penstock.pictures.poolmap import draw_pool_map
from penstock.pictures.timeline import draw_timeline
from penstock.pictures.values import LevelPoint, LoadPoint, ScalePoint
from tests.support.builders import a_model_plan, a_plan, a_pool

PNG_HEADER = b"\x89PNG\r\n\x1a\n"
DIGITS = ModelName("digits")


def the_plan() -> Plan:
    front = a_pool("front", blocks=(0, 4), gpu_class="T4", instances=3, share=Fraction(1, 2))
    back = a_pool("back", position=1, blocks=(4, 10), gpu_class="L4", latencies_us=(9_000,))
    whole = a_pool("whole", blocks=(0, 10), gpu_class="L4", latencies_us=(7_000, 12_500))
    return a_plan(
        a_model_plan([front, back], [whole], model=DIGITS, throughput_rps=250.0),
        a_model_plan([replace(whole, instances=2)], model=ModelName("bert"), throughput_rps=30.0),
    )


def outcomes() -> list[Outcome]:
    latencies: list[int | None] = [20_000, 30_000, 120_000, None]
    return [
        Outcome(
            model=DIGITS,
            arrival_us=number * 10_000,
            samples=1,
            slo_us=100_000,
            latency_us=latencies[number % 4],
            cause="" if latencies[number % 4] else "UNAVAILABLE",
        )
        for number in range(40)
    ]


def intervals(batches: int = 12) -> list[Interval]:
    return [
        Interval(
            instance=InstanceId(f"pool{stage}/{batch % 2}"),
            stage=stage,
            batch=BatchId(batch),
            samples=batch % 3 + 1,
            start_us=batch * 10_000 + stage * 20_000,
            end_us=batch * 10_000 + stage * 20_000 + 18_000,
        )
        for batch in range(batches)
        for stage in (0, 1)
    ]


def series() -> dict[str, list[LoadPoint]]:
    loads = (100.0, 200.0, 300.0)
    return {
        "pools": [LoadPoint(offered_rps=load, attainment=1.0) for load in loads],
        "whole": [LoadPoint(offered_rps=load, attainment=1.2 - load / 500) for load in loads],
    }


def scales() -> dict[str, list[ScalePoint]]:
    return {
        "cut": [
            ScalePoint(scale=scale, value=100.0 * scale, bound=110.0 * scale)
            for scale in (0.75, 1.0, 2.0)
        ],
        "whole": [
            ScalePoint(scale=0.75, value=None, bound=None),
            ScalePoint(scale=1.0, value=60.0, bound=60.0),
        ],
    }


def levels() -> list[LevelPoint]:
    return [
        LevelPoint(level_rps=200.0, spent=9.0, bound=8.0, gpus={"L4": 2, "T4": 3}),
        LevelPoint(level_rps=100.0, spent=3.0, bound=3.0, gpus={"T4": 3}),
    ]


DRAWINGS: dict[str, Callable[[Path], None]] = {
    "pool map": lambda path: draw_pool_map(the_plan(), path),
    "timeline": lambda path: draw_timeline(intervals(), path),
    "latency": lambda path: draw_latency(outcomes(), 100_000, path),
    "attainment": lambda path: draw_attainment(series(), path, planned_rps=250.0),
    "SLO curve": lambda path: draw_slo_curve(scales(), path),
    "frontier": lambda path: draw_frontier(levels(), path),
}


def texts_of(path: Path) -> str:
    """Return the words of an svg, one line per text."""
    root = ElementTree.fromstring(path.read_text())  # our own file
    assert root.tag.endswith("svg")
    texts = [each for each in root.iter() if each.tag.endswith(("text", "tspan"))]
    return "\n".join("".join(each.itertext()) for each in texts)


@pytest.mark.parametrize("name", DRAWINGS)
def test_png(name: str, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    DRAWINGS[name](path)
    content = path.read_bytes()
    assert content.startswith(PNG_HEADER)
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    assert width > 800
    assert height > 250
    assert len(content) > 10_000


@pytest.mark.parametrize("name", DRAWINGS)
def test_equal_pictures_are_equal_files(name: str, tmp_path: Path) -> None:
    first, again = tmp_path / "first.svg", tmp_path / "again.svg"
    DRAWINGS[name](first)
    DRAWINGS[name](again)
    assert first.read_bytes() == again.read_bytes()


def test_html_is_one_page_with_a_title_and_the_drawing(tmp_path: Path) -> None:
    path = tmp_path / "picture.HTML"
    draw_pool_map(the_plan(), path, "Pools <of> the demo")
    page = path.read_text()
    assert page.startswith("<!doctype html>")
    assert "<title>Pools &lt;of&gt; the demo</title>" in page
    assert page.count("<svg") == 1
    assert "<?xml" not in page


@pytest.mark.parametrize("name", ["picture.pdf", "picture"])
def test_other_formats_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match=r"expected a picture as \.png, \.svg, \.html"):
        draw_timeline(intervals(), tmp_path / name)


def test_the_pool_map_says_which_gpus_run_what(tmp_path: Path) -> None:
    path = tmp_path / "map.svg"
    draw_pool_map(the_plan(), path)
    texts = texts_of(path)
    for words in (
        "2 models on 6 of 16 GPUs",
        "digits",
        "250.0 requests/s planned · SLO 100 ms",
        "3 instances, each on 1/2 T4",
        "stage 1: blocks 0-3",
        "1 instance, on one L4",
        "stage 2: blocks 4-9",
        "batch 2 in 12.5 ms",
        "2 instances, each on one L4",
        "125.0/s",
        "2 of 8 used · 10 Gbit/s",
        "4 of 8 used · 10 Gbit/s",
        "digits, stage 2",
        "bert, stage 1",
        "free",
    ):
        assert words in texts


def test_the_pool_map_holds_a_large_fleet(tmp_path: Path) -> None:
    plan = the_plan()
    large = tuple(replace(each, count=200) for each in plan.gpu_classes)
    path = tmp_path / "map.svg"
    draw_pool_map(replace(plan, gpu_classes=large), path)
    assert "2 of 200 used" in texts_of(path)


def test_instances_of_several_models_share_a_square(tmp_path: Path) -> None:
    half = a_pool("half", gpu_class="L4", share=Fraction(1, 2))
    models = [
        a_model_plan([replace(half, id=PoolId(name))], model=ModelName(name))
        for name in ("digits", "bert")
    ]
    drawn = {}
    for packing in ("whole-gpu", "per-stage"):
        path = tmp_path / f"{packing}.svg"
        draw_pool_map(replace(a_plan(*models), packing=packing), path)
        drawn[packing] = texts_of(path)
    assert "2 models on 1 of 8 GPUs" in drawn["whole-gpu"]
    assert "1 of 8 used" in drawn["whole-gpu"]
    assert "2 models on 2 of 8 GPUs" in drawn["per-stage"]


def test_the_curve_names_its_lines_and_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "curve.svg"
    draw_slo_curve(scales(), path, unit="cost per hour")
    texts = texts_of(path)
    for words in ("cut", "whole", "no plan found", "SLOs as they are", "cost per hour"):
        assert words in texts
    draw_slo_curve({"cut": scales()["cut"]}, path)
    assert "no plan found" not in texts_of(path)


def test_the_frontier_counts_gpus_by_class(tmp_path: Path) -> None:
    path = tmp_path / "frontier.svg"
    draw_frontier(levels(), path)
    texts = texts_of(path)
    for words in ("cost per hour", "GPUs in use", "L4", "T4", " 3", " 5"):
        assert words in texts
    assert "no plan" not in texts


def test_levels_without_a_plan_are_marked_and_not_drawn(tmp_path: Path) -> None:
    path = tmp_path / "frontier.svg"
    in_vain = LevelPoint(level_rps=150.0, spent=None, bound=3.0, gpus={})
    draw_frontier([*levels(), in_vain], path)
    texts = texts_of(path)
    assert "no plan found in time" in texts
    assert "infeasible" not in texts
    draw_frontier([*levels(), in_vain, replace(in_vain, infeasible=True)], path)
    texts = texts_of(path)
    assert "no plan found in time" in texts
    assert "infeasible: there is no plan" in texts


def test_a_level_without_a_plan_breaks_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(frontier, "save", lambda figure, _: drawn.append(figure))
    in_vain = LevelPoint(level_rps=150.0, spent=None, bound=3.0, gpus={})
    draw_frontier([*levels(), in_vain], Path("frontier.svg"))
    above, below = drawn[0].axes
    line, marks = above.lines
    np.testing.assert_array_equal(np.asarray(line.get_ydata()), [3.0, np.nan, 9.0])
    np.testing.assert_array_equal(np.asarray(marks.get_xdata()), [150.0])
    assert [each.get_position()[0] for each in below.texts] == [100.0, 200.0]


def test_the_timeline_names_instances_and_stages(tmp_path: Path) -> None:
    path = tmp_path / "timeline.svg"
    draw_timeline(intervals(), path)
    texts = texts_of(path)
    for words in ("pool0/0", "pool0/1", "pool1/1", "stage 1", "stage 2", "time (ms)", "12 batches"):
        assert words in texts


def test_a_long_timeline_shows_a_readable_part(tmp_path: Path) -> None:
    path = tmp_path / "timeline.svg"
    draw_timeline(intervals(2_000), path)
    shown = re.search(r"(\d+) batches in ([\d,]+) ms", texts_of(path))
    assert shown is not None
    assert int(shown[1]) < 100


def test_a_window_can_be_chosen(tmp_path: Path) -> None:
    path = tmp_path / "timeline.svg"
    draw_timeline(intervals(), path, window_us=(0, 15_000))
    assert "2 batches in 15 ms" in texts_of(path)


def test_the_latency_picture_counts_each_kind(tmp_path: Path) -> None:
    path = tmp_path / "latency.svg"
    draw_latency(outcomes(), 100_000, path, "Latency of digits")
    texts = texts_of(path)
    for words in (
        "Latency of digits",
        "50.00% of 40 requests",
        "SLO 100 ms",
        "in time (20)",
        "too late (10)",
        "no answer (10)",
        "p50  30.0 ms",
    ):
        assert words in texts
    assert "p99" not in texts  # a quarter was never answered


def test_a_distant_slo_does_not_flatten_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "latency.svg"
    draw_latency([replace(outcomes()[0], slo_us=9_000_000)], 9_000_000, path)
    assert "SLO 9000 ms →" in texts_of(path)


def test_the_attainment_picture_names_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "attainment.svg"
    draw_attainment(series(), path, target=0.995, planned_rps=250.0)
    texts = texts_of(path)
    for words in ("pools", "whole", "target 99.5%", "planned 250/s", "requests per second"):
        assert words in texts


@pytest.mark.parametrize(
    "draw",
    [
        lambda path: draw_timeline([], path),
        lambda path: draw_latency([], 100_000, path),
        lambda path: draw_latency(outcomes()[3:4], 100_000, path),
        lambda path: draw_attainment({}, path),
        lambda path: draw_pool_map(a_plan(), path),
        lambda path: draw_slo_curve({}, path),
        lambda path: draw_frontier([], path),
    ],
)
def test_next_to_nothing_can_be_drawn(draw: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "empty.png"
    draw(path)
    assert path.read_bytes().startswith(PNG_HEADER)


def test_text_on_a_colour_can_be_read() -> None:
    assert tint("#000000", 0.0) == (1.0, 1.0, 1.0)
    assert ink_on(tint(PALETTE[0], 1.0)) == "white"
    assert ink_on(tint(PALETTE[0], 0.2)) != "white"
