"""Names of published plan files, and where the files of the artifact lie.

    <models>[_<weights>]_<GPU classes>_<counts>_bw-gbps-<n>[_<anything>]_<scheduler>.json

Parts are joined by ``-``, which model names contain too (and ``_`` as well), so only the content of
the file tells where the models end: see `check_head`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.domain.errors import InvalidInput, UnknownName
from penstock.formats.sources import Source, show
from planner.published.values import Scheduler

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_STEM = re.compile(
    rf"(?P<head>.+)_(?P<counts>[0-9]+(?:-[0-9]+)*)_bw-gbps-(?P<gbps>{_NUMBER})(?:_.*)?", re.DOTALL
)
_WEIGHTS = re.compile(rf"_{_NUMBER}(?:-{_NUMBER})*")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanName:
    """What a file's name says by itself.

    Attributes:
        head: models, weights and GPU classes, still in one piece.
    """

    head: str
    counts: tuple[int, ...]
    gbps: float


def data_folder(path: Path) -> Path:
    """Return the artifact's ``data`` folder, given that or the clone it is in.

    Raises:
        InvalidInput: neither holds plans.
    """
    for folder in (path, path / "data"):
        if (folder / "plans").is_dir():
            return folder
    raise InvalidInput(
        str(path), "plans", "the data folder of the PPipe artifact", "no such folder"
    )


def plan_sets(data: Path) -> tuple[str, ...]:
    """Return the plan sets of the artifact, sorted.

    Raises:
        InvalidInput: `data` is not the artifact's data folder, or a clone of the artifact.
    """
    plans = data_folder(data) / "plans"
    return tuple(sorted(each.name for each in plans.iterdir() if any(each.glob("*.json"))))


def plan_files(data: Path, plan_set: str) -> dict[str, dict[Scheduler, Path]]:
    """Return the files of a plan set by configuration and scheduler, in a fixed order.

    Raises:
        UnknownName: there is no such plan set.
        InvalidInput: a file's name ends in no known scheduler.
    """
    known = plan_sets(data)
    if plan_set not in known:
        raise UnknownName("plan set", plan_set, known)
    found: dict[str, dict[Scheduler, Path]] = {}
    for path in (data_folder(data) / "plans" / plan_set).glob("*.json"):
        name, _, suffix = path.stem.rpartition("_")
        if not name or suffix not in list(Scheduler):
            expected = "a name ending in " + " or ".join(f"_{each}.json" for each in Scheduler)
            raise InvalidInput(str(path), "", expected, show(path.name))
        found.setdefault(name, {})[Scheduler(suffix)] = path
    return {
        name: {each: found[name][each] for each in Scheduler if each in found[name]}
        for name in sorted(found)
    }


def parse_name(name: str, source: Source) -> PlanName:
    """Take a configuration's name apart, as far as that can be done without the content.

    Raises:
        InvalidInput: it is not of that form.
    """
    match = _STEM.fullmatch(name)
    if match is None:
        expected = "a name such as <models>_<weights>_L4-T4_25-75_bw-gbps-10"
        raise source.invalid("file name", expected, show(name))
    return PlanName(
        head=match["head"],
        counts=tuple(int(each) for each in match["counts"].split("-")),
        gbps=float(match["gbps"]),
    )


def check_head(
    head: str, models: Sequence[str], gpu_classes: Sequence[str], source: Source
) -> tuple[float, ...]:
    """Check that a name is about these models and GPU classes; return the weights in it.

    A name without weights means one model, whose weight is 1.

    Raises:
        InvalidInput: it is about others, or has more or fewer weights than models.
    """
    joined, ending = "-".join(models), "_" + "-".join(gpu_classes)
    rest = head.removeprefix(joined).removesuffix(ending)
    if joined + rest + ending != head or not (rest == "" or _WEIGHTS.fullmatch(rest)):
        expected = f"the models and GPU classes of the content, {show(f'{joined}_…{ending}')}"
        raise source.invalid("file name", expected, show(head))
    weights = [float(each) for each in rest[1:].split("-")] if rest else [1.0]
    if len(weights) != len(models):
        expected = f"{len(models)} weights, one for each model"
        raise source.invalid("file name", expected, str(len(weights) if rest else 0))
    if min(weights) <= 0:
        raise source.invalid("file name", "weights of more than 0", show(rest[1:]))
    return tuple(weights)


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        InvalidInput: it is not there, or not text.
    """
    if not path.is_file():
        raise InvalidInput(str(path), "", "a file", "none")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InvalidInput(str(path), "", "text in UTF-8", "other bytes") from None
