from __future__ import annotations

from raylora.tasks import make_task

ROWS = [
    {"instruction": "Translate.", "input": "chat", "output": "the cat sat on the mat"},
    {"instruction": "Greet.", "input": "", "output": "hello there you all"},
]


def test_the_input_is_part_of_the_prompt_plain_or_in_the_published_frame(files, rows_of) -> None:
    path = str(files(train=ROWS))
    assert [row["prompt"] for row in rows_of(make_task("alpaca", path=path), "train")] == [
        "Translate.\n\nchat",
        "Greet.",
    ]
    framed = rows_of(make_task("alpaca", {"form": "alpaca"}, path=path), "train")
    assert framed[0]["prompt"].endswith("### Instruction:\nTranslate.\n\n### Input:\nchat\n\n### Response:")
    assert "### Input" not in framed[1]["prompt"]


def test_rouge_and_bleu_are_shown(files, rows_of, figures) -> None:
    task = make_task("alpaca", path=str(files(train=ROWS, test=ROWS)))
    found = figures(task, "test", [row["output"] for row in ROWS], rows_of(task, "test"))
    assert found["rouge"] == found["rouge1"] == 1.0 and round(found["bleu"]) == 100
    assert {"rouge_se", "rouge1_se", "bleu_se"} <= set(found)
