from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from bench.prepartition import Comparison, NoComparison, compare, main, read_chain, report

DATA = Path(__file__).parents[2].parent / "shared" / "reference" / "ppipe" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the published inputs are not at {DATA}")

MODEL = "small-net"
# Six layers of 10 µs; what is live after each, in floats of the tensors below.
LIVE = (["t0"], ["t1"], ["t1", "skip"], ["t2"], ["t3"], ["out"])
FLOATS = {"in": 500, "t0": 100, "t1": 40, "skip": 30, "t2": 50, "t3": 10, "out": 1}


def write_model(
    data: Path,
    blocks: Sequence[int] = (0, 0, 1, 1, 2, 2),
    asked: str = "3-0.5-1.5",
    latencies: Sequence[float] = (10.0,) * 6,
    model: str = MODEL,
) -> None:
    models = data / "models"
    for each in ("cuts-no-const", "shapes", "node-profile-no-const"):
        (models / each).mkdir(parents=True, exist_ok=True)
    layers = [f"layer{number}" for number in range(len(LIVE))]
    cuts = [{"node": "$input$", "cut": ["in"]}]
    cuts += [{"node": layer, "cut": live} for layer, live in zip(layers, LIVE, strict=True)]
    cuts += [{"node": "$output$", "cut": []}]
    (models / "cuts-no-const" / f"{model}.json").write_text(json.dumps(cuts))
    shapes = {name: {"dtype": "<f4", "shape": [-1, count, 1]} for name, count in FLOATS.items()}
    (models / "shapes" / f"{model}.json").write_text(json.dumps(shapes))
    rows = [f"{layer},{us}\n" for layer, us in zip(layers, latencies, strict=True)]
    (models / "node-profile-no-const" / f"{model}-L4.csv").write_text(
        "node,latency\n" + "".join(rows)
    )
    folder = data / "prepartition_mappings" / model
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{layer},{block}\n" for layer, block in zip(layers, blocks, strict=True)]
    (folder / f"contraction_mapping_ilpprepart{asked}.csv").write_text("".join(lines))


def compared(data: Path) -> Comparison:
    found = compare(data, MODEL)
    assert isinstance(found, Comparison), found
    return found


def why_not(data: Path) -> str:
    found = compare(data, MODEL)
    assert isinstance(found, NoComparison), found
    return found.why_not


def test_what_is_live_crosses_the_cut(tmp_path: Path) -> None:
    write_model(tmp_path)
    chain = read_chain(tmp_path, MODEL)
    assert chain.layers == tuple(f"layer{number}" for number in range(6))
    assert chain.cut_bytes == (200, 80, 140, 100, 20)  # two bytes for a float
    assert chain.latencies_ps == {"L4": (10_000_000,) * 6}


@pytest.mark.parametrize(
    ("dtype", "count"), [("<f4", 2), ("<i8", 4), ("<f2", 2), ("<i4", 4), ("|b1", 1), ("<f8", 8)]
)
def test_bytes_of_an_element(tmp_path: Path, dtype: str, count: int) -> None:
    write_model(tmp_path)
    path = tmp_path / "models" / "shapes" / f"{MODEL}.json"
    shapes = json.loads(path.read_text())
    shapes["t0"] = {"dtype": dtype, "shape": [-1, 3, 5]}
    shapes["t1"] = {"dtype": dtype, "shape": []}
    path.write_text(json.dumps(shapes))
    assert read_chain(tmp_path, MODEL).cut_bytes[:2] == (15 * count, count)


def test_the_optimum_is_compared_with_the_published_blocks(tmp_path: Path) -> None:
    write_model(tmp_path)
    found = compared(tmp_path)
    assert (found.published_bytes, found.our_bytes) == (180, 100)  # cuts after layers 1 and 4
    assert (found.blocks, found.band, found.gpu_classes) == (3, (0.5, 1.5), ("L4",))
    assert found.at_most_published
    assert not found.same_cuts
    assert found.restored_cut_bytes is None


def test_equal_cuts_are_said_to_be_the_same(tmp_path: Path) -> None:
    write_model(tmp_path, blocks=(0, 0, 1, 1, 1, 2))
    found = compared(tmp_path)
    assert found.same_cuts
    assert found.our_bytes == found.published_bytes == 100


def test_the_band_holds_on_every_gpu_class(tmp_path: Path) -> None:
    write_model(tmp_path)
    other = tmp_path / "models" / "node-profile-no-const" / f"{MODEL}-T4.csv"
    us = [20, 20, 20, 20, 16, 4]  # the last layer alone is too little
    other.write_text("node,latency\n" + "".join(f"layer{i},{us[i]}\n" for i in range(6)))
    (other.parent / f"{MODEL}-b3-T4.csv").write_text("of another model\n")
    found = compared(tmp_path)
    assert found.gpu_classes == ("L4", "T4")
    assert found.our_bytes == 180


def test_a_missing_cut_is_restored(tmp_path: Path) -> None:
    write_model(tmp_path, blocks=(0, 0, 1, 1, 1, 1))
    found = compared(tmp_path)
    assert found.restored_cut_bytes == 20  # after layer 4, the cheapest that keeps to the band
    assert (found.published_bytes, found.same_cuts) == (100, True)


def test_published_bytes_are_checked(tmp_path: Path) -> None:
    write_model(tmp_path)
    sizes = (
        tmp_path
        / "prepartition_mappings"
        / MODEL
        / "contraction_trans-size_ilpprepart3-0.5-1.5.csv"
    )
    sizes.write_text("80\n100\n")
    assert compared(tmp_path).published_bytes == 180
    sizes.write_text("80\n101\n")
    assert why_not(tmp_path) == (
        "the published bytes of the cuts are not those of the live tensors"
    )
    sizes.write_text("80\nx\n")
    assert "holds other things than bytes" in why_not(tmp_path)


@pytest.mark.parametrize(
    ("blocks", "asked", "reason"),
    [
        ((0, 1, 1, 1, 1, 2), "3-0.7-1.3", "the published blocks break their own band"),
        ((0, 0, 0, 0, 0, 0), "3-0.5-1.5", "1 blocks published, 3 asked for"),
        ((0, 0, 0, 0, 0, 1), "3-0.7-1.3", "no cut that keeps to the band"),
        ((0, 0, 1, 1, 0, 0), "3-0.5-1.5", "are not runs of layers"),
        ((0, 0, 1, 1, 2, 2), "3-half-1.5", "does not say how many blocks in which band"),
    ],
)
def test_mappings_that_cannot_be_compared(
    tmp_path: Path, blocks: Sequence[int], asked: str, reason: str
) -> None:
    write_model(tmp_path, blocks, asked)
    assert reason in why_not(tmp_path)


def rewritten(
    folder: str, name: str, change: Callable[[str], str | None]
) -> Callable[[Path], None]:
    def rewrite(data: Path) -> None:
        path = data / folder / name
        text = change(path.read_text())
        if text is None:
            path.unlink()
        else:
            path.write_text(text)

    return rewrite


def cuts(change: Callable[[str], str | None]) -> Callable[[Path], None]:
    return rewritten("models/cuts-no-const", f"{MODEL}.json", change)


def shapes(change: Callable[[str], str | None]) -> Callable[[Path], None]:
    return rewritten("models/shapes", f"{MODEL}.json", change)


def latencies(change: Callable[[str], str | None]) -> Callable[[Path], None]:
    return rewritten("models/node-profile-no-const", f"{MODEL}-L4.csv", change)


def mapping(change: Callable[[str], str | None]) -> Callable[[Path], None]:
    name = "contraction_mapping_ilpprepart3-0.5-1.5.csv"
    return rewritten(f"prepartition_mappings/{MODEL}", name, change)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (cuts(lambda _: None), f"no cuts-no-const/{MODEL}.json"),
        (cuts(lambda _: "[]"), "expected layers between $input$ and $output$"),
        (cuts(lambda _: "{}"), "expected a list in JSON"),
        (cuts(lambda _: "[3]"), "[0]: expected a node"),
        (cuts(lambda text: text.replace("$input$", "x")), "expected layers between $input$"),
        (cuts(lambda text: text.replace("skip", "skipped")), "[3]: expected a node"),
        (shapes(lambda _: None), f"no shapes/{MODEL}.json"),
        (shapes(lambda _: "[]"), "expected an object in JSON"),
        (shapes(lambda text: text.replace("<f4", "float")), "expected a dtype such as '<f4'"),
        (shapes(lambda text: text.replace("40", "null")), "'t1': expected a dtype"),
        (latencies(lambda _: None), "no latencies of its layers"),
        (latencies(lambda text: text.replace("layer3,", "layer9,")), "a row for each layer"),
        (latencies(lambda text: text.replace("10.0", "nan")), "its latency in each row"),
        (latencies(lambda text: text.replace("10.0", "inf")), "its latency in each row"),
        (latencies(lambda text: text.replace("10.0", "-1")), "latencies of at least 0"),
        (latencies(lambda text: text.replace("layer0,", "layer0,1,")), "latency in each row"),
        (mapping(lambda _: None), "0 mappings of layers to blocks, not one"),
        (mapping(lambda text: text.replace("layer5,2\n", "")), "other layers than the chain"),
        (mapping(lambda text: text.replace("layer5", "layer6")), "other layers than the chain"),
        (mapping(lambda text: text.replace("layer5,2", "layer5")), "other layers than the chain"),
        (mapping(lambda _: ""), "other layers than the chain"),
    ],
)
def test_spoilt_files_are_told(tmp_path: Path, spoil: Callable[[Path], None], reason: str) -> None:
    write_model(tmp_path)
    spoil(tmp_path)
    assert reason in why_not(tmp_path)


def call(*arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    app = typer.Typer()
    app.command()(main)
    result = CliRunner().invoke(app, arguments)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    return result.exit_code, lines, result.stderr


def test_lines_table_and_summary(tmp_path: Path) -> None:
    write_model(tmp_path / "data")
    write_model(tmp_path / "data", model="broken")
    (tmp_path / "data" / "models" / "shapes" / "broken.json").unlink()
    code, (broken, found, summary), table = call("--data", str(tmp_path))
    assert code == 0
    assert (broken["model"], broken["compared"], found["model"], found["compared"]) == (
        "broken",
        False,
        MODEL,
        True,
    )
    assert summary == {
        "summary": True,
        "models": 1,
        "not_compared": 1,
        "all_at_most_published": True,
        "equal": 0,
        "restored_cuts": 0,
        "largest_seconds": found["our_seconds"],
    }
    assert "not compared: no shapes/broken.json" in table
    assert "0.5 – 1.5" in table


def test_nothing_to_compare_is_no_success(tmp_path: Path) -> None:
    write_model(tmp_path)
    (tmp_path / "models" / "shapes" / f"{MODEL}.json").unlink()
    code, lines, _ = call("--data", str(tmp_path))
    assert (code, lines[-1]["all_at_most_published"]) == (1, False)


def test_more_bytes_than_published_miss_the_bar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worse = Comparison(
        model=MODEL,
        layers=6,
        gpu_classes=("L4",),
        blocks=3,
        band=(0.5, 1.5),
        narrowest_band=(0.5, 1.5),
        published_bytes=99,
        restored_cut_bytes=None,
        our_bytes=100,
        same_cuts=False,
        at_most_published=False,
        our_seconds=0.0,
    )
    assert report([worse])
    assert '"all_at_most_published": false' in capsys.readouterr().out


def test_a_folder_without_mappings_is_a_usage_error(tmp_path: Path) -> None:
    assert call("--data", str(tmp_path))[0] == 2


@needs_data
def test_no_model_needs_more_bytes_than_published() -> None:
    models = sorted(each.name for each in (DATA / "prepartition_mappings").iterdir())
    results = [compare(DATA, model) for model in models]
    done = [each for each in results if isinstance(each, Comparison)]
    assert len(done) == 9  # the others come without layers
    assert all(each.our_bytes == each.published_bytes for each in done)
    assert all(each.narrowest_band == each.band for each in done)
    assert sum(each.restored_cut_bytes is not None for each in done) == 2
