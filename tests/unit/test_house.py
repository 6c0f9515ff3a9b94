"""The house: rooms are ours, doors open, and nobody pays for what they do not use."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest

from penstock import __version__
from penstock.command import build_app, run
from penstock.console import one_line, show_json
from penstock.domain.errors import (
    Infeasible,
    InvalidPlan,
    PenstockError,
    PlanningFailed,
    UnknownName,
)
from penstock.verbs import VERBS, Verb, verbs_of

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = tuple(PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
ROOMS = ("planner", "frontend", "worker", "simulator", "profiler", "client")
HEAVY = {"torch", "grpc", "ortools", "matplotlib", "pydantic", "transformers", "sklearn"}
TYPER_MAY_USE = {"pydantic"}  # recent versions read parameters with it

# Runs code, then tells which top-level packages it left in memory.
PROBE = """
import json, sys
try:
    {code}
except SystemExit as ended:
    assert not ended.code, ended.code
names = sorted({{name.partition(".")[0] for name in sys.modules}})
sys.stderr.write(json.dumps(names))
"""


def packages_after(code: str) -> set[str]:
    """Return the top-level packages in memory after some code ran in a fresh interpreter."""
    probe = [sys.executable, "-c", PROBE.format(code=code.replace("\n", "\n    "))]
    done = subprocess.run(probe, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


def packages_after_command(*arguments: str) -> set[str]:
    return packages_after(
        "from penstock.command import run\n"
        "from penstock.verbs import VERBS\n"
        f"run('penstock', VERBS, {list(arguments)!r})"
    )


def packages_after_importing(room: str) -> set[str]:
    """Import every module of a room, apart from its door."""
    paths = sorted((ROOT / room).rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    modules = [name for name in names if not name.endswith(("__main__", "__init__"))]
    return packages_after("\n".join(f"import {name}" for name in [room, *modules]))


@pytest.mark.parametrize("package", [*PACKAGES, "tests"])
def test_each_package_is_the_one_in_this_repository(package: str) -> None:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    assert Path(next(iter(spec.submodule_search_locations))) == ROOT / package


@pytest.mark.parametrize("package", PACKAGES)
def test_no_other_distribution_claims_our_package_names(package: str) -> None:
    owners = importlib.metadata.packages_distributions().get(package, [])
    assert set(owners) <= {"penstock"}


def test_the_distribution_holds_every_room_and_no_tests() -> None:
    assert set(ROOMS) < set(PACKAGES)
    assert "tests" not in PACKAGES


def test_version_is_written_the_same_everywhere() -> None:
    assert PYPROJECT["project"]["version"] == __version__
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_constraints_pin_everything_exactly_and_for_every_platform() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", pin) for pin in pins)
    assert "torch==2.13.0" in pins


def test_dependencies_have_no_upper_bounds() -> None:
    project = PYPROJECT["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    wanted = [one.partition(";")[0] for group in groups for one in group]
    assert [one for one in wanted if re.search(r"<|~=|==", one)] == []


def test_help_lists_every_verb_and_imports_nothing_heavy() -> None:
    assert packages_after_command("--help") & (HEAVY | {"rich", "numpy", "asyncio"}) == set()


def test_help_shows_each_verb_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("penstock", VERBS, ["--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert [verb.name for verb in VERBS if one_line(verb.help) not in one_line(shown)] == []


def test_version_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("penstock", VERBS, ["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"penstock {__version__}\n")


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_each_verb_explains_itself_and_imports_nothing_heavy(verb: Verb) -> None:
    assert packages_after_command(verb.name, "--help") & (HEAVY - TYPER_MAY_USE) == set()


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_each_verb_speaks_json(verb: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("penstock", VERBS, [verb.name, "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert "--json" in shown
    assert "Raises:" not in shown


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_has_its_own_door(room: str) -> None:
    assert verbs_of(room)
    door = [sys.executable, "-m", room, "--help"]
    done = subprocess.run(door, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"python -m {room}" in done.stdout


def test_frontend_needs_neither_torch_nor_a_solver() -> None:
    assert packages_after_importing("frontend") & {"torch", "ortools", "sklearn"} == set()


def test_planner_needs_neither_torch_nor_the_network() -> None:
    assert packages_after_importing("planner") & {"torch", "grpc"} == set()


def test_simulator_needs_no_network_no_torch_no_solver() -> None:
    assert packages_after_importing("simulator") & {"torch", "grpc", "ortools"} == set()


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """Hold a verb `fail` that raises what a test puts into this list."""
    errors: list[BaseException] = []

    def fail() -> None:
        """Fail.

        Raises:
            BaseException: always.
        """
        raise errors[0]

    module = types.ModuleType("failing_cli")
    vars(module)["fail"] = fail
    monkeypatch.setitem(sys.modules, "failing_cli", module)
    monkeypatch.delenv("PENSTOCK_TRACEBACK", raising=False)
    return errors


FAIL = (Verb("fail", "failing_cli:fail", "Fail."), Verb("other", "nowhere:other", "Stay unloaded."))


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (PenstockError("two\nlines"), 1, "error: two lines"),
        (PlanningFailed("no time"), 1, "error: no time"),
        (InvalidPlan("p.json", "a.b", "1", "2"), 2, "error: p.json: a.b: expected 1, found 2"),
        (UnknownName("policy", "x", ["b", "a"]), 2, "error: unknown policy 'x'; known: a, b"),
        (Infeasible(["too slow", "too big"]), 3, "error: infeasible: too slow; too big"),
        (FileNotFoundError(2, "No such file", "x.csv"), 1, "error: x.csv: No such file"),
        (
            ModuleNotFoundError("No module named 'ortools.math_opt'", name="ortools.math_opt"),
            1,
            "error: ortools is not installed; pip install 'penstock[planner]' brings it",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_errors_become_one_line_and_a_code(
    error: Exception,
    code: int,
    line: str,
    failing: list[BaseException],
    capsys: pytest.CaptureFixture[str],
) -> None:
    failing.append(error)
    with pytest.raises(SystemExit) as ended:
        run("penstock", FAIL, ["fail"])
    said = capsys.readouterr()
    assert (ended.value.code, said.err, said.out) == (code, line + "\n", "")


def test_an_interrupt_ends_without_a_word_of_python(
    failing: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    failing.append(KeyboardInterrupt())
    with pytest.raises(SystemExit) as ended:
        run("penstock", FAIL, ["fail"])
    assert ended.value.code == 130
    assert "Traceback" not in capsys.readouterr().err


def test_bugs_keep_their_traceback(failing: list[BaseException]) -> None:
    failing.append(ModuleNotFoundError("No module named 'planner.nowhere'", name="planner.nowhere"))
    with pytest.raises(ModuleNotFoundError):
        run("penstock", FAIL, ["fail"])


def test_a_traceback_can_be_asked_for(
    failing: list[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_TRACEBACK", "1")
    failing.append(PenstockError("x"))
    with pytest.raises(PenstockError):
        run("penstock", FAIL, ["fail"])


def test_an_unknown_verb_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("penstock", FAIL, ["nix"])
    assert ended.value.code == 2
    assert "nix" in capsys.readouterr().err


def test_a_lone_verb_needs_no_name(failing: list[BaseException]) -> None:
    failing.append(Infeasible(["x"]))
    with pytest.raises(SystemExit) as ended:
        run("python -m failing", FAIL[:1], [])
    assert ended.value.code == 3


def test_only_the_called_verb_is_imported(failing: list[BaseException]) -> None:
    assert not failing
    build_app(FAIL, ["fail"])  # `other` lives nowhere
    with pytest.raises(ModuleNotFoundError):
        build_app(FAIL, ["other"])


def test_json_output_is_stable_and_strict(capsys: pytest.CaptureFixture[str]) -> None:
    show_json({"b": [1, 2.5], "a": "µ"})
    assert capsys.readouterr().out == '{\n  "a": "µ",\n  "b": [\n    1,\n    2.5\n  ]\n}\n'
    with pytest.raises(ValueError, match="JSON compliant"):
        show_json(float("nan"))


PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_pages_name_only_verbs_that_exist() -> None:
    named = {verb for page in PAGES for verb in re.findall(r"`penstock ([a-z]+)", page.read_text())}
    assert named <= {verb.name for verb in VERBS}
