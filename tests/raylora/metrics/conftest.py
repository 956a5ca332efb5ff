from __future__ import annotations

import random

import pytest


@pytest.fixture(params=[2, 4])
def labelled(request):
    """Answers and predictions of 200 rows, with so many labels; two thirds are right."""
    draw = random.Random(request.param)
    names = ["alpha", "beta", "gamma", "delta"][: request.param]
    answers = draw.choices(names, weights=range(1, request.param + 1), k=200)
    return answers, [answer if draw.random() < 0.6 else draw.choice(names) for answer in answers]
