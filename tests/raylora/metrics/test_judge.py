from __future__ import annotations

import time

import pytest

from raylora.errors import UserError
from raylora.metrics import make_metric
from raylora.metrics.judge import Judge
from raylora.metrics.testing import MetricConformance, row, text_case


def judge(monkeypatch, tmp_path, **options):
    """A judge that rates the word `splendid` 10 and all else 1, and is asked nothing over the network."""
    metric = Judge(address="http://localhost:9/v1", model="m", cache=str(tmp_path), **options)
    monkeypatch.setattr(type(metric._served), "_request", reply_of)
    return metric


def reply_of(self, body):
    question = body["messages"][0]["content"]
    return "It is fine.\nRating: " + ("10" if "splendid" in question.partition("[Answer to judge]")[2] else "1")


class TestJudge(MetricConformance):
    @pytest.fixture
    def metric(self, monkeypatch, tmp_path):
        return judge(monkeypatch, tmp_path)

    @pytest.fixture
    def case(self):
        return text_case(right=["a splendid one", "splendid"], wrong=["bad", ""], answers=["x", "y"])


@pytest.mark.parametrize(
    ("reply", "rating"),
    [
        ("Rating: 10", 1.0),
        ("rating: **5.5**", 0.5),
        ("Rating: 99", 1.0),
        ("Rating: -4", 0.0),
        ("I refuse.", 0.0),
        ("Rating (1-10): 10", 1.0),
        ("Rating: 10/10", 1.0),
        ("Rating: 3. No, rating: 10", 1.0),
    ],
)
def test_a_rating_is_put_onto_a_scale_from_zero_to_one(reply, rating):
    assert Judge(address="http://localhost:9/v1", model="m")._rating(reply) == rating


def test_the_prompt_can_be_the_users_own(monkeypatch, tmp_path):
    metric = judge(monkeypatch, tmp_path, prompt="{answer} [Answer to judge] {completion}")
    assert metric.score(["splendid"], [row("x")]) == [1.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "m"}, r"task\.metrics\.address: missing; judge needs it"),
        ({"model": "m", "address": "localhost"}, r"judge\.address: "),
        ({"model": "m", "address": "https://me:secret@host/v1"}, r"judge\.address: not an address without a password"),
        ({"model": "m", "address": "http://h/v1", "prompt": "no field"}, r"judge\.prompt: has no \{completion\}"),
        ({"model": "m", "address": "http://h/v1", "prompt": "{completion} {x}"}, r"judge\.prompt: 'x' is no field"),
        ({"model": "m", "address": "http://h/v1", "low": 5, "high": 5}, r"judge\.low: "),
        ({"model": "m", "address": "http://h/v1", "low": "one"}, r"judge\.low: 'one' is not allowed; give a number"),
        ({"model": "m", "address": "http://h/v1", "timeout": 0}, r"judge\.timeout: "),
        ({"model": 3, "address": "http://h/v1"}, r"judge\.model: 3 is not allowed; give text"),
        ({"model": "m", "address": "http://h/v1", "cache": 3}, r"judge\.cache: 3 is not allowed; give text"),
    ],
)
def test_a_wrong_option_is_refused_by_name(options, message):
    with pytest.raises(UserError, match=message) as refused:
        make_metric("judge", options)
    assert "secret" not in str(refused.value)


def test_the_first_refusal_ends_the_asking(monkeypatch, tmp_path):
    asked = []

    def refuse(self, body):
        asked.append(body)
        time.sleep(0.01)
        raise UserError.at("judge.address", "no answer")

    metric = judge(monkeypatch, tmp_path, parallel=2)
    monkeypatch.setattr(type(metric._served), "_request", refuse)
    with pytest.raises(UserError, match=r"judge\.address: no answer"):
        metric.score([str(n) for n in range(50)], [row("x")] * 50)
    assert len(asked) < 10
