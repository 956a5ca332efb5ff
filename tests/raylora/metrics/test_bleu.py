from __future__ import annotations

import json

import pytest
import sacrebleu

from raylora.errors import UserError
from raylora.metrics import make_metric
from raylora.metrics.bleu import Bleu
from raylora.metrics.testing import MetricConformance, row, text_case

ANSWERS = ["The cat sat on the mat today.", "There is a dog in the garden.", "It rained all night, and all day."]
TEXTS = ["The cat sat on the mat.", "A dog is in the garden.", "It rained all night and day."]


class TestBleu(MetricConformance):
    @pytest.fixture
    def metric(self):
        return Bleu()

    @pytest.fixture
    def case(self):
        return text_case(right=ANSWERS, wrong=["no", "", "nothing at all"], answers=ANSWERS)


@pytest.mark.parametrize("order", [2, 4])
def test_it_agrees_with_sacrebleu(order):
    metric = Bleu(order=order)
    expected = sacrebleu.BLEU(max_ngram_order=order).corpus_score(TEXTS, [ANSWERS]).score
    assert metric.summarise(metric.score(TEXTS, [row(one) for one in ANSWERS])).value == pytest.approx(expected)


def test_several_references_come_from_the_metadata():
    more = ["The cat sat on the mat.", "A dog is in the yard.", "It rained."]
    rows = [row(a, metadata=json.dumps({"references": [a, b]})) for a, b in zip(ANSWERS, more, strict=True)]
    metric = Bleu()
    expected = sacrebleu.BLEU().corpus_score(TEXTS, [ANSWERS, more]).score
    assert metric.summarise(metric.score(TEXTS, rows)).value == pytest.approx(expected)


def test_references_must_be_texts():
    with pytest.raises(UserError, match=r"metadata\.references: \[\] is not allowed"):
        Bleu().score(["a"], [row("a", metadata='{"references": []}')])


def test_an_unknown_tokeniser_is_refused():
    with pytest.raises(UserError, match=r"bleu\.tokenise: unknown 'moses'; choose one of 13a"):
        make_metric("bleu", {"tokenise": "moses"})


def test_without_the_package_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu.metrics", None)
    with pytest.raises(UserError, match=r"bleu needs the package sacrebleu; .*pip install raylora\[metrics\]"):
        make_metric("bleu")
