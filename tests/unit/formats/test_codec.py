from __future__ import annotations

import hashlib
from fractions import Fraction

import pytest

from penstock.domain.arrivals import Arrival
from penstock.domain.errors import InvalidPlan
from penstock.domain.ids import ModelName
from penstock.domain.requests import DropReason
from penstock.formats.codec import canonical_json, check_plain, digest, json_line, plain
from penstock.formats.sources import Source, inside, show


def test_digest_of_text_is_that_of_its_utf_8() -> None:
    assert digest("é") == digest("é".encode()) == hashlib.sha256("é".encode()).hexdigest()


def test_plain_spells_shares_enums_and_dataclasses() -> None:
    arrival = Arrival(arrival_us=1, model=ModelName("m"))
    assert plain((Fraction(1, 3), Fraction(1), DropReason.SHED, {"a": arrival})) == [
        "1/3",
        "1/1",
        "shed",
        {"a": {"arrival_us": 1, "model": "m", "samples": 1, "slo_us": None}},
    ]


def test_plain_refuses_what_has_no_plain_form() -> None:
    with pytest.raises(TypeError, match="object has no plain form"):
        plain(object())
    with pytest.raises(TypeError, match="type has no plain form"):
        plain(Arrival)


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical_json({"b": 1, "a": "é"}) == canonical_json({"a": "é", "b": 1})
    assert canonical_json({"b": 1, "a": "é"}) == '{\n  "a": "é",\n  "b": 1\n}\n'


def test_json_never_says_infinity() -> None:
    for write in (canonical_json, json_line):
        with pytest.raises(ValueError, match="not JSON compliant"):
            write({"a": float("inf")})


def test_a_json_line_is_one_line_of_ascii() -> None:
    assert json_line({"b": "é\n\ud800"}) == '{"b":"\\u00e9\\n\\ud800"}\n'


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "null"),
        (True, "true"),
        (1, "1"),
        (10**100, "an integer of 333 bits"),
        (0.5, "0.5"),
        ("a\nb", r"'a\nb'"),
        ("x" * 100, f"{'x' * 60!r}… (100 characters)"),
        ([], "an empty list"),
        ([1], "a list of 1"),
        ({}, "an empty object"),
        ({"a": 1}, "an object"),
    ],
)
def test_shows_what_was_found_in_a_few_words(value: object, words: str) -> None:
    assert show(value) == words


def test_bytes_are_not_plain_data() -> None:
    with pytest.raises(InvalidPlan, match=r"x: a\[0\]: expected plain data, found a bytes"):
        check_plain({"a": [b""]}, Source("x", InvalidPlan))


def test_places_are_paths() -> None:
    assert inside("", "models", 0, "slo_ms") == "models[0].slo_ms"
    assert inside("a", "odd name") == "a.'odd name'"
