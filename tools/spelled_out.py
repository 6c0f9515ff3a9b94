"""Writes out what `@dataclass` makes or keeps at run time, for a compiler that does neither.

mypyc makes a dataclass native, but leaves `__init__` to the `dataclasses` module: interpreted code
that sets each attribute by name, a frozen one through `object.__setattr__`. Written out it is
compiled like any other method, several times as fast. It forgets annotations other than plain
classes; those of policies declare their parameters. And it lets the garbage collector follow every
object, though what is frozen can close no cycle, nor can some that are not. Knows nothing of what
is compiled.
"""

from __future__ import annotations

import ast
from collections.abc import Container, Iterator

_INDENT = " " * 4


def spelled_out(source: str, acyclic: Container[str] = ()) -> str:
    """Return the source of a module with all that said of its dataclasses.

    Args:
        source: as it is written.
        acyclic: names of classes besides frozen dataclasses of which no object can be part of a
            cycle.

    They get no constructor if they have bases, a constructor or a `__post_init__` of their own, or
    fields that are no plain parameters (`init=False`, `InitVar`, `KW_ONLY`).
    """
    lines = source.splitlines()
    for node in reversed(ast.parse(source).body):
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            lines.insert(node.lineno, "from mypy_extensions import mypyc_attr")
        if isinstance(node, ast.ClassDef) and (options := _dataclass_options(node)) is not None:
            fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
            written = _constructor(node, fields, options) + _annotations(node, fields)
            lines[node.end_lineno : node.end_lineno] = written
        if isinstance(node, ast.ClassDef) and _is_acyclic(node, acyclic):
            first = node.decorator_list[0].lineno if node.decorator_list else node.lineno
            lines.insert(first - 1, "@mypyc_attr(acyclic=True)")
    return "\n".join(lines) + "\n"


def _is_acyclic(node: ast.ClassDef, acyclic: Container[str]) -> bool:
    return node.name in acyclic or "frozen" in (_dataclass_options(node) or ())


def _annotations(node: ast.ClassDef, fields: list[ast.AnnAssign]) -> list[str]:
    """Return the lines behind a class that tell what its fields are declared to be."""
    declared = {ast.unparse(each.target): ast.unparse(each.annotation) for each in fields}
    return ["", "", f"setattr({node.name}, '__annotations__', {declared!r})"] if declared else []


def _constructor(node: ast.ClassDef, fields: list[ast.AnnAssign], options: set[str]) -> list[str]:
    """Return the lines of a class's constructor; none if it gets none."""
    methods = {each.name for each in node.body if isinstance(each, ast.FunctionDef)}
    if node.bases or not fields or methods & {"__init__", "__post_init__"}:
        return []
    parameters = ["self", "*"] if "kw_only" in options else ["self"]
    frozen = "  # type: ignore[misc]" if "frozen" in options else ""
    body: list[str] = []
    for each in fields:
        written = _parameter(each)
        if written is None:
            return []
        parameters.append(written[0])
        body.append(f"{_INDENT * 2}{written[1]}{frozen}")
    return ["", f"{_INDENT}def __init__({', '.join(parameters)}) -> None:", *body]


def _dataclass_options(node: ast.ClassDef) -> set[str] | None:
    """Return which options a dataclass turns on; None for another class."""
    for each in node.decorator_list:
        if isinstance(each, ast.Name) and each.id == "dataclass":
            return set()
        if isinstance(each, ast.Call) and ast.unparse(each.func) == "dataclass":
            return {
                str(option.arg) for option in each.keywords if ast.unparse(option.value) == "True"
            }
    return None


def _parameter(field: ast.AnnAssign) -> tuple[str, str] | None:
    """Return a field as a parameter and its assignment; None if it is something else."""
    name, kind = ast.unparse(field.target), ast.unparse(field.annotation)
    if kind.split("[")[0] in ("InitVar", "ClassVar", "KW_ONLY", "Final"):
        return None
    if field.value is None:
        return f"{name}: {kind}", f"self.{name} = {name}"
    if not isinstance(field.value, ast.Call) or ast.unparse(field.value.func) != "field":
        return f"{name}: {kind} = {ast.unparse(field.value)}", f"self.{name} = {name}"
    given = dict(_keywords(field.value))
    if "init" in given or "kw_only" in given:
        return None
    if "default_factory" in given:
        made = f"{given['default_factory']}() if {name} is None else {name}"
        return f"{name}: {kind} | None = None", f"self.{name} = {made}"
    default = f" = {given['default']}" if "default" in given else ""
    return f"{name}: {kind}{default}", f"self.{name} = {name}"


def _keywords(call: ast.Call) -> Iterator[tuple[str, str]]:
    for each in call.keywords:
        yield str(each.arg), ast.unparse(each.value)
