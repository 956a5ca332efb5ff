from __future__ import annotations

import json

import pytest

from raylora.data.conversation import BadTurn, read_transcript, read_turns, to_columns


def said(*turns):
    return [{"role": role, "content": content} for role, content in turns]


def test_turns_of_either_kind_become_messages():
    given = [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    assert read_turns(given) == said(("system", "s"), ("user", "q"), ("assistant", "a"))


def test_parts_of_text_are_joined_and_others_refused():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert read_turns([{"role": "user", "content": parts}]) == said(("user", "ab"))
    with pytest.raises(BadTurn, match="content of type image_url"):
        read_turns([{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}])


def test_arguments_of_tool_calls_become_objects():
    call = {"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    turn = read_turns([{"role": "assistant", "content": None, "tool_calls": [call]}])[0]
    assert turn["tool_calls"][0]["function"]["arguments"] == {"a": 1}


@pytest.mark.parametrize("turns", ["x", 3, [1], [{"role": "alien", "content": "x"}], [{"text": "x"}]])
def test_what_is_no_conversation_says_why(turns):
    with pytest.raises(BadTurn):
        read_turns(turns)


def test_what_follows_the_last_answer_is_left_out():
    found = to_columns(said(("user", "a"), ("assistant", "b"), ("user", "c")))
    assert (found["prompt"], found["response"], found["conversation"]) == ("a", "b", None)


def test_a_longer_conversation_travels_whole():
    turns = said(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    found = to_columns(turns, tools=[{"name": "add"}])
    assert (found["prompt"], found["response"]) == ("c", "d")
    assert json.loads(found["conversation"]) == {"messages": turns, "tools": [{"name": "add"}]}


@pytest.mark.parametrize(
    ("turns", "problem"),
    [
        ([], "no_assistant_turn"),
        (said(("user", "a")), "no_assistant_turn"),
        (said(("system", "a"), ("assistant", "b")), "no_user_turn"),
        (said(("user", "a"), ("assistant", " ")), "empty_response"),
        (said(("user", "a"), ("assistant", None)), "null_response"),
    ],
)
def test_what_a_conversation_lacks_is_its_problem(turns, problem):
    assert to_columns(turns)["problem"] == problem


def test_a_call_of_a_tool_is_an_answer():
    turns = [*said(("user", "a")), {"role": "assistant", "content": None, "tool_calls": [{"name": "add"}]}]
    assert to_columns(turns)["problem"] is None


def test_a_transcript_is_taken_apart():
    text = "\n\nHuman: hi\n\nAssistant: hello\nyou\n\nHuman: bye\n\nAssistant: bye"
    assert [turn["content"] for turn in read_transcript(text)] == ["hi", "hello\nyou", "bye", "bye"]
    assert read_transcript("He said: Human: no") is None
