"""Options of all verbs and benches: what they refuse before anything begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, get_args

import pytest
import typer
from typer.testing import CliRunner

from bench import planner_scale, ppipe_load, ppipe_plans, replan, sim_vs_live, simulator_speed
from penstock.command import load, run
from penstock.domain.errors import InvalidSettings
from penstock.options import drawable, finite
from penstock.verbs import VERBS

# The frontend's settings check its options, which may come from the environment as well.
VERB_FUNCTIONS = [load(verb) for verb in VERBS if verb.name != "frontend"]
BENCHES = [
    planner_scale.main,
    ppipe_load.main,
    ppipe_plans.main,
    replan.main,
    sim_vs_live.main,
    simulator_speed.main,
]


def options_of(function: Callable[..., object], kind: type) -> Iterator[tuple[str, Any]]:
    """Yield the name and the typer option of each parameter that may be of a type."""
    for name, parameter in signature(function, eval_str=True).parameters.items():
        annotated = get_args(parameter.annotation)
        if annotated and kind in (annotated[0], *get_args(annotated[0])):
            yield name, annotated[1]


@pytest.mark.parametrize("function", [*VERB_FUNCTIONS, *BENCHES], ids=lambda each: each.__module__)
def test_every_number_has_to_be_finite(function: Callable[..., object]) -> None:
    assert [n for n, option in options_of(function, float) if option.callback is not finite] == []


@pytest.mark.parametrize("function", VERB_FUNCTIONS, ids=lambda each: each.__module__)
def test_every_picture_has_to_be_drawable(function: Callable[..., object]) -> None:
    plots = [option for name, option in options_of(function, Path) if name == "plot"]
    assert [option for option in plots if option.callback is not drawable] == []


@pytest.mark.parametrize("found", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "arguments", [("explain", "plan.json", "--seconds"), ("bench", "--duration")]
)
def test_no_finite_number_is_one_error_and_exit_code_2(
    arguments: tuple[str, ...], found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run("penstock", VERBS, [*arguments, found])
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (2, "")
    told = [line for line in said.err.splitlines() if "Error" in line]
    assert len(told) == 1
    assert f"Invalid value for '{arguments[-1]}'" in told[0]


@pytest.mark.parametrize("found", ["nan", "inf", "-inf"])
def test_only_finite_numbers_pass(found: str) -> None:
    app, given = typer.Typer(), list[float | None]()

    @app.command()
    def verb(rate: Annotated[float | None, typer.Option(callback=finite)] = None) -> None:
        """Do it."""
        given.append(rate)

    refused = CliRunner().invoke(app, ["--rate", found])
    assert refused.exit_code == 2
    assert f"{float(found)} is not a finite number" in refused.output
    assert CliRunner().invoke(app, ["--rate", "2.5"]).exit_code == 0
    assert CliRunner().invoke(app, []).exit_code == 0
    assert given == [2.5, None]


def test_only_known_formats_are_drawable() -> None:
    assert drawable(None) is None
    assert drawable(Path("map.svg")) == Path("map.svg")
    with pytest.raises(InvalidSettings, match=r"map\.doc"):
        drawable(Path("map.doc"))


@pytest.mark.parametrize("verb", [("simulate", "plan.json"), ("bench",)], ids=lambda each: each[0])
def test_a_picture_in_an_unknown_format_is_refused_before_anything_is_read(
    verb: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run("penstock", VERBS, [*verb, "--plot", "picture.doc"])
    assert ended.value.code == 2
    assert "picture.doc: expected a picture" in capsys.readouterr().err
