from __future__ import annotations

from fractions import Fraction

import pytest

from penstock.domain.errors import InvalidProfile
from penstock.domain.execution import Computed
from penstock.domain.profiles import ProfileRow
from penstock.formats.profiles import read_profile, write_profile

HEAD = """\
{"schema": "penstock.profile/1", "model": "digits", "gpu_class": "L4", "blocks": 2,
 "cut_bytes": [1024], "weight_bytes": [100, 200], "activation_bytes": [300, 400],
 "provenance": {"kind": "measured", "device": "cpu", "driver": "", "torch": "2.13.0",
                "date": "2026-01-02"}}
"""
ROWS = """\
block,batch,share,latency_mean_us,latency_p99_us,samples
0,1,1/2,110,120,30
0,1,1/1,100,110,30
1,1,1/1,200,210,30
1,1,1/2,220,230,30
"""


def test_reads_rows_and_head() -> None:
    profile = read_profile(ROWS, HEAD, "digits/L4.csv")
    assert (profile.model, profile.gpu_class, profile.blocks) == ("digits", "L4", 2)
    assert profile.provenance.kind == "measured"
    assert profile.rows[0] == ProfileRow(
        block=0,
        batch=1,
        share=Fraction(1, 2),
        latency_mean_us=110,
        latency_p99_us=120,
        samples=30,
    )


def test_writes_rows_in_order_of_block_batch_and_share() -> None:
    profile = read_profile(ROWS, HEAD, "digits/L4.csv")
    rows, head = write_profile(profile)
    assert [line[:7] for line in rows.splitlines()[1:]] == [
        "0,1,1/2",
        "0,1,1/1",
        "1,1,1/2",
        "1,1,1/1",
    ]
    assert read_profile(rows, head, "again.csv") == profile


COMPUTED = """"date": "2026-01-02", "computed": {"executor": "cuda", "compiled": "inductor",
  "precision": "fp16", "memory_format": "channels_last", "not_compiled": [1]}}}"""


def test_a_head_may_tell_how_blocks_were_computed() -> None:
    assert read_profile(ROWS, HEAD, "digits/L4.csv").provenance.computed is None
    head = HEAD.replace('"date": "2026-01-02"}}', COMPUTED)
    profile = read_profile(ROWS, head, "digits/L4.csv")
    assert profile.provenance.computed == Computed(
        executor="cuda",
        compiled="inductor",
        precision="fp16",
        memory_format="channels_last",
        not_compiled=(1,),
    )
    assert read_profile(*write_profile(profile), "again.csv") == profile


def test_what_is_not_told_is_not_written() -> None:
    # A plan made from an older profile knows it by the digest of its text.
    _, head = write_profile(read_profile(ROWS, HEAD, "digits/L4.csv"))
    assert "computed" not in head


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("fp16", "fp8", "precision: expected 'fp32', 'tf32', 'fp16' or 'bf16', found 'fp8'"),
        ('"cuda"', '"tpu"', "executor: expected 'cpu' or 'cuda', found 'tpu'"),
        ("[1]", "[2]", r"not_compiled\[0\]: expected a block below 2, found 2"),
        ("[1]", "[-1]", r"not_compiled\[0\]: expected a block below 2, found -1"),
        ('"executor": "cuda", ', "", "executor: expected a value, which is required, found none"),
    ],
)
def test_how_blocks_were_computed_is_checked(old: str, new: str, told: str) -> None:
    head = HEAD.replace('"date": "2026-01-02"}}', COMPUTED).replace(old, new)
    with pytest.raises(InvalidProfile, match=r"L4\.json: provenance\.computed\." + told):
        read_profile(ROWS, head, "digits/L4.csv")


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tolerates_byte_order_marks_crlf_and_blank_lines(mark: str, end: str) -> None:
    rows = mark + ROWS.replace("\n", end) + end + end
    profile = read_profile(rows, mark + HEAD.replace("\n", end), "digits/L4.csv")
    assert profile == read_profile(ROWS, HEAD, "digits/L4.csv")


BAD_ROWS = [
    ("1,1,1/2,220,230,30\n", "", "", "every block at each batch", "no row for block 1, batch 1, s"),
    ("1,1,1/2,220", "1,2,1/2,220", "", "every block", "0, batch 2, share 1/2; block 1, batch 1"),
    ("1,1,1/2,220", "1,1,1/1,220", "line 5, block", "one row for each", "a second one for block 1"),
    ("1,1,1/2,220", "2,1,1/2,220", "line 5, block", "a block below 2", "2"),
    ("1,1,1/2,220", "-1,1,1/2,220", "line 5, block", "an integer of at least 0", "'-1'"),
    ("1,1,1/2,220", "1,0,1/2,220", "line 5, batch", "an integer of at least 1", "'0'"),
    ("1,1,1/2,220", "1,1,0.5,220", "line 5, share", "a share of one GPU", "'0.5'"),
    ("1,1,1/2,220", "1,1,2/3,220", "line 5, share", "a share of one GPU", "'2/3'"),
    ("1,1,1/2,220", "1,1,1/0,220", "line 5, share", "a share of one GPU", "'1/0'"),
    ("1,1,1/2,220", "1,1,1e999999999,220", "line 5, share", "a share of one", "'1e999999999'"),
    ("1,1,1/2,220", "1,1,1/2,nan", "line 5, latency_mean_us", "an integer of at l", "'nan'"),
    ("1,1,1/2,220", "1,1,1/2,0", "line 5, latency_mean_us", "an integer of at least 1", "'0'"),
    ("1,1,1/2,220", "1,1,1/2,22.5", "line 5, latency_mean_us", "an integer", "'22.5'"),
    ("1,1,1/2,220", "1,1,1/2,²", "line 5, latency_mean_us", "an integer", "'²'"),
    ("1,1,1/2,220", f"1,1,1/2,{'9' * 5000}", "line 5, latency_mean_us", "an integer", "999"),
    ("1,1,1/2,220", "1,1,1/2,\0", "line 5, latency_mean_us", "an integer", r"'\x00'"),
    ("1,1,1/2,220", "1,1,1/2", "line 5", "6 cells", "5"),
    ("1,1,1/2,220", '1,1,1/2,"220', "line 5", "CSV", "unexpected end of data"),
    ("1,1,1/2,220", f"1,1,1/2,{'9' * 200_000}", "line 5", "CSV", "field larger than field limit"),
    ("latency_mean_us", "latency_us", "line 1", "the header 'block,batch,share,laten", "'block,ba"),
    (ROWS, "", "line 1", "the header 'block,batch", "''"),
    (ROWS, ROWS.splitlines()[0], "", "rows of latencies", "the header alone"),
]


@pytest.mark.parametrize(("old", "new", "place", "expected", "found"), BAD_ROWS)
def test_bad_rows_get_one_clear_line(
    old: str, new: str, place: str, expected: str, found: str
) -> None:
    assert old in ROWS
    with pytest.raises(InvalidProfile) as caught:
        read_profile(ROWS.replace(old, new), HEAD, "digits/L4.csv")
    error = caught.value
    assert (error.source, error.place) == ("digits/L4.csv", place)
    assert expected in error.expected
    assert found in error.found
    assert "\n" not in str(error)
    assert len(str(error)) < 400


BAD_HEADS = [
    ("[1024]", "[]", "cut_bytes", "1 values, one for each cut", "0"),
    ("[100, 200]", "[100]", "weight_bytes", "2 values, one for each block", "1"),
    ("[300, 400]", "[300, -4]", "activation_bytes[1]", "at least 0", "-4"),
    ("[300, 400]", "[300, 4.5]", "activation_bytes[1]", "an integer", "4.5"),
    ('"blocks": 2', '"blocks": 0', "blocks", "at least 1", "0"),
    ('"measured"', '"guessed"', "provenance.kind", "'measured', 'estimated' or 'imported'", "'gue"),
    ('"driver": "", ', "", "provenance.driver", "a value, which is required", "none"),
    ('"driver"', '"drvier"', "provenance", "only the fields kind, device, driver", "'drvier'"),
    ('"digits"', '"../etc"', "model", "a name of letters", "'../etc'"),
    ('"blocks": 2', '"blocks": 2, "blocks_digest": "ab"', "blocks_digest", "a SHA-256", "'ab'"),
    ('"blocks": 2', '"blocks": 2, "blocks": 3', "", "every key once", "'blocks' twice"),
    ("penstock.profile/1", "penstock.profile/2", "schema", "'penstock.profile/1'", "profile/2'"),
    ('"kind"', '"kind" "x"', "line 3, column 24", "JSON", "Expecting ':' delimiter"),
]


@pytest.mark.parametrize(("old", "new", "place", "expected", "found"), BAD_HEADS)
def test_a_bad_head_gets_one_clear_line(
    old: str, new: str, place: str, expected: str, found: str
) -> None:
    assert old in HEAD
    with pytest.raises(InvalidProfile) as caught:
        read_profile(ROWS, HEAD.replace(old, new), "digits/L4.csv")
    error = caught.value
    assert (error.source, error.place) == ("digits/L4.json", place)
    assert expected in error.expected
    assert found in error.found
    assert "\n" not in str(error)


def test_missing_cells_of_a_vast_grid_are_named_quickly() -> None:
    head = HEAD.replace('"blocks": 2', '"blocks": 1').replace("[1024]", "[]")
    head = head.replace("[100, 200]", "[1]").replace("[300, 400]", "[1]")
    rows = "".join(f"0,{n},1/{n},5,5,1\n" for n in range(1, 200))
    profile = read_profile(ROWS.splitlines()[0] + "\n" + rows, head, "a.csv")
    assert len(profile.rows) == 199
