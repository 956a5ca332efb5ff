"""Metrics tried on references before a run begins."""

from __future__ import annotations

import json

import pytest

from raylora.cluster import connected
from raylora.errors import UserError
from raylora.run.rehearsal import first_test_rows, rehearse
from raylora.tasks import make_task

ROWS = [{"prompt": text, "response": text, "answer": text, "metadata": "{}"} for text in "12x"]


def test_a_function_that_does_wrong_is_told_by_the_process_that_would_score(
    sums, ray_local, tmp_path, monkeypatch
) -> None:
    fine, wrong = "def fine(texts, rows):\n    return [1.0] * len(rows)\n", "def wrong(texts, rows):\n    1 / 0\n"
    (tmp_path / "rehearsed.py").write_text(fine + wrong)
    monkeypatch.chdir(tmp_path)
    task = make_task("instruct", path=str(sums))
    with connected():
        rehearse(task.aim(["exact", {"python": "rehearsed:fine"}]), {"validation": ROWS}, [])
    told = r"^python\.function: rehearsed:wrong failed \(ZeroDivisionError: division by zero\); mend it$"
    with pytest.raises(UserError, match=told), connected():
        rehearse(task.aim([{"python": "rehearsed:wrong"}]), {"validation": ROWS}, [])


def test_test_sets_are_rehearsed_by_the_first_rows_of_their_files(sums, tmp_path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": "a", "response": letter}) for letter in "xyz"))
    task = make_task("instruct", path=str(sums), test_sets={"mine": str(file)})
    scoring = task.aim([{"mine": {"choice": {"choices": ["x", "y"]}}}])
    rows = first_test_rows(task)
    assert [row["answer"] for row in rows["test.mine"]] == ["x", "y", "z"]
    with pytest.raises(UserError, match="answer: 'z' is none of the options"):
        scoring.rehearse(rows["test.mine"], "test.mine")
