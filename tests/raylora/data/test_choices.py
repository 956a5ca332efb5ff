from __future__ import annotations

import json

import pytest

from raylora.data.choices import find, right_one
from raylora.data.columns import recognise
from raylora.data.conversation import BadTurn

TWO = ["red", "blue"]


def normalise(row, *others, **options):
    return recognise([row, *others], **options).normalise(row)


@pytest.mark.parametrize(
    "row",
    [
        {"question": "Sky?", "choices": TWO, "answer": 1},
        {"question": "Sky?", "choices": {"text": TWO, "label": ["A", "B"]}, "answerKey": "B"},
        {"question": "Sky?", "choices": {"text": TWO, "label": ["1", "2"]}, "answerKey": "2"},
        {"stem": "Sky?", "options": [{"label": "A", "text": "red"}, {"label": "B", "text": "blue"}], "label": "B"},
        {"question": "Sky?", "A": "red", "B": "blue", "answer": "B"},
        {"question": "Sky?", "opa": "red", "opb": "blue", "cop": 1},
        {"goal": "Sky?", "sol1": "red", "sol2": "blue", "label": 1},
        {"sentence": "Sky?", "option1": "red", "option2": "blue", "answer": "2"},
        {"ctx": "Sky?", "endings": TWO, "label": "1"},
        {"question": "Sky?", "options": TWO, "rationale": "It is.", "correct": "(b)"},
        {"question": "Sky?", "choices": TWO, "answer": "blue"},
    ],
)  # fmt: skip
def test_a_question_with_its_options_is_asked_for_the_letter(row):
    key = next(name for name in ("answerKey", "cop", "label", "correct", "answer") if name in row)
    other = {**row, key: {"2": "1", "1": "0"}.get(row[key], row[key])} if isinstance(row[key], str) else {**row, key: 0}
    found = normalise(row, other)
    assert found["prompt"] == "Sky?\n\nA. red\nB. blue\nAnswer:"
    assert (found["response"], found["answer"]) == ("B", "B")
    assert json.loads(found["metadata"]) == {"choices": TWO}


def test_a_passage_comes_before_its_question():
    found = normalise({"article": "It rains.", "question": "Wet?", "options": ["no", "yes"], "answer": "B"})
    assert found["prompt"] == "It rains.\n\nWet?\n\nA. no\nB. yes\nAnswer:"


def test_numbers_that_begin_with_1_are_told():
    rows = [{"question": "q", "choices": TWO, "answer": answer} for answer in (1, 2, 1)]
    form = recognise(rows)
    assert [form.normalise(row)["response"] for row in rows] == ["A", "B", "A"]
    assert form.told.endswith("(prompt = question, response = answer, options = choices, numbered from 1)")


def test_the_users_own_columns_name_the_options_too():
    row = {"frage": "Sky?", "moegliche": TWO, "richtig": 1}
    found = normalise(row, columns={"prompt": "frage", "choices": "moegliche", "answer": "richtig"})
    assert found["prompt"].startswith("Sky?\n\nA. red") and found["response"] == "B"


@pytest.mark.parametrize(
    "row",
    [
        {"question": "2 + 2?", "choices": TWO, "answer": "It is 4, as two and two are four."},
        {"question": "2 + 2?", "choices": [], "answer": "4"},
        {"question": "2 + 2?", "a": "x", "answer": "4"},
    ],
)
def test_what_is_no_option_stays_a_response(row):
    assert find(list(row), [row]) == ({}, ())
    assert normalise(row)["response"] == row["answer"]


@pytest.mark.parametrize(("value", "texts"), [("C", TWO), (2, TWO), ("green", TWO), (None, TWO), (-1, TWO)])
def test_an_answer_that_is_none_of_the_options_is_a_problem_of_the_row(value, texts):
    with pytest.raises(BadTurn, match="is none of its 2 options"):
        right_one(value, texts, [], 0)


def test_a_text_that_looks_like_a_number_is_a_text_first():
    assert right_one("2", ["1", "2", "0"], [], 0) == 1
    assert right_one(2, ["1", "2", "0"], [], 0) == 2
