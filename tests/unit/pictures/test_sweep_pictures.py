"""Pictures of a sweep: attainment over load with bands, utilisation in bars, looks and legends."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from penstock.pictures import loads, utilisation
from penstock.pictures.canvas import PALETTE
from penstock.pictures.loads import draw_loads
from penstock.pictures.series import legend_rows, look_of
from penstock.pictures.utilisation import draw_utilisation
from penstock.pictures.values import BandPoint, UsePoint

PNG_HEADER = b"\x89PNG\r\n\x1a\n"


def curve(*attainments: float, wide: float = 0.0) -> list[BandPoint]:
    return [
        BandPoint(x=0.5 + number / 4, mean=each, low=max(0.0, each - wide), high=each)
        for number, each in enumerate(attainments)
    ]


def bars(*busy: float, used: float = 0.5) -> list[UsePoint]:
    return [
        UsePoint(load=0.5 + number / 4, mean=each, useful=each / 2, low=each, high=each, used=used)
        for number, each in enumerate(busy)
    ]


def texts_of(path: Path) -> str:
    root = ElementTree.fromstring(path.read_text())  # our own file
    return "\n".join("".join(each.itertext()) for each in root.iter() if each.tag.endswith("text"))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Hold the figures that would have been written."""
    figures: list[Figure] = []
    for module in (loads, utilisation):
        monkeypatch.setattr(module, "save", lambda figure, _: figures.append(figure))
    return figures


def test_attainment_names_panels_lines_and_units(tmp_path: Path) -> None:
    path = tmp_path / "attainment.svg"
    lines = {"ours": curve(1.0, 0.995, 0.9), "theirs": curve(0.97, 0.5, 0.2, wide=0.1)}
    draw_loads({"all models": lines, "bert": lines}, path, target=0.95, subtitle="three seeds")
    texts = texts_of(path)
    for words in (
        "Attainment against load",
        "three seeds",
        "all models",
        "bert",
        "target 95%",
        "answered within the SLO",
        "99.9%",
        "load",
    ):
        assert words in texts
    assert len(re.findall("^(?:ours|theirs|target 95%)$", texts, re.MULTILINE)) == 3  # one legend


def test_a_series_keeps_its_look_where_it_has_no_points(drawn: list[Figure]) -> None:
    both = {"ours": curve(1.0), "theirs": curve(0.9)}
    draw_loads({"a": both, "b": {"theirs": curve(0.9)}}, Path("x.png"))
    colours = [
        {
            str(line.get_label()): line.get_color()
            for line in axes.lines
            if line.get_label() != "ours"
        }
        for axes in drawn[0].axes
    ]
    assert colours[0]["theirs"] == colours[1]["theirs"] == PALETTE[1]


def test_the_scale_grows_towards_all_and_holds_all_points(drawn: list[Figure]) -> None:
    draw_loads({"": {"x": curve(1.0, 0.83)}}, Path("x.png"))
    draw_loads({"": {"x": curve(1.0, 1.0)}}, Path("x.png"))
    draw_loads({"": {"x": curve(1.0, 0.0)}}, Path("x.png"))
    lowest = [figure.axes[0].get_ylim()[0] for figure in drawn]
    assert lowest == pytest.approx([0.8, 0.95, 0.0])
    axes = drawn[2].axes[0]
    places = axes.transScale.transform([(1.0, each) for each in (0.0, 0.9, 0.99, 0.999, 1.0)])
    steps = np.diff(places[:, 1])
    assert (steps > 0).all()
    assert steps[1] == pytest.approx(steps[0], rel=0.1)  # 90 to 99 as far as 0 to 90
    assert axes.get_ylim()[1] > 1.0


def test_bands_are_drawn_only_where_seeds_differ(drawn: list[Figure]) -> None:
    draw_loads({"": {"x": curve(1.0, 0.9)}}, Path("x.png"))
    draw_loads({"": {"x": curve(1.0, 0.9, wide=0.05)}}, Path("x.png"))
    assert [len(figure.axes[0].collections) for figure in drawn] == [0, 1]


def test_utilisation_is_stacked_from_useful_to_used(drawn: list[Figure]) -> None:
    draw_utilisation({"L4 · 8 GPUs": {"ours": bars(0.2, 0.4)}}, Path("x.png"))
    heights = [[bar.get_height() for bar in each.patches] for each in drawn[0].axes[0].containers]  # type: ignore[attr-defined]  # bars
    assert heights == [[0.5, 0.5], [0.2, 0.4], [0.1, 0.2]]  # drawn upon one another
    assert drawn[0].axes[0].get_ylim() == pytest.approx((0, 0.6))


def test_utilisation_names_classes_and_series(tmp_path: Path) -> None:
    path = tmp_path / "utilisation.svg"
    panels = {"L4 · 8 GPUs": {"ours": bars(0.2), "theirs": bars(0.4, used=1.0)}, "T4 · 1 GPU": {}}
    draw_utilisation(panels, path, load_label="load (1 = 5 samples/s)")
    texts = texts_of(path)
    for words in ("L4 · 8 GPUs", "T4 · 1 GPU", "ours", "theirs", "100%", "1 = 5 samples/s"):
        assert words in texts


def test_too_many_bars_are_thinned_and_the_greatest_load_stays(drawn: list[Figure]) -> None:
    draw_utilisation({"L4": {"ours": bars(*[0.1] * 200)}}, Path("x.png"))
    ticks = [each.get_text() for each in drawn[0].axes[0].get_xticklabels()]
    assert len(ticks) <= 72
    assert ticks[-1] == f"{0.5 + 199 / 4:g}"


@pytest.mark.parametrize("suffix", ["png", "svg", "html"])
@pytest.mark.parametrize("panels", [{}, {"": {}}, {"": {"x": []}}])
def test_next_to_nothing_can_be_drawn(
    panels: dict[str, dict[str, list[BandPoint]]], suffix: str, tmp_path: Path
) -> None:
    for name in ("attainment", "utilisation"):
        path = tmp_path / f"{name}.{suffix}"
        if name == "attainment":
            draw_loads(panels, path)
        else:
            draw_utilisation({key: {"x": []} if each else {} for key, each in panels.items()}, path)
        assert path.stat().st_size > 1_000


def test_equal_pictures_are_equal_files(tmp_path: Path) -> None:
    for name in ("first", "again"):
        draw_loads({"": {"x": curve(1.0, 0.9)}}, tmp_path / f"{name}.svg")
    assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "again.svg").read_bytes()


def test_no_two_of_many_series_look_alike() -> None:
    looks = [look_of(number) for number in range(21)]
    assert len({(each.colour, each.dashes) for each in looks}) == 21
    assert len({(each.colour, each.hatch) for each in looks}) == 21


def test_a_legend_takes_the_rows_it_needs() -> None:
    assert legend_rows([], 8.0) == 0
    assert legend_rows(["a", "b", "c"], 8.0) == 1
    assert legend_rows(["a" * 60] * 3, 8.0) == 3
    # One long name does not make the other columns wide.
    assert legend_rows(["a", "b", "c", "a" * 60], 9.0) == 1
