"""What verbs that offer a load accept, and what they refuse in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.arrivals import Gamma, Law, Poisson, Replay, Window
from penstock.domain.arrivals import RequestTrace
from penstock.domain.errors import InvalidSettings, InvalidTrace, UnknownName
from penstock.load_options import arrivals_asked, window_of


def asked(**options: Any) -> Law | Replay:
    names = ("arrivals", "trace", "trace_window", "rate_scale", "duration_us")
    given: dict[str, Any] = {**dict.fromkeys(names), "fit": ("--load", None), **options}
    return arrivals_asked(**given)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "llm.csv"
    path.write_bytes(
        b"TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:15:46.6805900,374,44\r\n"
    )
    return path


def test_arrivals_are_poisson_unless_asked_otherwise() -> None:
    assert asked() == Poisson()
    assert asked(arrivals="gamma:cv=4", fit=("--load", 0.5)) == Gamma(4.0)


def test_a_trace_comes_whole_unless_asked_otherwise(trace: Path) -> None:
    content = RequestTrace((0,))
    assert asked(trace=trace, fit=("--load", 0.5)) == Replay(trace=content)
    assert asked(trace=trace, trace_window="2:9", rate_scale=2.5, duration_us=1) == Replay(
        trace=content, window=Window(2_000_000, 2_000_001), rate_scale=2.5
    )


def test_options_that_contradict_one_another_are_refused(trace: Path) -> None:
    for options, message in (
        ({"trace_window": ":9"}, "--trace-window: expected --trace with it, found none"),
        ({"rate_scale": 2.0}, "--rate-scale: expected --trace with it, found none"),
        ({"trace": trace, "arrivals": "poisson"}, "--arrivals: expected a law or a trace, found -"),
        (
            {"trace": trace, "rate_scale": 2.0, "fit": ("--load", 0.5)},
            "--rate-scale: expected either it or --load, found both",
        ),
    ):
        with pytest.raises(InvalidSettings) as caught:
            asked(**options)
        assert str(caught.value).startswith(message)


def test_what_is_wrong_in_law_or_trace_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnknownName):
        asked(arrivals="trace")
    with pytest.raises(InvalidSettings):
        asked(arrivals="gamma")
    with pytest.raises(OSError, match="No such file"):
        asked(trace=tmp_path / "none.csv")
    path = tmp_path / "utf-16.csv"
    path.write_text("arrival_us,model,samples\n", encoding="utf-16")
    with pytest.raises(InvalidTrace, match=r"utf-16\.csv: expected text in UTF-8, found other"):
        asked(trace=path)


@pytest.mark.parametrize(
    ("text", "window"),
    [
        (":", Window()),
        ("60:", Window(60_000_000)),
        (":0.5", Window(0, 500_000)),
        ("1.5:2e3", Window(1_500_000, 2_000_000_000)),
    ],
)
def test_reads_a_window(text: str, window: Window) -> None:
    assert window_of(text) == window


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("60", "--trace-window: expected FROM:TO in seconds, found '60'"),
        ("", "--trace-window: expected FROM:TO in seconds, found ''"),
        ("a:5", "--trace-window: from: expected seconds, at least 0, found 'a'"),
        ("-1:5", "--trace-window: from: expected seconds, at least 0, found '-1'"),
        ("nan:5", "--trace-window: from: expected seconds, at least 0, found 'nan'"),
        ("1:inf", "--trace-window: to: expected seconds, at least 0, found 'inf'"),
        ("1:2:3", "--trace-window: to: expected seconds, at least 0, found '2:3'"),
        ("5:5", "--trace-window: to: expected more than from, found '5:5'"),
        ("5:4", "--trace-window: to: expected more than from, found '5:4'"),
    ],
)
def test_a_wrong_window_gets_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        window_of(text)
    assert str(caught.value) == message
