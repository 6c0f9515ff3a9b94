"""Policies chosen by text: names, parameters, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from penstock.command import run
from penstock.domain.errors import InvalidSettings, UnknownName
from penstock.domain.ids import PipelineId
from penstock.formats.plans import write_plan
from penstock.policies import BATCHING, ROUTING, batching_policy, routing_policy
from penstock.policies.batching.aimd import AimdPolicy
from penstock.policies.batching.fixed import FixedPolicy
from penstock.policies.batching.reservation import ReservationPolicy
from penstock.policies.batching.triton import TritonPolicy
from penstock.policies.parameters import parameters_of
from penstock.policies.routing.power_of_two import PowerOfTwo
from penstock.policies.routing.round_robin import RoundRobin
from penstock.scheduling.ports import Finished
from penstock.verbs import VERBS
from tests.support.builders import a_model_plan, a_plan, a_pool

DOCS = Path(__file__).parents[3] / "docs" / "policies.md"


def test_a_name_alone_takes_the_defaults() -> None:
    assert batching_policy("fixed")() == FixedPolicy()
    assert routing_policy("power-of-two")() == PowerOfTwo()


@pytest.mark.parametrize(
    ("spec", "policy"),
    [
        ("fixed:size=4", FixedPolicy(size=4)),
        ("fixed:size=none,timeout_us=2000", FixedPolicy(timeout_us=2_000)),
        ("fixed: size = 4 , timeout_us = 0", FixedPolicy(size=4, timeout_us=0)),
        (
            "triton:preferred=4+8,max_queue_delay_us=100",
            TritonPolicy(preferred=(4, 8), max_queue_delay_us=100),
        ),
        ("aimd:backoff=0.5,dead_band=0", AimdPolicy(backoff=0.5, dead_band=0.0)),
        ("reservation:safety=0.1", ReservationPolicy(safety=0.1)),
    ],
)
def test_parameters_follow_a_colon(spec: str, policy: object) -> None:
    assert batching_policy(spec)() == policy


def test_routing_policies_have_parameters_too() -> None:
    assert routing_policy("round-robin:weighted=true")() == RoundRobin(weighted=True)
    assert routing_policy("power-of-two:choices=3,seed=9")() == PowerOfTwo(choices=3, seed=9)


def test_each_call_of_the_factory_makes_a_policy_that_learns_for_itself() -> None:
    factory = batching_policy("aimd:step=1")
    one, other = factory(), factory()
    here, there = PipelineId("here"), PipelineId("there")
    one.observe(Finished(here, 1, 10, True))
    one.observe(Finished(here, 1, -1, True))
    assert isinstance(one, AimdPolicy)
    assert isinstance(other, AimdPolicy)
    assert one.cap(here) == 2
    assert one.cap(there) == other.cap(here) == 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("best", "unknown batching policy 'best'; known: aimd, fixed, nexus, proteus, "),
        (
            "fixed:sise=4",
            "unknown parameter of batching policy 'fixed' 'sise'; known: size, timeout_us",
        ),
        ("nexus:timeout_us=4", "unknown parameter of batching policy 'nexus' 'timeout_us'"),
        ("aimd:_learned=4", "unknown parameter"),
    ],
)
def test_unknown_names_list_the_known_ones(spec: str, message: str) -> None:
    with pytest.raises(UnknownName) as caught:
        batching_policy(spec)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("fixed:", "batching policy 'fixed': expected parameter=value after the colon, found ''"),
        ("fixed:4", "batching policy 'fixed': expected parameter=value after the colon, found '4'"),
        ("fixed:size=4,", "expected parameter=value after the colon, found ''"),
        ("fixed:size=4,size=5", "size: expected one value, found two"),
        ("fixed:size=0", "size: expected none or a whole number of at least 1, found '0'"),
        ("fixed:timeout_us=2.5", "timeout_us: expected a whole number of at least 0, found '2.5'"),
        ("fixed:timeout_us=none", "timeout_us: expected a whole number of at least 0"),
        ("fixed:timeout_us=-1", "timeout_us: expected a whole number of at least 0, found '-1'"),
        ("aimd:backoff=1.5", "backoff: expected a number of at least 0 and at most 1, found '1.5'"),
        ("aimd:backoff=nan", "backoff: expected a number"),
        (
            "reservation:bind_lead=inf",
            "bind_lead: expected a number of at least 0 and at most 10, found 'inf'",
        ),
        ("triton:preferred=4+0", "preferred: expected whole numbers joined by plus signs, each"),
        ("triton:preferred=", "preferred: expected whole numbers joined by plus signs, each"),
    ],
)
def test_values_that_cannot_be_are_refused_with_what_can(spec: str, message: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        batching_policy(spec)
    assert message in str(caught.value)


def test_truth_has_two_words() -> None:
    with pytest.raises(InvalidSettings, match="weighted: expected true or false, found '1'"):
        routing_policy("round-robin:weighted=1")


POLICIES = [*BATCHING.items(), *ROUTING.items()]


@pytest.mark.parametrize(("name", "policy"), POLICIES, ids=lambda each: str(each)[:20])
def test_each_policy_is_described_with_its_parameters(
    name: str, policy: Callable[..., object]
) -> None:
    page = DOCS.read_text()
    assert f"`{name}`" in page
    assert is_dataclass(policy)
    defaults = {each.name: each.default for each in fields(policy)}
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    for key in parameters_of(policy):
        default = str(defaults[key]).lower() if defaults[key] != () else "none"
        assert any(row.startswith(f"| `{key}` | {default} |") for row in rows), key


@pytest.fixture
def plan_file(tmp_path: Path) -> str:
    path = tmp_path / "plan.json"
    path.write_text(write_plan(a_plan(a_model_plan([a_pool()]))))
    return str(path)


@pytest.mark.parametrize(
    ("option", "spec", "said"),
    [
        ("--policy", "fixed:sise=4", "known: size, timeout_us"),
        ("--policy", "fixed:size=many", "expected none or a whole number of at least 1"),
        ("--routing", "random", "known: earliest-completion, least-queueing, power-of-two, "),
        ("--routing", "power-of-two:choices=0", "expected a whole number of at least 1"),
    ],
)
def test_the_command_line_refuses_with_exit_code_two(
    plan_file: str, option: str, spec: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run("penstock", VERBS, ["simulate", plan_file, option, spec])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_the_command_line_takes_parameters(plan_file: str) -> None:
    given = ["simulate", plan_file, "--duration", "0.1", "--json", "--load", "0.1"]
    chosen = ["--policy", "triton:preferred=2+4", "--routing", "round-robin:weighted=true"]
    with pytest.raises(SystemExit) as ended:
        run("penstock", VERBS, given + chosen)
    assert ended.value.code == 0
