from __future__ import annotations

import pytest
import sacrebleu

from raylora.metrics.chrf import Chrf
from raylora.metrics.testing import MetricConformance, row, text_case

ANSWERS = ["The cat sat on the mat.", "There is a dog."]


class TestChrf(MetricConformance):
    @pytest.fixture
    def metric(self):
        return Chrf()

    @pytest.fixture
    def case(self):
        return text_case(right=ANSWERS, wrong=["xyz", ""], answers=ANSWERS)


@pytest.mark.parametrize("word_order", [0, 2])
def test_it_agrees_with_sacrebleu(word_order):
    texts = ["A cat is on a mat", "There was a dog"]
    expected = sacrebleu.CHRF(word_order=word_order).corpus_score(texts, [ANSWERS]).score
    metric = Chrf(word_order=word_order)
    assert metric.summarise(metric.score(texts, [row(one) for one in ANSWERS])).value == pytest.approx(expected)
