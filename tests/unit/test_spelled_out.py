"""What the compiler is told must be what `dataclasses` would have made."""

from __future__ import annotations

import inspect
import sys
from dataclasses import is_dataclass
from pathlib import Path
from types import ModuleType
from typing import get_type_hints

import pytest

from tools.compiled import MODULES, ROOT
from tools.spelled_out import spelled_out

MODULE = '''
from __future__ import annotations
from dataclasses import dataclass, field

@dataclass(slots=True, kw_only=True)
class Named:
    """Words."""

    size: int
    name: str = "none"
    found: list[int] = field(default_factory=list)
    seen: int = field(default=3, repr=False)

    def twice(self) -> int:
        return 2 * self.size

@dataclass
class Plain:
    rank: tuple[int, ...]
    count: int = field(compare=False)

@dataclass
class Checked:
    size: int

    def __post_init__(self) -> None:
        self.size += 1

@dataclass
class Counted:
    size: int
    seen: int = field(default=0, init=False)

class Other:
    size: int = 1
'''


def _run(source: str, name: str) -> ModuleType:
    module = ModuleType(name)
    sys.modules[name] = module  # dataclasses look for it there
    try:
        exec(compile(source, name, "exec"), module.__dict__)
    finally:
        del sys.modules[name]
    return module


def _parameters(kind: type) -> list[tuple[str, object, bool]]:
    found = inspect.signature(kind).parameters.values()
    return [(each.name, each.kind, each.default is inspect.Parameter.empty) for each in found]


def test_a_written_constructor_does_what_the_generated_one_does() -> None:
    written, generated = (_run(source, "sample") for source in (spelled_out(MODULE), MODULE))
    for module in (written, generated):
        one, other = module.Named(size=2), module.Named(size=2, name="a", seen=5)
        assert (one.size, one.name, one.found, one.seen, one.twice()) == (2, "none", [], 3, 4)
        assert (other.name, other.seen) == ("a", 5)
        assert one.found is not other.found
        assert module.Plain((1,), 2) == module.Plain((1,), 3)
        assert (module.Checked(1).size, module.Counted(1).seen) == (2, 0)
    for name in ("Named", "Plain"):
        assert "__init__" in spelled_out(MODULE)
        assert _parameters(getattr(written, name)) == _parameters(getattr(generated, name))


def test_only_plain_dataclasses_get_a_constructor() -> None:
    assert spelled_out(MODULE).count("def __init__(") == 2
    assert spelled_out("x = 1\n") == "x = 1\n"


def test_frozen_classes_and_those_named_are_followed_by_no_garbage_collector() -> None:
    source = MODULE.replace("@dataclass\nclass Plain", "@dataclass(frozen=True)\nclass Plain")
    lines = spelled_out(source, {"Other"}).splitlines()
    marked = [place for place, line in enumerate(lines) if line == "@mypyc_attr(acyclic=True)"]
    assert [lines[place + 1] for place in marked] == ["@dataclass(frozen=True)", "class Other:"]


SOURCES = sorted(str(path.relative_to(ROOT)) for pattern in MODULES for path in ROOT.glob(pattern))


@pytest.mark.parametrize("path", SOURCES)
def test_compiled_modules_keep_constructors_and_annotations(path: str) -> None:
    source = Path(ROOT / path).read_text(encoding="utf-8")
    written, generated = (_run(each, "rewritten") for each in (spelled_out(source), source))
    for name, kind in vars(generated).items():
        if isinstance(kind, type) and is_dataclass(kind) and kind.__module__ == "rewritten":
            other = getattr(written, name)
            assert _parameters(other) == _parameters(kind)
            assert set(get_type_hints(other, vars(written))) == set(
                get_type_hints(kind, vars(generated))
            )
