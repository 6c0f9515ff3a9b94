"""How a profile was computed, in words and beside what is asked for."""

from __future__ import annotations

import pytest

from penstock.domain.errors import InvalidInput
from penstock.domain.execution import Computed, ExecutionOptions, named_options


def test_gpus_compile_by_default() -> None:
    halves = ExecutionOptions(precision="fp16", memory_format="channels_last")
    assert halves.on("cuda").words == "inductor, fp16, channels_last"
    assert halves.on("cpu").words == "eager, fp16, channels_last"


@pytest.mark.parametrize(
    ("blocks", "told"), [((), ""), ((1,), " (not block 1)"), ((0, 2), " (not blocks 0, 2)")]
)
def test_what_could_not_be_compiled_is_named_and_still_as_asked(
    blocks: tuple[int, ...], told: str
) -> None:
    computed = Computed(
        executor="cuda",
        compiled="inductor",
        precision="fp32",
        memory_format="contiguous",
        not_compiled=blocks,
    )
    assert computed.words == f"inductor{told}, fp32, contiguous"
    assert computed.is_as_asked(ExecutionOptions())
    assert not computed.is_as_asked(ExecutionOptions(compile="off"))


def test_words_of_outside_are_checked() -> None:
    asked = ExecutionOptions(precision="bf16", memory_format="channels_last", compile="off")
    assert named_options("here", "bf16", "channels_last", "off") == asked
    with pytest.raises(InvalidInput, match="here: compile: expected one of auto, on, off, found"):
        named_options("here", "bf16", "channels_last", "")
