from __future__ import annotations

from dataclasses import fields
from inspect import signature
from pathlib import Path

import typer
from typer.testing import CliRunner

from penstock.domain.cluster import PlannerOptions
from planner.asked import AsJson, Asked, all_but, asks


def test_all_options_are_the_planners() -> None:
    assert set(all_but()) <= {each.name for each in fields(PlannerOptions)}
    assert all_but("seed", "mode") == tuple(
        each for each in all_but() if each not in {"seed", "mode"}
    )


def asking(*names: str) -> tuple[typer.Typer, list[tuple[object, ...]]]:
    """Return a verb that takes options of those names, and the calls that it gets."""
    app, calls = typer.Typer(), list[tuple[object, ...]]()

    @app.command()
    @asks(*names)
    def verb(path: Path = Path("here"), *, asked: Asked, as_json: AsJson = False) -> None:
        """Do it."""
        calls.append((path, asked, as_json))

    return app, calls


def test_a_verb_gets_what_was_asked_for_by_the_names_of_options() -> None:
    app, calls = asking("slo_margin", "mode", "rebatch", "max_price_per_hour")
    given = ["--margin", "0.25", "--mode", "compat", "--no-rebatch", "--json", "--path", "there"]
    assert CliRunner().invoke(app, given).exit_code == 0
    asked = {"slo_margin": 0.25, "mode": "compat", "rebatch": False, "max_price_per_hour": None}
    assert calls == [(Path("there"), asked, True)]


def test_a_verb_takes_no_other_options() -> None:
    app, calls = asking("seed")
    assert CliRunner().invoke(app, ["--seed", "1"]).exit_code == 0
    assert CliRunner().invoke(app, ["--margin", "0.25"]).exit_code == 2
    assert calls == [(Path("here"), {"seed": 1}, False)]


def test_options_stand_where_the_verb_has_them() -> None:
    @asks("mode", "seed")
    def verb(path: Path, *, asked: Asked, as_json: AsJson = False) -> None:
        """Do it."""

    assert list(signature(verb).parameters) == ["path", "mode", "seed", "as_json"]
    assert (verb.__name__, verb.__doc__) == ("verb", "Do it.")
