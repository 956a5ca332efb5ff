from __future__ import annotations

import pandas as pd
import pytest

from raylora.reports.page.answers import MOST_ROWS, differences, differing, read_answers
from raylora.reports.page.facts import read_facts


def table(**models: list[tuple[str, float]]) -> pd.DataFrame:
    count = len(next(iter(models.values())))
    columns: dict = {"row": range(count), "prompt": ["p"] * count, "answer": ["a"] * count}
    for name, given in models.items():
        columns[name] = [text for text, _ in given]
        columns[f"{name}_score"] = [score for _, score in given]
    return pd.DataFrame(columns)


def test_rows_that_all_answer_alike_are_left_out() -> None:
    found = differing(table(found=[("a", 1), ("a", 1)], default=[("a", 1), ("b", 0)]))
    assert (found.total, found.differing) == (2, 1) and found.rows[0]["kind"] == "won"


def test_lost_rows_come_first() -> None:
    found = differing(table(found=[("a", 1), ("b", 0), ("c", 0)], default=[("b", 0), ("a", 1), ("d", 0)]))
    assert [row["kind"] for row in found.rows] == ["lost", "won", "same score"]


def test_many_rows_are_cut_off_and_counted() -> None:
    found = differing(table(found=[("a", 1)] * 1000, default=[("b", 0)] * 1000))
    assert len(found.rows) == MOST_ROWS and found.differing == 1000


def test_long_answers_are_cut() -> None:
    found = differing(table(found=[("x" * 10_000, 1)], default=[("b", 0)]))
    assert (
        len(found.rows[0]["models"]["found"][0]) < 2_000 and "10,000 characters" in found.rows[0]["models"]["found"][0]
    )


def test_the_error_of_the_difference_is_paired(long_run) -> None:
    run = read_facts(long_run)
    against_default, _ = differences(run, read_answers(run)["test"])
    assert against_default.paired and against_default.error is not None
    # Rows that both answer alike add nothing to it: it is below that of two independent means.
    told = run.summary
    assert against_default.error < (told["best"]["test_se"] ** 2 + told["default"]["test_se"] ** 2) ** 0.5
    assert against_default.chance == pytest.approx(1.0, abs=0.01)


def test_without_rows_the_two_standard_errors_are_used(long_run) -> None:
    against_default, _ = differences(read_facts(long_run), None)
    assert not against_default.paired and against_default.error is not None
