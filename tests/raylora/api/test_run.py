from __future__ import annotations

import json

import pytest

import raylora
from raylora.run.state import held


@pytest.fixture
def finished(workplace) -> raylora.Run:
    return raylora.open_run(workplace / "runs" / "sums")


def test_best_recipe_is_the_summarys(finished) -> None:
    config = finished.summary["best"]["config"]
    assert finished.best.model_dump(exclude={"extra"}) == {
        name: config[name] for name in ("variant", "rank", "alpha", "learning_rate", "batch_size", "dropout")
    }
    assert finished.best.extra == {}


def test_predictions_hold_the_answers_of_the_three_models_side_by_side(finished) -> None:
    answers = finished.predictions("test")
    assert list(answers) == [
        "row", "prompt", "answer", "found", "found_score", "default", "default_score", "base", "base_score",
    ]  # fmt: skip
    assert len(answers) == 12 and not answers.isna().any().any()
    for name, label in (("found", "best"), ("default", "default"), ("base", "base")):
        assert answers[f"{name}_score"].mean() == pytest.approx(finished.summary[label]["test"])


def test_a_split_that_nobody_answered_is_refused_by_name(finished) -> None:
    with pytest.raises(raylora.UserError, match=r"split = .train..*allowed: test or validation") as caught:
        finished.predictions("train")
    assert caught.value.field == "split" and caught.value.allowed == ("test", "validation")
    assert "base" not in finished.predictions("validation")


def test_loaded_model_answers_as_in_the_final_stage(finished, sums) -> None:
    rows = [json.loads(line) for line in (sums / "test.jsonl").read_text().splitlines()]
    answers = finished.predictions("test")
    tuned = finished.load(device="cpu")
    assert tuned.answer([rows[row]["prompt"] for row in answers["row"]]) == answers["found"].tolist()
    assert tuned.answer(rows[0]["prompt"]) == answers["found"][0]
    assert type(tuned.model).__name__.startswith("Peft")


def test_notebook_view_shows_the_three_models(finished) -> None:
    shown = finished._repr_html_()
    assert "<table" in shown and all(name in shown for name in ("found", "default", "base"))


def test_unfinished_run_tells_what_there_is(interrupted) -> None:
    run = raylora.open_run(interrupted)
    assert run.state == "interrupted" and repr(run).endswith("interrupted, 1 of 2 trials")
    assert run.best.rank == 2
    assert run.trials()["status"].tolist() == ["finished", "unfinished"]
    assert "table" not in run._repr_html_()
    for ask in (lambda: run.summary, lambda: run.adapter_dir, run.load):
        with pytest.raises(raylora.UserError, match="raylora resume"):
            ask()


def test_run_without_results_has_no_best(interrupted) -> None:
    (interrupted / "trials.jsonl").unlink()
    with pytest.raises(raylora.UserError, match="has a result yet"):
        _ = raylora.open_run(interrupted).best


def test_run_that_a_process_works_on_is_running_and_not_resumed(interrupted) -> None:
    run = raylora.open_run(interrupted)
    with held(run.folder):
        assert run.state == "running"
        with pytest.raises(raylora.UserError, match="another process runs"):
            raylora.resume(run, quiet=True)
    assert run.state == "interrupted"


def test_folder_without_a_run_is_refused(tmp_path) -> None:
    with pytest.raises(raylora.UserError, match=r"holds no spec\.yaml"):
        raylora.open_run(tmp_path)
