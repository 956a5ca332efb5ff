"""`raylora evaluate`: its arguments, its answer, its file of answers."""

from __future__ import annotations

import json

import pytest

from raylora.cli import main
from raylora.run import evaluate as engine
from raylora.run.evaluate import Evaluation, SetScores

SETS = {
    "a": SetScores(2, 0, "accuracy", {"accuracy": (0.25, 0.1)}),
    "b": SetScores(2, 1, "accuracy", {"accuracy": (0.75, None)}),
}
ANSWER = {"set": "a", "row": 0, "prompt": "ä?", "answer": "1", "completion": "2", "scores": {"accuracy": 0.0}}
FOUND = Evaluation("adapter", "adapter", "base", "accuracy", "max", 0.5, 0.1, SETS, 1.0, [ANSWER])


@pytest.fixture
def asked(monkeypatch):
    """What the command asks for."""
    calls: list[dict] = []

    def stand_in(target, **options):
        calls.append({"target": target, **options})
        return FOUND

    monkeypatch.setattr(engine, "evaluate", stand_in)
    return calls


def test_the_arguments_are_fields_of_a_spec(asked, capsys) -> None:
    arguments = ["adapter", "--data", "x.jsonl", "--data", "y=z.csv", "--metrics", "exact,f1", "--rows", "5"]
    assert main(["evaluate", *arguments, "--task", "gsm8k", "task.system=Hi"]) == 0
    call = asked[0]
    assert call["data"] == ["x.jsonl", "y=z.csv"] and call["rows"] == 5 and call["spec"] is None
    assert call["changes"] == {"task.name": "gsm8k", "task.metrics": ["exact", "f1"], "task.system": "Hi"}
    assert "mean of the sets" in capsys.readouterr().out


def test_metrics_with_options_are_yaml(asked) -> None:
    main(["evaluate", "adapter", "--data", "x", "--metrics", '[exact, {number: {mark: "####"}}]'])
    assert asked[0]["changes"]["task.metrics"] == ["exact", {"number": {"mark": "####"}}]


def test_the_answer_is_json_without_the_answers_which_have_a_file(asked, capsys, tmp_path) -> None:
    file = tmp_path / "new" / "answers.jsonl"
    assert main(["evaluate", "adapter", "--data", "x", "--answers", str(file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["sets"]["a"] == {"rows": 2, "dropped": 0, "headline": "accuracy", "figures": {"accuracy": [0.25, 0.1]}}
    assert "answers" not in told and (told["value"], told["error"]) == (0.5, 0.1)
    assert [json.loads(line)["prompt"] for line in file.read_text().splitlines()] == ["ä?"]


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_scored(asked, capsys) -> None:
    for place in ("/proc/no/file", "/proc"):
        assert main(["evaluate", "adapter", "--data", "x", "--answers", place]) == 2
        assert not asked and capsys.readouterr().err.startswith(f"raylora: --answers {place}: ")
