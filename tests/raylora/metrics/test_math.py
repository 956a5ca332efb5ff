from __future__ import annotations

import re
import threading
from importlib.util import module_from_spec, spec_from_file_location
from itertools import pairwise
from pathlib import Path

import pytest

from raylora.errors import UserError
from raylora.metrics import make_metric
from raylora.metrics.core.answers import spelt
from raylora.metrics.math import Math
from raylora.metrics.testing import MetricConformance, row, text_case

HERE = Path(__file__).parent
MATH = next((p / "shared/data/math/test.parquet" for p in HERE.parents if (p / "shared/data/math").is_dir()), None)
NEEDS_MATH = pytest.mark.skipif(MATH is None, reason="no shared data beside the checkout")


def _hand_written():
    spec = spec_from_file_location("math_pairs", HERE / "math_pairs.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAIRS = _hand_written()


@pytest.fixture(scope="module")
def metric():
    """One metric, and so one process that compares, for all tests."""
    return Math()


class TestMath(MetricConformance):
    @pytest.fixture
    def metric(self, metric):
        return metric

    @pytest.fixture
    def case(self):
        return text_case(right=[r"\boxed{\frac{1}{2}}", "x+1"], wrong=["2", "x-1"], answers=["0.5", "1+x"])


@pytest.mark.parametrize(("answer", "completion"), PAIRS.pairs(PAIRS.EQUAL))
def test_what_means_the_same_is_equal(metric, answer, completion):
    assert metric.equal(answer, completion)


@pytest.mark.parametrize(("answer", "completion"), PAIRS.pairs(PAIRS.UNEQUAL))
def test_what_means_another_thing_is_not(metric, answer, completion):
    assert not metric.equal(answer, completion)


def test_there_are_two_hundred_pairs():
    assert len({*PAIRS.pairs(PAIRS.EQUAL), *PAIRS.pairs(PAIRS.UNEQUAL)}) >= 200


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ("Adding up, \\boxed{\\frac{1}{2}}, which is less than 3.", True),
        ("Thus\n\\[ x = \\frac{1}{2} \\]\nas claimed.", True),
        ("I think $2$, but the answer is: $\\frac{1}{2}$. I hope it is correct.", True),
        ("#### 1/2", True),
        ("\\boxed{\\frac{1}{2}", False),
        ("", False),
    ],
)
def test_the_final_answer_of_a_solution_counts(metric, completion, right):
    assert metric.equal("\\frac{1}{2}", completion) is right


def test_a_rows_answer_can_be_a_whole_solution(metric):
    assert metric.equal("It is $3+4=7$, so \\boxed{7}.", "The answer is 7.")


def test_it_works_off_the_main_thread(metric):
    found = []
    worker = threading.Thread(target=lambda: found.append(metric.score(["(x+1)^2"], [row("x^2+2x+1")])))
    worker.start()
    worker.join()
    assert found == [[1.0]]


ENDLESS = (
    r"\int_0^1 \frac{\sin(x^{x^x})}{\ln(1+e^{x^{9}})} dx",
    r"\sum_{n=1}^{\infty} \frac{\sin(n^{n^{3}})}{n^{n^{2}}}",
)


def test_off_the_main_thread_a_comparison_without_an_end_is_given_up():
    metric = Math(timeout=0.5)
    found = []
    worker = threading.Thread(target=lambda: found.append(metric.equal(*ENDLESS)))
    worker.start()
    worker.join()
    assert found == [False]


def test_a_comparison_that_no_signal_stops_is_ended_from_outside():
    metric = Math(timeout=1.0)
    assert not metric.equal("1", "9^{9^{9^{9}}}")
    assert metric.equal("(x+1)^2", "x^2+2x+1")


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "5", True])
def test_a_timeout_that_is_none_is_refused(timeout):
    with pytest.raises(UserError, match=r"math\.timeout: .* is not allowed; give seconds"):
        make_metric("math", {"timeout": timeout})


def rewrites(answer):
    """Three solutions that end in the same answer, written in other ways."""
    yield f"Therefore the answer is $\\boxed{{{answer}}}$.".replace("\\frac", "\\dfrac")
    bare = answer.replace("\\left", "").replace("\\right", "").replace("\\!", "")
    yield f"We are done.\nThe answer is: ${bare}$. I hope it is correct."
    fraction = re.fullmatch(r"(-?)\\frac\{(\d+)\}\{(\d+)\}", answer)
    if fraction:
        answer = "{}{}/{}".format(*fraction.groups())
    elif re.fullmatch(r"-?\d+", answer):
        answer += ".0"
    elif "\\text" not in answer:
        answer = answer.replace("+", " + ")
    yield f"Hence we find\n\\[ {answer} \\]"


def math_answers(step):
    import pyarrow.parquet as pq

    return pq.read_table(MATH, columns=["answer"]).column("answer").to_pylist()[::step]


EQUAL_NEIGHBOURS = [{r"\frac{3}{4}", r"\frac34"}]
STEPS = [25, pytest.param(1, marks=pytest.mark.real)]


@NEEDS_MATH
@pytest.mark.parametrize("step", STEPS)
def test_rewritten_answers_of_math_are_equal(metric, step):
    verdicts = [metric.equal(answer, text) for answer in math_answers(step) for text in rewrites(answer)]
    assert sum(verdicts) >= 0.99 * len(verdicts)


@NEEDS_MATH
@pytest.mark.parametrize("step", STEPS)
def test_the_answers_of_other_problems_of_math_are_not(metric, step):
    answers = math_answers(step)
    same = [
        (answer, other)
        for answer, other in pairwise(answers)
        if metric.equal(answer, f"\\boxed{{{other}}}") and answer.strip("\\$ ") != other.strip("\\$ ")
    ]
    # Neighbours that are equal, in two spellings.
    assert all(spelt(answer) == spelt(other) or {answer, other} in EQUAL_NEIGHBOURS for answer, other in same)
