from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from trainables.decode import generate_and_score_loss, score_loss
from trainables.evaluation import evaluate_model
from trainables.parallel import Parallel
from trainables.protocols import Sampling
from trainables.testing import ExactMatch, make_tiny_model, tokenised_rows
from trainables.written import Asked, Writer, Wrote


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = make_tiny_model(tmp_path_factory.mktemp("evaluation"))
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


@dataclass(frozen=True)
class Wants(ExactMatch):
    """Needs these parts; its figures say what it was given."""

    parts: frozenset[str] = frozenset()
    given: list[Any] = field(default_factory=list)

    def needs(self, split):
        return self.parts

    def measure(self, split, model, tokenizer, rows):
        return [len(row["prompt_ids"]) for row in rows]

    def marks(self, split, outputs, rows):
        self.given.append(outputs)
        return [{"values": {"row": float(row["row"])}} for row in rows]

    def figures(self, split, marks):
        return {"rows": [mark["values"]["row"] for mark in marks]}


def test_only_what_is_needed_is_done(loaded) -> None:
    model, tokenizer = loaded
    rows, scorer = tokenised_rows(tokenizer, 5), Wants(parts=frozenset({"losses", "options"}))
    figures = evaluate_model(model, rows, scorer, tokenizer)
    outputs = scorer.given[0]
    assert outputs.texts == [] and outputs.options == [len(row["prompt_ids"]) for row in rows]
    assert figures["validation_loss"] == pytest.approx(
        sum(nll for nll, _ in outputs.losses) / sum(tokens for _, tokens in outputs.losses)
    )


def test_the_loss_alone_is_the_loss_beside_the_answers(loaded) -> None:
    model, tokenizer = loaded
    rows = tokenised_rows(tokenizer, 7)
    both = generate_and_score_loss(model, rows, pad_id=0, eos_ids=[0], sampling=Sampling(2))
    alone = score_loss(model, rows, pad_id=0)
    assert alone.losses == pytest.approx(both.losses, rel=1e-4) and alone.tokens == both.tokens
    assert both.loss_sum == pytest.approx(sum(both.losses), rel=1e-4)


def test_several_samples_of_a_row_share_its_prompt_and_differ(loaded) -> None:
    model, tokenizer = loaded
    rows = tokenised_rows(tokenizer, 4)
    scorer = Wants(parts=frozenset({"texts"}), sampling=Sampling(6, temperature=2.0, n=3))
    evaluate_model(model, rows, scorer, tokenizer)
    evaluate_model(model, rows[2:], replace(scorer), tokenizer)
    together, alone = (outputs.texts for outputs in scorer.given)
    assert [len(texts) for texts in together] == [3] * 4 and len(set(together[0])) > 1
    assert together[2:] == alone


def test_marks_of_all_workers_are_put_together_in_order(loaded) -> None:
    model, tokenizer = loaded
    rows = tokenised_rows(tokenizer, 5)

    class First(Parallel):
        world = 2

        def gather(self, value):
            return [value, [{"values": {"row": float(row["row"])}} for row in rows[1::2]]]

    figures = evaluate_model(model, rows, Wants(parts=frozenset()), tokenizer, parallel=First())
    assert figures["rows"] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_predictions_hold_the_completion_and_what_it_is_worth(loaded) -> None:
    model, tokenizer = loaded
    predictions: list[dict[str, Any]] = []
    evaluate_model(model, tokenised_rows(tokenizer, 2), ExactMatch(), tokenizer, predictions=predictions)
    assert set(predictions[0]) == {"row", "prompt", "answer", "completion", "score"}


class Elsewhere:
    """In the place of an engine's handle: its `write.remote` answers at once."""

    def __init__(self, wrote: Wrote | None) -> None:
        self.wrote, self.asked = wrote, []
        self.write = self

    def remote(self, asked: Asked) -> Wrote | None:
        self.asked.append(asked)
        return self.wrote


@pytest.fixture
def no_waiting(monkeypatch) -> None:
    import ray

    monkeypatch.setattr(ray, "get", lambda found: found)


def test_answers_of_an_engine_are_scored_beside_the_models_own_losses(loaded, no_waiting) -> None:
    model, tokenizer = loaded
    rows, scorer = tokenised_rows(tokenizer, 3), Wants(parts=frozenset({"texts", "losses"}), sampling=Sampling(4))
    alone = evaluate_model(model, rows, scorer, tokenizer)
    written = tokenizer("12")["input_ids"]
    engine = Elsewhere(Wrote([[written]] * 3, [0, 0, 1]))
    found = evaluate_model(model, rows, scorer, tokenizer, writer=Writer(engine, "folder", merge=True))
    assert scorer.given[1].texts == [[tokenizer.decode(written)]] * 3 and found["answers_cut"] == pytest.approx(1 / 3)
    assert found["validation_loss"] == pytest.approx(alone["validation_loss"], rel=1e-4)
    (asked,) = engine.asked
    assert (asked.adapter, asked.merge, asked.dtype) == ("folder", True, "float32")
    assert asked.prompts == [row["prompt_ids"] for row in rows] and tokenizer.eos_token_id in asked.ends


def test_where_an_engine_has_no_answer_and_where_none_is_read_the_model_does_it_all(loaded, no_waiting) -> None:
    model, tokenizer = loaded
    rows, scorer = tokenised_rows(tokenizer, 3), Wants(parts=frozenset({"texts"}))
    engine = Elsewhere(None)
    evaluate_model(model, rows, scorer, tokenizer)
    evaluate_model(model, rows, scorer, tokenizer, writer=Writer(engine))
    assert scorer.given[0].texts == scorer.given[1].texts and len(engine.asked) == 1
    evaluate_model(model, rows, Wants(parts=frozenset({"losses"})), tokenizer, writer=Writer(engine))
    assert len(engine.asked) == 1
