"""Bodies of requests, read and refused."""

from __future__ import annotations

import json

import pytest

from raylora.run.serve.requests import SHORT, ChatBody, CompletionBody, RequestError, read_body
from trainables.protocols import Sampling

USUAL = Sampling(32, temperature=0.5, top_p=0.9, n=4, stop=("#",), seed=7)
ASK = {"messages": [{"role": "user", "content": "?"}]}


def chat(**fields) -> ChatBody:
    return read_body(ChatBody, json.dumps(ASK | fields).encode())


def test_what_is_left_out_is_as_the_run_samples_but_for_one_answer_and_fresh_draws() -> None:
    found = chat().sampling(USUAL)
    assert (found.temperature, found.top_p, found.stop, found.n) == (0.5, 0.9, ("#",), 1)
    assert found.seed != chat().sampling(USUAL).seed


def test_what_is_asked_for_wins() -> None:
    found = chat(temperature=0, top_p=0.5, n=2, stop="x", seed=-3).sampling(USUAL)
    assert found == Sampling(32, temperature=0.0, top_p=0.5, n=2, stop=("x",), seed=3)


def test_no_probability_at_all_is_the_likeliest_token() -> None:
    assert chat(temperature=1, top_p=0).sampling(USUAL).temperature == 0


def test_the_newer_name_of_the_longest_answer_wins_and_completions_are_short() -> None:
    assert chat(max_tokens=3, max_completion_tokens=5).longest == 5 and chat().longest is None
    assert read_body(CompletionBody, b'{"prompt": "a"}').longest == SHORT


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2]], [[1], [2]])],
    ids=str,
)
def test_a_prompt_is_text_or_ids_one_or_several(prompt, prompts) -> None:
    assert read_body(CompletionBody, json.dumps({"prompt": prompt}).encode()).prompts() == prompts


def test_parts_of_text_are_one_text_and_the_rest_of_a_turn_stays() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    (turn,) = chat(messages=[{"role": "developer", "content": parts, "name": "x"}]).messages
    assert turn.turn() == {"role": "system", "content": "ab", "name": "x"}


@pytest.mark.parametrize(
    "fields",
    [
        {"presence_penalty": 0, "logit_bias": {}, "response_format": {"type": "text"}, "logprobs": False},
        {"user": "me", "metadata": {"a": "b"}, "tools": None},
    ],
    ids=["neutral", "unread"],
)
def test_what_asks_for_nothing_is_no_matter(fields) -> None:
    chat(**fields)


@pytest.mark.parametrize(
    "fields", [{"presence_penalty": 1}, {"logprobs": True}, {"response_format": {"type": "json_object"}}], ids=str
)
def test_what_would_change_the_answer_is_refused_where_it_cannot_be_done(fields) -> None:
    with pytest.raises(RequestError, match="not answered for here") as caught:
        chat(**fields)
    assert caught.value.param == next(iter(fields)) and caught.value.status == 400


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"n": 0}, "n: Input should be greater than or equal to 1"),
        ({"stop": ""}, "stop: "),
        ({"messages": [{"role": "robot", "content": ""}]}, r"messages\.0\.role: "),
    ],
)
def test_what_is_wrong_is_one_line_with_the_field(fields, told) -> None:
    with pytest.raises(RequestError, match=f"^{told}"):
        chat(**fields)
