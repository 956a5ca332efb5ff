from __future__ import annotations

from raylora.tasks import make_task


def read(task, split):
    return [row for table in task.splits()[split].tables() for row in table.to_pylist()]


def test_final_numbers_are_compared(files):
    solution = "Half of 48 is <<48/2=24>>24.\n#### 1,024"
    path = files(train=[{"question": "How many?", "answer": solution}])
    task = make_task("gsm8k", {"path": str(path)})
    (only,) = read(task, "train")
    assert only["response"] == solution and only["answer"] == "1024"
    texts = ["#### 1024", "It is $1,024.00", "1024 or 5", ""]
    assert task.score(texts, [only] * 4) == [1.0, 1.0, 0.0, 0.0]
