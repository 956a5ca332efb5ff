from __future__ import annotations

import json
from dataclasses import replace

import pytest

from raylora.data.columns import recognise
from raylora.errors import UserError

TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
SHARE = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]


def normalise(row, **options):
    return recognise([row], **options).normalise(row)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "hi", "response": "hello"},
        {"Question": "hi", " answer": "hello"},
        {"prompt": "hi", "completion": "hello"},
        {"instruction": "hi", "input": "", "output": "hello"},
        {"input": "hi", "output": "hello"},
        {"problem": "hi", "solution": "hello"},
        {"text": "hi", "summary": "hello"},
        {"messages": TURNS},
        {"messages": json.dumps(TURNS)},
        {"messages": {"role": ["user", "assistant"], "content": ["hi", "hello"]}},
        {"conversations": SHARE},
        {"prompt": TURNS[:1], "response": "hello"},
        {"prompt": TURNS[:1], "completion": TURNS[1:]},
        {"prompt": "hi", "chosen": "hello", "rejected": "go"},
        {"prompt": "hi", "chosen": TURNS, "rejected": TURNS},
        {"chosen": TURNS, "rejected": TURNS},
        {"chosen": "\n\nHuman: hi\n\nAssistant: hello", "rejected": "\n\nHuman: hi\n\nAssistant: go"},
    ],
)
def test_what_people_call_a_question_and_its_answer_is_recognised(row):
    found = normalise(row)
    assert (found["prompt"], found["response"], found["answer"]) == ("hi", "hello", "hello")
    assert found.get("conversation") is None and found.get("problem") is None


def test_the_bare_answer_is_kept_apart_from_the_worked_response():
    found = normalise({"prompt": "2 + 2?", "response": "It is 4.", "answer": 4})
    assert (found["response"], found["answer"]) == ("It is 4.", "4")


def test_the_input_of_an_instruction_follows_it():
    found = normalise({"instruction": "Translate.", "input": "hola", "output": "hello"})
    assert found["prompt"] == "Translate.\n\nhola"


def test_a_system_column_and_a_history_make_a_conversation():
    row = {"instruction": "and you?", "output": "fine", "system": "Be brief.", "history": [["hi", "hello"]]}
    turns = json.loads(normalise(row)["conversation"])["messages"]
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user", "assistant"]


@pytest.mark.parametrize("answers", [["a", "A 0"], {"text": ["a", "A 0"], "answer_start": [0, 1]}])
def test_any_of_several_answers_is_kept_for_scoring(answers):
    found = normalise({"question": "q?", "answers": answers})
    assert (found["response"], found["answer"]) == ("a", "a")
    assert json.loads(found["metadata"]) == {"references": ["a", "A 0"]}


def test_plain_text_has_no_prompt():
    found = normalise({"text": "Once upon a time."})
    assert (found["prompt"], found["response"]) == ("", "Once upon a time.")
    assert json.loads(found["conversation"]) == {"text": True}


def test_labelled_rows_ask_for_the_label():
    found = normalise({"text": "fine film", "label": "1"})
    assert (found["prompt"], found["response"]) == ("fine film\n\nlabel:", "1")
    named = normalise({"sentence1": "a b", "sentence2": "c", "label": 1, "idx": 7}, classes={"label": ["no", "yes"]})
    assert (named["prompt"], named["response"]) == ("sentence1: a b\nsentence2: c\n\nlabel:", "yes")


def test_labels_that_are_few_are_listed_in_the_prompt():
    form = recognise([{"text": "fine film", "main_topic": "x"}], columns={"text": "text", "label": "main_topic"})
    listed = replace(form, listed=("art", "law", "war"))
    assert listed.normalise({"text": "fine film", "main_topic": "art"})["prompt"] == (
        "fine film\n\nChoose the main topic of the text: art, law or war.\nmain_topic:"
    )
    assert listed.told == "labelled rows (text = text, label = main_topic: art, law or war)"


def test_labels_become_words():
    assert normalise({"text": "fine", "label": 1}, labels={0: "bad", 1: "good"})["response"] == "good"


def test_the_users_own_columns_are_taken_at_their_word():
    row = {"a": "hi", "b": "hello", "prompt": "no", "response": "no"}
    found = normalise(row, columns={"prompt": "a", "response": "b"})
    assert (found["prompt"], found["response"]) == ("hi", "hello")


def test_a_template_is_filled():
    found = normalise({"x": "It rain {x}.", "y": 0}, template="{x} Right?", response_column="y", labels={0: "no"})
    assert (found["prompt"], found["response"]) == ("It rain {x}. Right?", "no")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": "q", "response": None}, "null_response"),
        ({"prompt": "q", "response": " \n"}, "empty_response"),
        ({"prompt": None, "response": "a"}, "no_prompt"),
        ({"prompt": "", "response": "a"}, "no_prompt"),
        ({"text": ""}, "empty_response"),
        ({"text": "fine", "label": None}, "null_response"),
        ({"question": "q", "answer": []}, "null_response"),
    ],
)
def test_what_is_missing_is_the_rows_problem(row, problem):
    sample = [dict.fromkeys(row, "x y")]
    assert recognise(sample).normalise(row)["problem"] == problem


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "need the columns prompt and response .* task.columns.*; present: sentence, score"),
        (
            {"columns": {"prompt": "sentnce"}},
            r"task.columns.prompt: no column 'sentnce'; did you mean 'sentence'\? present: sentence, score",
        ),
        ({"columns": {"label": "grade"}}, "task.columns.label: no column 'grade'; present: sentence, score"),
        ({"columns": {"question": "sentence"}}, "task.columns.question: no such role; allowed: messages, prompt"),
        (
            {"template": "{txt}", "response_column": "score"},
            "task.options.prompt_template: no column 'txt'; present: sentence, score",
        ),
        (
            {"template": "{sentence}", "response_column": "scor"},
            r"task.options.response_column: no column 'scor'; did you mean 'score'\? present: sentence, score",
        ),
    ],
)
def test_columns_that_mean_nothing_are_listed(options, message):
    with pytest.raises(UserError, match=message) as caught:
        recognise([{"sentence": "a b", "score": 1}], **options)
    assert "\n" not in str(caught.value)


def test_a_label_without_a_word_is_named():
    with pytest.raises(UserError, match=r"task.options.labels: none for the value '1'; given: 0"):
        normalise({"text": "a", "label": 1}, labels={0: "no"})


def test_what_was_recognised_is_told():
    assert (
        recognise([{"question": "q", "answer": "a"}]).told
        == "prompts and responses (prompt = question, response = answer)"
    )
    assert recognise([{"sentence": "a b", "label": 1}]).told == "labelled rows (text = sentence, label = label)"
