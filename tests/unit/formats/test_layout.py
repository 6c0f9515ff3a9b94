from __future__ import annotations

from pathlib import Path

from penstock.domain.ids import GpuClassName, ModelName
from penstock.formats.layout import block_file, model_directory, profile_paths


def test_a_profile_is_two_files_side_by_side() -> None:
    rows, head = profile_paths(Path("profiles"), ModelName("digits"), GpuClassName("h200.1of2"))
    assert rows == Path("profiles/digits/h200.1of2.csv")
    assert head == Path("profiles/digits/h200.1of2.json")


def test_a_model_has_a_folder_per_version() -> None:
    folder = model_directory(Path("models"), ModelName("digits"), "3")
    assert folder / block_file(7) == Path("models/digits/3/block_07.pt2")
