"""The demo's checks must be able to fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from demo.digits import Digits
from demo.drive import Checked, Run, check
from demo.prepare import MODEL, Prepared
from demo.report import DemoResult, report_of, words_of
from penstock.domain.blocks import BlockPartition
from penstock.domain.cluster import Cluster
from penstock.domain.outcomes import Outcome, summarise
from tests.support.builders import a_model_plan, a_plan, a_pool


@pytest.fixture
def prepared() -> Prepared:
    plan = a_plan(a_model_plan([a_pool()], model=MODEL))
    scores = np.array([[0.0, 4.0], [3.0, 1.0]], np.float32)
    return Prepared(
        cluster=Cluster(gpu_classes=(), models=()),
        digits=Digits(
            train_images=np.zeros(0),
            train_labels=np.zeros(0),
            test_images=np.zeros((2, 1, 8, 8), np.float32),
            test_labels=np.array([1, 1]),
        ),
        scores=scores,
        accuracy=0.5,
        partition=BlockPartition(
            model=MODEL, version="1", inputs=(), outputs=(), blocks=(), cut_bytes=(), band=(0, 1)
        ),
        profiles={},
        plan=plan,
        whole_plan=plan,
    )


def a_run(goodput: int, missed: int = 0, load: float = 0.92, wrong: int = 0) -> Run:
    outcome = Outcome(model=MODEL, arrival_us=0, samples=1, slo_us=100, latency_us=50)
    outcomes = (outcome,) * goodput + (replace(outcome, latency_us=None, cause="late"),) * missed
    summary = summarise(outcomes, 1_000_000)
    return Run(
        planned_rps=100.0,
        offered_load=load,
        summary=summary,
        outcomes=outcomes,
        checked=Checked(answers=goodput, wrong=wrong, largest_error=0.0, accuracy=1.0),
        overruns=0,
        simulated=summary,
    )


def a_result(prepared: Prepared, run: Run, whole: Run) -> DemoResult:
    return DemoResult(prepared=prepared, partitioned=run, whole=whole, whole_overloaded=whole)


def test_exact_answers_are_right(prepared: Prepared) -> None:
    checked = check(prepared, [1, 0], [prepared.scores[1], prepared.scores[0]])
    assert (checked.answers, checked.wrong) == (2, 0)
    assert checked.accuracy == pytest.approx(0.5)  # image 1 is labelled 1, scored 0


@pytest.mark.parametrize(
    "answer",
    [
        np.array([4.0, 0.0], np.float32),  # another class
        np.array([0.0, 4.001], np.float32),  # the same class, other scores
        np.array([0.0, np.nan], np.float32),
    ],
)
def test_other_answers_are_wrong(prepared: Prepared, answer: np.ndarray) -> None:
    assert check(prepared, [0], [answer]).wrong == 1


def test_rounding_is_not_wrong(prepared: Prepared) -> None:
    assert check(prepared, [0], [np.array([0.0, 4.00001], np.float32)]).wrong == 0


def test_a_good_run_has_no_shortfall(prepared: Prepared) -> None:
    result = a_result(prepared, a_run(100), a_run(60))
    assert result.failures() == []
    report = report_of(result)
    assert report["emulated"] is True
    assert report["sustained_rps"] == 100
    assert report["no_partition_sustained_rps"] == 60
    assert "1.67 ×" in words_of(result)


@pytest.mark.parametrize(
    ("run", "whole", "told"),
    [
        (a_run(98, missed=2), a_run(60), "attainment 98.00%"),
        (a_run(100, load=0.85), a_run(60), "85%"),
        (a_run(100), a_run(100), "no more than"),
        (a_run(100, wrong=1), a_run(60), "1 answers are wrong"),
    ],
)
def test_each_shortfall_is_told(prepared: Prepared, run: Run, whole: Run, told: str) -> None:
    (shortfall,) = a_result(prepared, run, whole).failures()
    assert told in shortfall
