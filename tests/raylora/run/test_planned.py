from __future__ import annotations

import json

from raylora.run import experiment
from raylora.run.planned import answer_tokens
from raylora.spec import load
from raylora.tasks import make_task
from trainables.journal import Journal


def test_trials_that_are_scored_by_their_loss_generate_nothing(tmp_path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "response": "b"}')
    task = make_task("instruct", path=str(tmp_path / "rows.jsonl"), max_new_tokens=9)
    assert answer_tokens(task) == 9
    task.aim(["loss"])
    assert answer_tokens(task) == 0


def test_a_run_with_a_budget_plans_keeps_to_it_and_answers(write_spec, ray_local, tmp_path, capsys) -> None:
    file = write_spec(budget="4m", search__trials=2)
    summary = experiment.tune(load(file))
    run = tmp_path / "runs" / "run"
    told = capsys.readouterr().err
    assert "calibration:" in told and "plan: 2 trials of" in told
    assert {"base", "default", "best"} <= set(summary)
    assert summary["budget"]["used_s"] < 1.1 * 240
    plan = json.loads((run / "plan.json").read_text())
    assert plan["plan"]["trials"] == 2 and len(plan["trials"]) == 2 and plan["final"]["samples"] >= 8
    first = next(iter(Journal(run).started().values()))
    assert first.config["learning_rate"] in (1e-3, 5e-3)  # the default recipe's rate is not in the space
    assert not (run / "live").exists()


def test_a_budget_that_is_over_still_ends_with_the_best_trial(write_spec, ray_local, tmp_path, capsys) -> None:
    summary = experiment.tune(load(write_spec(budget="1s", default_recipe__learning_rate=1e-3)))
    assert "nothing is left of the budget" in capsys.readouterr().err
    assert summary["trials"] == 1 and set(summary) >= {"best", "default"}
    assert summary["best"]["config"]["learning_rate"] == 1e-3
