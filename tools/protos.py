"""Generates the Python code of protos/*.proto, or checks that what is committed is up to date.

Run from the repository root: `python tools/protos.py [--check]`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

SOURCES = sorted(Path("protos").glob("*.proto"))
PATTERNS = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py")


def generate(target: Path) -> None:
    """Write the generated modules under ``target/protos``.

    Raises:
        SystemExit: protoc refused a schema; it has said why.
    """
    outputs = [f"--{kind}_out={target}" for kind in ("python", "pyi", "grpc_python")]
    if protoc.main(["protoc", "-I.", *outputs, *map(str, SOURCES)]) != 0:
        sys.exit("protoc failed")


def generated(root: Path) -> dict[str, bytes]:
    """Return the generated modules that lie under ``root/protos``, by name."""
    found = [path for pattern in PATTERNS for path in (root / "protos").glob(pattern)]
    return {path.name: path.read_bytes() for path in found}


def stale() -> list[str]:
    """Return the names of committed modules that differ from what protoc writes now."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = generated(Path(folder))
    committed = generated(Path())
    names = fresh.keys() | committed.keys()
    return sorted(name for name in names if fresh.get(name) != committed.get(name))


def main() -> None:
    """Generate, or check with ``--check``."""
    if sys.argv[1:] != ["--check"]:
        generate(Path())
        return
    names = stale()
    if names:
        sys.exit(f"protos: {', '.join(names)}: not what protoc writes; run `make protos`")
    print(f"protos: {len(SOURCES)} schemas up to date")


if __name__ == "__main__":
    main()
