from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest

from trainables.evaluation import decode
from trainables.packed.evaluation import evaluate_together
from trainables.protocols import Sampling
from trainables.testing import ExactMatch, make_tiny_tokenizer

# Rates at which answers of a tiny random model differ from trial to trial after a few steps.
TRIALS = [
    {"variant": "lora", "rank": 4, "learning_rate": 0.1},
    {"variant": "dora", "rank": 2, "learning_rate": 0.05},
    {"variant": "pissa", "rank": 6, "learning_rate": 0.03, "placement": ["q_proj", "down_proj"]},
    {"variant": "lora", "rank": 7, "learning_rate": 0.2, "placement": ["v_proj"]},
]


@dataclass(frozen=True)
class Recording(ExactMatch):
    """Keeps the texts and losses that it is asked to mark."""

    sampling: Sampling = field(default_factory=lambda: Sampling(max_new_tokens=9))
    seen: list = field(default_factory=list)

    def needs(self, split: str) -> frozenset[str]:
        return frozenset({"texts", "losses"})

    def marks(self, split, outputs, rows):
        self.seen.append(outputs)
        return super().marks(split, outputs, rows)


@pytest.fixture
def trained(make_run, train_packed):
    runs = [make_run(knobs, samples=400) for knobs in TRIALS]
    train_packed(runs, 4)
    return runs


def texts_of(calls, scorer) -> list:
    """Texts of each call, and each one's figures."""
    figures = [call() for call in calls]
    return [(list(seen.texts), seen.losses, own) for seen, own in zip(scorer.seen, figures, strict=True)]


def test_answers_and_losses_are_those_of_each_adapter_alone(trained, trunk, make_run, train_rows, tmp_path) -> None:
    scorer, tokenizer = Recording(), make_tiny_tokenizer()
    together = texts_of(evaluate_together(trunk, trained, train_rows, scorer, tokenizer), scorer)
    for at, (run, (texts, losses, figures)) in enumerate(zip(trained, together, strict=True)):
        run.save(tmp_path / str(at))
        alone = make_run(TRIALS[at], alone=True)
        alone.load(tmp_path / str(at))
        expected = Recording()
        own = alone.evaluate(train_rows, expected, tokenizer)
        assert texts == expected.seen[0].texts
        assert [loss for loss, _ in losses] == pytest.approx([loss for loss, _ in expected.seen[0].losses], abs=1e-4)
        for name in ("accuracy", "validation_loss", "answers_cut"):
            assert figures[name] == pytest.approx(own[name], abs=1e-5), name
    assert len({str(texts) for texts, _, _ in together}) == len(TRIALS)


def test_losses_alone_are_shared_too(trained, trunk, train_rows) -> None:
    class LossOnly(ExactMatch):
        def needs(self, split: str) -> frozenset[str]:
            return frozenset()

        def marks(self, split, outputs, rows):
            return [{"values": {"accuracy": 0.0}} for _ in rows]

    def losses(runs) -> list[float]:
        found = evaluate_together(trunk, runs, train_rows, LossOnly(), make_tiny_tokenizer())
        return [own()["validation_loss"] for own in found]

    alone = [losses([run])[0] for run in trained]
    assert losses(trained) == pytest.approx(alone, abs=1e-5)
    assert len(set(alone)) == len(alone)


def test_an_adapter_of_nan_is_felt_by_nobody_else(trained, trunk, train_rows) -> None:
    def texts(runs) -> list:
        scorer = Recording()
        found = texts_of(evaluate_together(trunk, runs, train_rows, scorer, make_tiny_tokenizer()), scorer)
        return [(text, losses) for text, losses, _ in found]

    before = texts(trained)
    for run in (trained[1], trained[3]):
        for parameter in run.parameters:
            parameter.data.fill_(math.nan)
    after = texts(trained)
    assert (after[0], after[2]) == (before[0], before[2])
    assert all(math.isnan(loss) for loss, _ in after[1][1])


def test_a_batch_says_whose_rows_it_holds_before_each_call(base, train_rows) -> None:
    held, asked = [], []
    handle = base.register_forward_pre_hook(
        lambda _, args, kwargs: asked.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    try:
        decode(base, train_rows, ExactMatch(), make_tiny_tokenizer(), told=lambda places: held.append(list(places)))
    finally:
        handle.remove()
    assert held[0] == list(range(len(train_rows)))
    # Prompts and references are of the same rows, told once.
    assert [len(places) for places in held][1:] == asked[2:]
