from __future__ import annotations

from raylora.reports.rows import facts, page

SPLIT = {
    "recognised": "prompts", "rows": 3, "cut_off": False, "usable": 2, "dropped": {}, "over_max_length": 0,
    "responses_over_max_new_tokens": 0, "duplicates": 0, "prompts": 2, "trained_tokens": 4,
    "tokens": {"prompt": [1], "response": [2], "row": [3]}, "histogram": [[3, 3, 2]], "labels": [("yes", 2)],
    "longest": [{"at": "t.jsonl:1", "tokens": 3}],
}  # fmt: skip


def test_facts_that_no_split_has_are_left_out():
    told = dict(facts({"train": SPLIT}))
    assert "dropped" not in told and "duplicates" not in told
    assert told["answers"] == ["'yes': 2 (100%)"]
    assert told["rows by tokens"][0].endswith("#################### 2")


def test_the_page_escapes_what_the_rows_hold():
    shown = [{"at": "t:1", "pieces": [{"text": "<script>", "trained": True}]}]
    text = page({"splits": {"train": SPLIT}, "warnings": ["<w>"], "shown": shown})
    assert "<mark>&lt;script&gt;</mark>" in text and "&lt;w&gt;" in text and "<script>" not in text
