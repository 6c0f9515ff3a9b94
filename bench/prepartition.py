"""Is the exact pre-partition as good as the published one? The same layers, the same band.

PPipe published, for some models, how it groups layers into at most ten blocks (the optimum of a
mixed-integer programme) and what that was made from. This reads its layout:

* ``models/cuts-no-const/<model>.json``: the layers in topological order, from ``$input$`` to
  ``$output$``, and with each the tensors that are live after it. That order is the chain, and what
  is live is what a cut after that layer carries, skip connections included: the graph needs no
  further interpretation. The published blocks are runs of layers in this very order.
* ``models/shapes/<model>.json``: the tensors. A sample counts: fp32 as fp16, int64 as int32, other
  types as they are; the open dimension (-1) is the batch.
* ``models/node-profile-no-const/<model>-<class>.csv``: latencies. The band holds on every GPU class
  found there, as in the published programme.
* ``prepartition_mappings/<model>/contraction_mapping_ilpprepart<N>-<low>-<high>.csv``: the blocks;
  the file's name says what was asked for. ``contraction_trans-size_…csv`` holds the bytes of its
  cuts, which must equal what is worked out here from cuts and shapes.

Some mappings have one block less than was asked for, and one block that breaks the band, as if two
blocks had been joined afterwards. Of the cuts that mend that, such a mapping is given the one that
carries least, and the line says so (``restored_cut_bytes``). Without it, its bytes would be those
of fewer cuts and a wider band.

Prints a table to stderr; one JSON line per model and a summary line to stdout. Exits with 1 if some
model needs more bytes here than published, or if none can be compared.

    python bench/prepartition.py --data PPipe/data
"""

from __future__ import annotations

import csv
import json
import math
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer

from penstock.console import show_text
from penstock.domain.errors import InvalidGraph, InvalidInput, InvalidProfile
from penstock.formats.codec import parse_json
from penstock.formats.sources import Source, show
from penstock.prepartition.chain import TENTHS, Band, ChainPartition, partition_chain

MAPPINGS = "prepartition_mappings"
NAME = re.compile(r"contraction_mapping_ilpprepart(\d+)-(\d+\.\d)-(\d+\.\d)\.csv")
DTYPE = re.compile(r"[<>=|][a-z](\d+)")
COUNTED_AS = {"<f4": 2, "<i8": 4}
KINDS = {list: "a list", dict: "an object"}
J = TypeVar("J", list[Any], dict[str, Any])
PS_PER_US = 1_000_000  # latencies become whole picoseconds, so that sums stay exact


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A model's layers in order.

    Attributes:
        cut_bytes: live between layer i and i + 1.
        latencies_ps: of each layer, by GPU class.
    """

    layers: tuple[str, ...]
    cut_bytes: tuple[int, ...]
    latencies_ps: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A published grouping, and what was asked for.

    Attributes:
        boundaries: block i is layers [boundaries[i], boundaries[i + 1]).
        sizes: bytes of its cuts, as published; None where they are not.
    """

    asked_blocks: int
    band: Band
    boundaries: tuple[int, ...]
    sizes: tuple[int, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One model, both ways.

    Attributes:
        narrowest_band: the first of PPipe's bands that can be met, found here.
        published_bytes: over all cuts, with the restored one where there is one.
    """

    model: str
    layers: int
    gpu_classes: tuple[str, ...]
    blocks: int
    band: tuple[float, float]
    narrowest_band: tuple[float, float]
    published_bytes: int
    restored_cut_bytes: int | None
    our_bytes: int
    same_cuts: bool
    at_most_published: bool
    our_seconds: float
    compared: Literal[True] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class NoComparison:
    """One model that could not be compared."""

    model: str
    why_not: str
    compared: Literal[False] = False


class NotComparableError(Exception):
    """The files do not allow a comparison; the message says why."""


def main(
    data: Annotated[Path, typer.Option(help="The artifact's data folder, or a clone of it.")],
) -> None:
    """Compare the bytes over the cuts, model by model."""
    folder = next((each for each in (data, data / "data") if (each / MAPPINGS).is_dir()), None)
    if folder is None:
        raise typer.BadParameter(f"{data} has no folder {MAPPINGS}", param_hint="--data")
    models = sorted(each.name for each in (folder / MAPPINGS).iterdir() if each.is_dir())
    sys.exit(report([compare(folder, model) for model in models]))


def compare(data: Path, model: str) -> Comparison | NoComparison:
    """Compare one model, or say why not."""
    try:
        chain = read_chain(data, model)
        published = read_published(data, model, chain)
        return compared(model, chain, published)
    except (NotComparableError, InvalidInput) as error:
        return NoComparison(model=model, why_not=str(error))


def compared(model: str, chain: Chain, published: Published) -> Comparison:
    """Compare one model.

    Raises:
        NotComparableError: the published blocks are not what the published programme allows.
    """
    theirs, restored = completed(chain, published)
    if published.sizes not in (None, _sizes(chain, published.boundaries)):
        raise NotComparableError(
            "the published bytes of the cuts are not those of the live tensors"
        )
    rows = list(chain.latencies_ps.values())
    started = time.perf_counter()
    ours = partition_chain(rows, chain.cut_bytes, published.asked_blocks, [published.band])
    seconds = time.perf_counter() - started
    if ours.blocks != published.asked_blocks:
        raise NotComparableError(f"no {published.asked_blocks} blocks keep to the band here")
    published_bytes = sum(_sizes(chain, theirs))
    return Comparison(
        model=model,
        layers=len(chain.layers),
        gpu_classes=tuple(chain.latencies_ps),
        blocks=ours.blocks,
        band=published.band.as_multiples,
        narrowest_band=_narrowest(chain, published).band.as_multiples,
        published_bytes=published_bytes,
        restored_cut_bytes=restored,
        our_bytes=ours.cut_bytes,
        same_cuts=ours.boundaries == theirs,
        at_most_published=ours.cut_bytes <= published_bytes,
        our_seconds=round(seconds, 4),
    )


def _narrowest(chain: Chain, published: Published) -> ChainPartition:
    rows = list(chain.latencies_ps.values())
    return partition_chain(rows, chain.cut_bytes, published.asked_blocks)


def completed(chain: Chain, published: Published) -> tuple[tuple[int, ...], int | None]:
    """Return the boundaries of a mapping that keeps to its band, and the bytes of a restored cut.

    Raises:
        NotComparableError: it breaks the band, and one more cut does not mend that.
    """
    if len(published.boundaries) == published.asked_blocks + 1:
        if not in_band(chain, published, published.boundaries):
            raise NotComparableError("the published blocks break their own band")
        return published.boundaries, None
    if len(published.boundaries) != published.asked_blocks:
        found = len(published.boundaries) - 1
        raise NotComparableError(f"{found} blocks published, {published.asked_blocks} asked for")
    cuts = [
        (chain.cut_bytes[place - 1], boundaries)
        for place in range(1, len(chain.layers))
        if place not in published.boundaries
        if in_band(chain, published, boundaries := tuple(sorted((*published.boundaries, place))))
    ]
    if not cuts:
        raise NotComparableError("one block less than asked for, and no cut that keeps to the band")
    restored, boundaries = min(cuts)
    return boundaries, restored


def in_band(chain: Chain, published: Published, boundaries: Sequence[int]) -> bool:
    """Say whether every block keeps to the band on every GPU class."""
    low, high = published.band
    for latencies in chain.latencies_ps.values():
        until = list(accumulate(latencies, initial=0))
        scale = TENTHS * published.asked_blocks
        blocks = [scale * (until[end] - until[first]) for first, end in pairwise(boundaries)]
        if min(blocks) < low * until[-1] or max(blocks) > high * until[-1]:
            return False
    return True


def _sizes(chain: Chain, boundaries: Sequence[int]) -> tuple[int, ...]:
    return tuple(chain.cut_bytes[end - 1] for end in boundaries[1:-1])


def read_chain(data: Path, model: str) -> Chain:
    """Read layers, live tensors and latencies.

    Raises:
        NotComparableError: a file is not there.
        InvalidInput: a file is malformed, or files contradict each other.
    """
    cuts = data / "models" / "cuts-no-const" / f"{model}.json"
    shapes = data / "models" / "shapes" / f"{model}.json"
    where = Source(str(cuts), InvalidGraph)
    sizes = _tensor_bytes(shapes)
    layers: list[str] = []
    live: list[int] = []
    for index, entry in enumerate(_json(cuts, list)):
        try:
            layer, tensors = str(entry["node"]), list(entry["cut"])
            live.append(sum(sizes[each] for each in tensors))
        except (KeyError, TypeError) as error:
            expected = "a node, and the live tensors with their shapes"
            raise where.invalid(f"[{index}]", expected, show(str(error))) from None
        layers.append(layer)
    if not layers[1:-1] or (layers[0], layers[-1]) != ("$input$", "$output$"):
        raise where.invalid("", "layers between $input$ and $output$", f"{len(layers)} entries")
    names = tuple(layers[1:-1])
    return Chain(
        layers=names, cut_bytes=tuple(live[1:-2]), latencies_ps=_latencies(data, model, names)
    )


def _tensor_bytes(path: Path) -> dict[str, int]:
    where = Source(str(path), InvalidGraph)
    sizes = {}
    for name, tensor in _json(path, dict).items():
        try:
            dtype = str(tensor["dtype"])
            samples = math.prod(int(each) for each in tensor["shape"] if each != -1)
            sizes[name] = samples * _element_bytes(dtype)
        except (KeyError, TypeError, ValueError) as error:
            found = show(str(error))
            raise where.invalid(show(name), "a dtype such as '<f4' and a shape", found) from None
    return sizes


def _element_bytes(dtype: str) -> int:
    match = DTYPE.fullmatch(dtype)
    if match is None:
        raise ValueError(dtype)
    return COUNTED_AS.get(dtype, int(match[1]))


def _latencies(data: Path, model: str, layers: Sequence[str]) -> dict[str, tuple[int, ...]]:
    folder = data / "models" / "node-profile-no-const"
    found = {}
    for path in sorted(folder.glob(f"{model}-*.csv")):
        gpu_class = path.stem.removeprefix(f"{model}-")
        if "-" in gpu_class:
            continue  # another model, whose name begins with this one's
        where = Source(str(path), InvalidProfile)
        rows = _rows(path)[1:]  # without the header
        try:
            by_layer = {layer: round(float(us) * PS_PER_US) for layer, us in rows}
            found[gpu_class] = tuple(by_layer[layer] for layer in layers)
        except (KeyError, ValueError, OverflowError) as error:
            expected = "a node and its latency in each row, and a row for each layer"
            raise where.invalid("", expected, show(str(error))) from None
        if min(found[gpu_class]) < 0:
            raise where.invalid("", "latencies of at least 0", "a negative one")
    if not found:
        raise NotComparableError("no latencies of its layers")
    return found


def read_published(data: Path, model: str, chain: Chain) -> Published:
    """Read the published blocks.

    Raises:
        NotComparableError: they are not there, or are not runs of layers.
    """
    folder = data / MAPPINGS / model
    paths = sorted(folder.glob("*_mapping_*.csv"))
    if len(paths) != 1:
        raise NotComparableError(f"{len(paths)} mappings of layers to blocks, not one")
    path = paths[0]
    match = NAME.fullmatch(path.name)
    if match is None:
        raise NotComparableError(f"{path.name} does not say how many blocks in which band")
    rows = _rows(path)
    blocks = [row[-1] for row in rows]
    if len(rows) != len(chain.layers) or rows != [
        [layer, block] for layer, block in zip(chain.layers, blocks, strict=True)
    ]:
        raise NotComparableError("the mapping has other layers than the chain, or another order")
    starts = [i for i, (left, right) in enumerate(pairwise(blocks), start=1) if left != right]
    if len(starts) + 1 != len(set(blocks)):
        raise NotComparableError("the published blocks are not runs of layers in this order")
    return Published(
        asked_blocks=int(match[1]),
        band=Band(round(float(match[2]) * TENTHS), round(float(match[3]) * TENTHS)),
        boundaries=(0, *starts, len(blocks)),
        sizes=_published_sizes(path.with_name(path.name.replace("_mapping_", "_trans-size_"))),
    )


def _published_sizes(path: Path) -> tuple[int, ...] | None:
    if not path.is_file():
        return None
    lines = _text(path).split()
    if not all(line.isdecimal() for line in lines):
        raise NotComparableError(f"{path.name} holds other things than bytes")
    return tuple(map(int, lines))


def _rows(path: Path) -> list[list[str]]:
    return [row for row in csv.reader(_text(path).splitlines()) if row]


def _json(path: Path, kind: type[J]) -> J:
    where = Source(str(path), InvalidGraph)
    content = parse_json(_text(path), where)
    if not isinstance(content, kind):
        raise where.invalid("", f"{KINDS[kind]} in JSON", show(content))
    return content


def _text(path: Path) -> str:
    if not path.is_file():
        raise NotComparableError(f"no {path.parent.name}/{path.name}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise NotComparableError(f"{path.parent.name}/{path.name} is not text") from None


def report(results: Sequence[Comparison | NoComparison]) -> bool:
    """Print table, lines and summary; return whether the bar was missed."""
    done = [each for each in results if isinstance(each, Comparison)]
    head = f"{'model':48} {'band':>9} {'blocks':>6} {'published':>11} {'ours':>11}  same cuts"
    sys.stderr.write("\n".join([head, *map(_line, results)]) + "\n")
    for each in results:
        show_text(json.dumps(asdict(each)))
    met = bool(done) and all(each.at_most_published for each in done)
    summary = {
        "summary": True,
        "models": len(done),
        "not_compared": len(results) - len(done),
        "all_at_most_published": met,
        "equal": sum(each.our_bytes == each.published_bytes for each in done),
        "restored_cuts": sum(each.restored_cut_bytes is not None for each in done),
        "largest_seconds": max((each.our_seconds for each in done), default=None),
    }
    show_text(json.dumps(summary))
    return not met


def _line(each: Comparison | NoComparison) -> str:
    name = f"{each.model:48.48}"
    if isinstance(each, NoComparison):
        return f"{name} not compared: {each.why_not}"
    band = "{:g} – {:g}".format(*each.band)
    same = "yes" if each.same_cuts else "no"
    mark = ", one cut restored" if each.restored_cut_bytes is not None else ""
    sizes = f"{each.published_bytes:11d} {each.our_bytes:11d}"
    return f"{name} {band:>9} {each.blocks:6d} {sizes}  {same}{mark}"


if __name__ == "__main__":
    typer.run(main)
