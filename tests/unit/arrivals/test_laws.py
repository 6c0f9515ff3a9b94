"""Arrival laws as people write them."""

from __future__ import annotations

import pytest

from penstock.arrivals import Constant, Diurnal, Gamma, Law, Mmpp, Poisson, law_of
from penstock.domain.errors import InvalidSettings, UnknownName


@pytest.mark.parametrize(
    ("text", "law"),
    [
        ("constant", Constant()),
        ("poisson", Poisson()),
        ("gamma:cv=4", Gamma(4.0)),
        ("gamma:cv=0.25", Gamma(0.25)),
        ("mmpp:burst=5,share=0.1,length=2", Mmpp(burst=5.0, share=0.1, length_s=2.0)),
        ("mmpp:length=2,burst=5,share=0.1", Mmpp(burst=5.0, share=0.1, length_s=2.0)),
        ("diurnal:peak=2,period=86400", Diurnal(peak=2.0, period_s=86_400.0)),
    ],
)
def test_reads_a_law(text: str, law: Law) -> None:
    assert law_of(text) == law


MMPP = "arrivals: mmpp: expected 'mmpp:burst=NUMBER,share=NUMBER,length=NUMBER', each once, found "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gamma", "arrivals: gamma: expected 'gamma:cv=NUMBER', each once, found no cv"),
        ("gamma:", "arrivals: gamma: expected 'gamma:cv=NUMBER', each once, found ''"),
        ("gamma:4", "arrivals: gamma: expected 'gamma:cv=NUMBER', each once, found '4'"),
        ("gamma:cv=4,", "arrivals: gamma: expected 'gamma:cv=NUMBER', each once, found ''"),
        ("gamma:cv=4,cv=4", "arrivals: gamma: expected 'gamma:cv=NUMBER', each once, found 'cv=4'"),
        (
            "gamma:shape=4",
            "arrivals: gamma: expected 'gamma:cv=NUMBER', each once, found 'shape=4'",
        ),
        ("gamma:cv=four", "arrivals: gamma: cv: expected a number, found 'four'"),
        ("gamma:cv=", "arrivals: gamma: cv: expected a number, found ''"),
        ("gamma:cv=0", "arrivals: gamma: cv: expected a number from 1e-06 to 1000, found 0"),
        ("gamma:cv=nan", "arrivals: gamma: cv: expected a number from 1e-06 to 1000, found nan"),
        ("gamma:cv=inf", "arrivals: gamma: cv: expected a number from 1e-06 to 1000, found inf"),
        ("poisson:rate=3", "arrivals: poisson: expected 'poisson' without parameters, found 'rat"),
        ("mmpp:burst=5", MMPP + "no share and no length"),
        (
            "mmpp:burst=0.5,share=0.1,length=2",
            "arrivals: mmpp: burst: expected a number from 1 to 1e+06, found 0.5",
        ),
        (
            "mmpp:burst=5,share=1,length=2",
            "arrivals: mmpp: share: expected a number from 0.001 to 0.999, found 1",
        ),
        (
            "mmpp:burst=5,share=0.1,length=0",
            "arrivals: mmpp: length: expected a number from 0.001 to 1e+09, found 0",
        ),
        (
            "diurnal:peak=3,period=60",
            "arrivals: diurnal: peak: expected a number from 1 to 2, found 3",
        ),
        (
            "diurnal:peak=2,period=-60",
            "arrivals: diurnal: period: expected a number from 0.001 to 1e+09, found -60",
        ),
    ],
)
def test_a_wrong_law_gets_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        law_of(text)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("text", ["weibull", "weibull:k=2", "", ":cv=4", "Poisson", "trace"])
def test_an_unknown_law_is_told_the_known_ones(text: str) -> None:
    with pytest.raises(UnknownName, match="known: constant, diurnal, gamma, mmpp, poisson"):
        law_of(text)
