"""The directory of a sweep: what it begins with, what is finished, and how it goes on.

Knows nothing of simulations. A file is there whole or not at all.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from penstock.domain.errors import InvalidInput, InvalidSettings
from penstock.formats.codec import canonical_json, json_line, parse_json
from penstock.formats.csv_text import read_rows, write_rows
from penstock.formats.sources import Source
from simulator.sweeps.rows import RUN_COLUMNS, RUNS_HEADER, UTILISATION_HEADER, Row, Rows
from simulator.sweeps.sweep import ALL, Run, Sweep

SETTINGS_FILE = "sweep.json"
RUNS_FILE = "runs.csv"
UTILISATION_FILE = "utilisation.csv"
PICTURES = ("attainment", "utilisation", "timeline")
PICTURE_SUFFIXES = (".png", ".svg", ".html")

# What a sweep may differ in from the one it goes on with.
_ABOUT = "about"

_MOST_SHOWN = 100  # characters of a setting in an error


def check_directory(directory: Path, *, resume: bool, force: bool) -> None:
    """Refuse a directory that holds what was not meant to be touched.

    Raises:
        InvalidSettings: it is no directory, or holds files and neither option says what to do.
    """
    if resume and force:
        raise InvalidSettings("--resume", "", "either it or --force", "both")
    if not directory.exists():
        return
    if not directory.is_dir():
        raise InvalidSettings("--out", "", "a directory", f"{directory}, a file")
    if force or not any(directory.iterdir()):
        return
    if not resume:
        expected = "a new or an empty directory; --resume goes on with a sweep, --force replaces it"
        raise InvalidSettings("--out", "", expected, f"files in {directory}")
    if not (directory / SETTINGS_FILE).exists():
        raise InvalidSettings("--resume", "", f"{SETTINGS_FILE} in {directory}", "none")


class SweepFiles:
    """The rows of finished runs, and the files that hold them.

    Args:
        directory: made when something is written.
        sweep: whose runs are awaited.
    """

    def __init__(self, directory: Path, sweep: Sweep) -> None:
        self._directory = directory
        self._runs = sweep.runs()
        self._models = {
            name: {ALL, *(each.model for each in plan.models)} for name, plan in sweep.plans.items()
        }
        self._classes = {
            name: {each.name for each in plan.gpu_classes} for name, plan in sweep.plans.items()
        }
        self._finished: dict[Run, Rows] = {}

    @property
    def paths(self) -> tuple[Path, ...]:
        """Return the files that are written."""
        return tuple(
            self._directory / name for name in (SETTINGS_FILE, RUNS_FILE, UTILISATION_FILE)
        )

    def begin(self, settings: Mapping[str, object]) -> None:
        """Write what is swept, and take away what an earlier sweep left."""
        self._directory.mkdir(parents=True, exist_ok=True)
        pictures = [f"{name}{suffix}" for name in PICTURES for suffix in PICTURE_SUFFIXES]
        for name in (SETTINGS_FILE, RUNS_FILE, UTILISATION_FILE, *pictures):
            (self._directory / name).unlink(missing_ok=True)
        write_whole(self._directory / SETTINGS_FILE, canonical_json(settings))
        self.save()

    def take_up(self, settings: Mapping[str, object]) -> None:
        """Take over the runs that an earlier sweep of equal settings finished.

        Raises:
            InvalidInput: a file of it is damaged.
            InvalidSettings: its settings differ; the error names the first that does.
            OSError: a file of it cannot be opened.
        """
        path = self._directory / SETTINGS_FILE
        text = path.read_text(encoding="utf-8")
        begun = parse_json(text, Source(str(path), InvalidInput))
        if not isinstance(begun, dict):
            raise InvalidInput(str(path), "", "the settings of a sweep", "something else")
        for key in sorted({*begun, *settings} - {_ABOUT}):
            _compare(path, key, begun.get(key), settings.get(key))
        models = self._read(RUNS_FILE, RUNS_HEADER)
        classes = self._read(UTILISATION_FILE, UTILISATION_HEADER)
        for run in self._runs:
            rows = Rows(tuple(models[_key_of(run)]), tuple(classes[_key_of(run)]))
            if self._is_whole(run, rows):
                self._finished[run] = rows

    def add(self, run: Run, rows: Rows) -> None:
        """Keep what a run left; `save` writes it."""
        self._finished[run] = rows

    def missing(self) -> tuple[Run, ...]:
        """Return the runs that are not finished."""
        return tuple(run for run in self._runs if run not in self._finished)

    def finished(self) -> list[tuple[Run, Rows]]:
        """Return finished runs in the order of the sweep, whatever the order they ended in."""
        return [(run, self._finished[run]) for run in self._runs if run in self._finished]

    def save(self) -> None:
        """Write all rows."""
        rows = [each for _, each in self.finished()]
        self._write(RUNS_FILE, RUNS_HEADER, (row for each in rows for row in each.models))
        self._write(
            UTILISATION_FILE, UTILISATION_HEADER, (row for each in rows for row in each.classes)
        )

    def _is_whole(self, run: Run, rows: Rows) -> bool:
        """Say whether both files have all of a run: they are not written at the same instant."""
        models = sorted(row["model"] for row in rows.models)
        classes = sorted(row["gpu_class"] for row in rows.classes)
        plan = run.series.plan
        return models == sorted(self._models[plan]) and classes == sorted(self._classes[plan])

    def _read(self, name: str, header: Sequence[str]) -> defaultdict[tuple[str, ...], list[Row]]:
        path = self._directory / name
        found: defaultdict[tuple[str, ...], list[Row]] = defaultdict(list)
        if path.exists():
            source = Source(str(path), InvalidInput)
            for row in read_rows(path.read_text(encoding="utf-8"), source, header):
                found[_key(row.cells)].append(row.cells)
        return found

    def _write(self, name: str, header: Sequence[str], rows: Iterable[Row]) -> None:
        table = ([row[column] for column in header] for row in rows)
        write_whole(self._directory / name, write_rows(header, table))


def write_whole(path: Path, text: str) -> None:
    """Put a file in its place at once: a reader sees the old content or the new, never a part."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _key(row: Row) -> tuple[str, ...]:
    return tuple(row[column] for column in RUN_COLUMNS)


def _key_of(run: Run) -> tuple[str, ...]:
    return tuple(str(of(run)) for of in RUN_COLUMNS.values())


def _compare(path: Path, key: str, begun: object, asked: object) -> None:
    if begun != asked:
        expected = f"{_shown(asked)} as asked now; --force begins anew"
        raise InvalidSettings(str(path), key, expected, _shown(begun))


def _shown(value: object) -> str:
    text = "nothing" if value is None else json_line(value).strip()
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]} …"
