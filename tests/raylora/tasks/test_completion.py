from __future__ import annotations

import math

import pytest

from raylora.errors import UserError
from raylora.tasks import make_task


def test_text_is_measured_by_perplexity_and_nothing_is_generated(files, rows_of, figures) -> None:
    task = make_task("completion", path=str(files(train=[{"text": "Once upon a time."}])))
    assert task.scoring.needs("validation") == {"losses"} and (task.metric, task.mode) == ("perplexity", "min")
    found = figures(task, "validation", [""], rows_of(task, "train"))
    assert found["perplexity"] == pytest.approx(math.exp(0.5)) and found["validation_loss"] == 0.5


def test_a_path_is_needed() -> None:
    with pytest.raises(UserError, match=r"task.path: completion needs it"):
        make_task("completion")
