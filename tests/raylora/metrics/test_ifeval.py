from __future__ import annotations

import json

import pytest

from raylora.errors import UserError
from raylora.metrics.ifeval import IfEval
from raylora.metrics.testing import Case, MetricConformance, row


def ifeval_row(*instructions):
    kinds, arguments = zip(*instructions, strict=True)
    return row("", metadata=json.dumps({"instruction_id_list": kinds, "kwargs": json.dumps(arguments)}))


COMMA = ("punctuation:no_comma", {})
TITLE = ("detectable_format:title", {})
WORDS = ("length_constraints:number_words", {"num_words": 3, "relation": "at least", "keyword": None})


class TestIfEval(MetricConformance):
    @pytest.fixture
    def metric(self):
        return IfEval()

    @pytest.fixture
    def case(self):
        rows = [ifeval_row(COMMA, WORDS), ifeval_row(TITLE)]
        return Case(rows, ["one two three", "<<A>>"], ["a, b, c", "A"])


def test_prompts_and_instructions_strict_and_loose_are_told_apart():
    metric = IfEval(count="instruction_loose")
    rows = [ifeval_row(COMMA, TITLE), ifeval_row(COMMA, WORDS), ifeval_row(COMMA)]
    texts = ["Sure, here it is:\n<<A day>>", "a, b", "fine"]
    estimate = metric.summarise(metric.score(texts, rows))
    assert {name: round(part.value, 9) for name, part in estimate.parts.items()} == {
        "prompt_strict": round(1 / 3, 9),
        "prompt_loose": round(2 / 3, 9),
        "instruction_strict": 0.4,
        "instruction_loose": 0.6,
    }
    assert estimate.value == estimate.parts["instruction_loose"].value


def test_every_part_has_an_error():
    metric = IfEval()
    estimate = metric.summarise(metric.score(["fine", "a, b"], [ifeval_row(COMMA)] * 2))
    assert all(part.error is not None for part in estimate.parts.values())


@pytest.mark.parametrize(
    ("instruction", "message"),
    [
        (("keywords:rhymes", {}), r"metadata\.instruction_id_list: unknown 'keywords:rhymes'; known: "),
        (("detectable_format:title", {"length": 3}), r"metadata\.kwargs: .* do not fit detectable_format:title"),
    ],
)
def test_an_instruction_that_cannot_be_checked_is_refused(instruction, message):
    with pytest.raises(UserError, match=message):
        IfEval().score(["text"], [ifeval_row(instruction)])


def test_rows_without_instructions_are_refused():
    with pytest.raises(UserError, match=r"ifeval needs instruction_id_list and kwargs"):
        IfEval().score(["text"], [row("")])
