from __future__ import annotations

import pytest

from raylora.data.problems import Problems, dropped
from raylora.data.rows import table_of
from raylora.errors import UserError


def table(*problems):
    rows = [{"prompt": "q", "response": "a", "answer": "a", "problem": problem} for problem in problems]
    return table_of([{**row, "source_file": "t.jsonl", "source_row": n} for n, row in enumerate(rows, 1)])


def counted(*problems) -> Problems:
    found = Problems()
    found.add(table(*problems))
    return found


def test_each_reason_is_counted_and_its_first_row_named():
    found = counted(None, "null_response", "broken: no JSON", "null_response")
    assert found.told("train") == (
        "train: 3 of 4 rows dropped: 2 have no response (null), the first at t.jsonl:2; "
        "1 cannot be read, the first at t.jsonl:3 (no JSON)"
    )
    assert dropped({"train": found}) == {"train_dropped_null_response": 2, "train_dropped_broken": 1}


def test_nothing_is_told_of_rows_that_can_all_be_used():
    assert counted(None, None).told("train") is None


def test_counts_of_parts_add_up_and_the_first_stays_the_first():
    found, later = counted(None, "broken: a"), counted("broken: b", None)
    found.merge(later)
    assert (found.rows, found.counts, found.first) == (4, {"broken": 2}, {"broken": "t.jsonl:2 (a)"})


def test_more_than_a_twentieth_of_broken_rows_is_refused_unless_allowed():
    found = counted(*[None] * 18, "broken: a", "broken: b")
    with pytest.raises(UserError, match=r"task.allow_broken: train: 2 of 20 rows .* more than 5%") as caught:
        found.check("train")
    assert "\n" not in str(caught.value)
    found.check("train", allow=True)
    found.check("train", allow=0.1)
    with pytest.raises(UserError, match="more than 9%"):
        found.check("train", allow=0.09)
    counted(*[None] * 19, "broken: a").check("train")


def test_missing_answers_and_long_rows_are_not_broken():
    counted(None, "null_response", "empty_response", "beyond_positions").check("train")


def test_a_split_without_a_row_that_can_be_used_is_refused():
    with pytest.raises(UserError, match="no row of train can be used: 1 have an empty response"):
        counted("empty_response").check("train", allow=True)
