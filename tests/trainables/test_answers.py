"""Requests that are answered as they come, against the answers of rows that are scored."""

from __future__ import annotations

import queue

import pytest

from trainables.answers import Answers, Piece, Request, Written
from trainables.decode import generate_and_score_loss
from trainables.protocols import Sampling
from trainables.testing import tokenised_rows


@pytest.fixture(scope="module")
def loaded(tiny_model):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(tiny_model).eval(), AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def answers(loaded):
    made = Answers(*loaded, ends=[])
    yield made
    made.close()


def ask(answers, prompts, *samplings, cancelled=False) -> list[list[Piece]]:
    """Pieces of each request, which are submitted together."""
    told: list[queue.Queue] = [queue.Queue() for _ in prompts]
    several = samplings * len(prompts) if len(samplings) == 1 else samplings
    asked = [
        Request(ids, sampling, got.put, cancelled) for ids, sampling, got in zip(prompts, several, told, strict=True)
    ]
    answers.submit(asked)
    found: list[list[Piece]] = []
    for got, sampling in zip(told, several, strict=True):
        found.append([])
        while sum(piece.reason is not None for piece in found[-1]) < sampling.n:
            piece = got.get(timeout=30)
            assert isinstance(piece, Piece), piece
            found[-1].append(piece)
    return found


def text(pieces, answer=0) -> str:
    return "".join(piece.text for piece in pieces if piece.answer == answer)


def test_requests_that_wait_together_are_answered_as_rows_are(loaded, answers) -> None:
    model, tokenizer = loaded
    rows = tokenised_rows(tokenizer, 4)
    limits = [7, 1, 9, 4]
    scored = generate_and_score_loss(model, rows, pad_id=0, eos_ids=[], sampling=Sampling(9), limits=limits)
    wanted = [tokenizer.decode(each[0], skip_special_tokens=True) for each in scored.answers]
    found = ask(answers, [row["prompt_ids"] for row in rows], *(Sampling(limit) for limit in limits))
    assert [text(pieces) for pieces in found] == wanted
    assert [(pieces[-1].reason, pieces[-1].tokens) for pieces in found] == [("length", limit) for limit in limits]


def test_an_end_token_ends_an_answer_and_is_counted(loaded) -> None:
    model, tokenizer = loaded
    ids = tokenised_rows(tokenizer, 1)[0]["prompt_ids"]
    first = generate_and_score_loss(
        model, tokenised_rows(tokenizer, 1), pad_id=0, eos_ids=[], sampling=Sampling(1)
    ).answers[0][0][0]
    ending = Answers(model, tokenizer, ends=[first])
    (pieces,) = ask(ending, [ids], Sampling(8))
    ending.close()
    assert pieces == [Piece(0, "", 1, "stop")]


def test_draws_are_those_of_the_seed_whoever_is_asked_beside(loaded, answers) -> None:
    prompts = [row["prompt_ids"] for row in tokenised_rows(loaded[1], 3)]
    drawn = Sampling(8, temperature=1.0, n=2, seed=5)
    (alone,) = ask(answers, prompts[:1], drawn)
    beside = ask(answers, prompts, drawn, Sampling(8, n=2), Sampling(3, temperature=2.0, n=2, seed=1))
    assert [text(alone, n) for n in (0, 1)] == [text(beside[0], n) for n in (0, 1)]
    assert text(alone, 0) != text(alone, 1) and text(beside[1], 0) == text(beside[1], 1)


def test_a_request_that_nobody_reads_any_more_ends(loaded, answers) -> None:
    got: queue.Queue = queue.Queue()
    request = Request(tokenised_rows(loaded[1], 1)[0]["prompt_ids"], Sampling(400), got.put)
    answers.submit([request])
    got.get(timeout=30)
    request.cancelled = True
    last = got.get(timeout=30)
    while last.reason is None:
        last = got.get(timeout=30)
    assert last.tokens < 400


def test_what_fails_is_told_and_the_next_is_answered(loaded, answers) -> None:
    got: queue.Queue = queue.Queue()
    answers.submit([Request([10**6], Sampling(2), got.put)])
    assert isinstance(got.get(timeout=30), IndexError)
    assert ask(answers, [[1, 2]], Sampling(2))


# --- the text of an answer as its tokens come ---


def pieces_of(tokenizer, said: str, stop: tuple[str, ...] = ()) -> list[str]:
    written, pieces = Written(tokenizer, stop), []
    for token in tokenizer(said, add_special_tokens=False)["input_ids"]:
        written.add(token)
        if written.stopped:
            break
        pieces.append(written.take())
    return [*pieces, written.rest()]


def test_a_character_of_several_tokens_comes_whole(loaded) -> None:
    said = "ä€🙂 fin"
    pieces = pieces_of(loaded[1], said)
    assert "".join(pieces) == said and not any("\ufffd" in piece for piece in pieces)
    assert any("🙂" in piece for piece in pieces[:-1])


def test_a_stop_string_is_not_begun(loaded) -> None:
    pieces = pieces_of(loaded[1], "one two STOP three", ("STOP", "never"))
    assert "".join(pieces) == "one two " and pieces[0]


def test_what_only_looked_like_a_stop_string_is_told(loaded) -> None:
    assert "".join(pieces_of(loaded[1], "a ST b", ("STOP",))) == "a ST b"
