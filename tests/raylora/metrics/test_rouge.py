from __future__ import annotations

import json

import pytest
from rouge_score.rouge_scorer import RougeScorer

from raylora.metrics.rouge import KINDS, Rouge
from raylora.metrics.testing import MetricConformance, row, text_case

ANSWERS = ["The cat sat on the mat.", "There is a dog."]


class TestRouge(MetricConformance):
    @pytest.fixture
    def metric(self):
        return Rouge()

    @pytest.fixture
    def case(self):
        return text_case(right=ANSWERS, wrong=["xyz", ""], answers=ANSWERS)


def test_every_kind_agrees_with_rouge_score():
    text = "The cats were sitting on that mat"
    found = RougeScorer(list(KINDS), use_stemmer=True).score(ANSWERS[0], text)
    metric = Rouge(stemmer=True)
    parts = metric.summarise(metric.score([text], [row(ANSWERS[0])])).parts
    assert {kind: part.value for kind, part in parts.items()} == {kind: found[kind].fmeasure for kind in KINDS}


def test_the_value_is_the_kind_that_was_asked_for():
    metric = Rouge(kind="rouge1")
    estimate = metric.summarise(metric.score(["mat the on sat cat the"], [row(ANSWERS[0])]))
    assert estimate.value == estimate.parts["rouge1"].value == 1.0 > estimate.parts["rouge2"].value


def test_the_best_reference_counts():
    only = row("nothing", metadata=json.dumps({"references": ["nothing", "a cat"]}))
    metric = Rouge()
    assert metric.summarise(metric.score(["a cat"], [only])).value == 1.0
