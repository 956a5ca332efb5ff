from __future__ import annotations

import pytest

from raylora.errors import UserError
from raylora.run.state import find_runs, held, run_state, run_status


def test_status_counts_trials_and_names_the_best_so_far(interrupted) -> None:
    status = run_status(interrupted)
    assert status["state"] == "interrupted" and status["trials"] == 2
    assert status["counts"] == {
        "finished": 1,
        "stopped": 0,
        "diverged": 0,
        "infeasible": 0,
        "failed": 0,
        "unfinished": 1,
    }
    assert status["best"]["config"]["alpha"] == 4 and status["metric"] == "accuracy"
    assert status["started"] <= status["last_event"]


def test_status_of_a_run_whose_data_are_gone_lacks_the_best_alone(interrupted) -> None:
    spec = interrupted / "spec.yaml"
    spec.write_text(spec.read_text().replace("path: /", "path: /gone/"))
    status = run_status(interrupted)
    assert status["metric"] is None and status["best"] is None and status["counts"]["finished"] == 1


def test_run_is_held_for_as_long_as_somebody_works_on_it(interrupted) -> None:
    with held(interrupted):
        assert run_state(interrupted) == "running"
        with pytest.raises(UserError, match="another process"), held(interrupted):
            pass
    assert run_state(interrupted) == "interrupted"


def test_runs_of_a_folder_are_those_with_a_mark(workplace, tmp_path) -> None:
    assert {run.name for run in find_runs(workplace / "runs")} >= {"sums", "again"}
    (tmp_path / "notes").mkdir()
    assert find_runs(tmp_path) == []
    with pytest.raises(UserError, match="FOLDER"):
        find_runs(tmp_path / "none")
