from __future__ import annotations

import json
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from raylora.cli import main
from raylora.errors import UserError
from raylora.progress import Progress
from raylora.run import experiment
from raylora.run.state import run_state
from raylora.run.trackers import Tracker
from raylora.run.trials import trial_table
from raylora.spec import load
from trainables.journal import Journal


def test_the_summary_is_what_its_file_holds(finished_run) -> None:
    assert finished_run.summary == json.loads((finished_run.folder / "summary.json").read_text())
    assert finished_run.summary["trials"] == 4


def test_the_summary_scores_base_default_and_best(finished_run) -> None:
    summary = finished_run.summary
    assert set(summary["base"]) == {"test", "test_se"}
    for label in ("default", "best"):
        assert {"config", "validation", "validation_se", "test", "test_se"} == set(summary[label])
    assert summary["default"]["config"]["alpha"] == 8
    assert summary["default"]["config"]["alpha_ratio"] == 2


def test_a_second_run_in_the_same_folder_is_refused(finished_run) -> None:
    with pytest.raises(UserError, match="raylora resume"):
        experiment.tune(load(finished_run.spec), quiet=True)


def test_a_finished_run_is_answered_without_training(finished_run, tmp_path) -> None:
    import shutil

    run = tmp_path / "run"
    shutil.copytree(finished_run.folder, run)
    trained = [row for row in Journal(run).rows() if row["event"] != "report"]
    files = sorted(path.relative_to(run) for path in run.rglob("*"))
    summary = experiment.resume(run, quiet=True)
    assert [row for row in Journal(run).rows() if row["event"] != "report"] == trained
    assert sorted(path.relative_to(run) for path in run.rglob("*")) == files
    assert {k: summary[k] for k in ("base", "default", "best")} == {
        k: finished_run.summary[k] for k in ("base", "default", "best")
    }


def test_what_is_done_at_the_end_is_done_before_trackers_are_told_of_it(interrupted, monkeypatch) -> None:
    order: list[str] = []

    class Told(Tracker):
        name = "told"

        def start(self, folder, spec) -> None: ...

        def trial(self, row) -> None: ...

        def finish(self, summary) -> None:
            order.append("told")

    def stands_in(spec, folder, quiet, keeper):
        return SimpleNamespace(spec=spec, folder=folder, progress=Progress(quiet=True))

    monkeypatch.setattr(experiment, "make_trackers", lambda spec: [Told()])
    monkeypatch.setattr(experiment, "connected", nullcontext)
    monkeypatch.setattr(experiment, "prepare", stands_in)
    monkeypatch.setattr(experiment, "stop_actors", lambda run: None)
    monkeypatch.setattr(experiment, "_finish", lambda run, started: {"trials": 1})
    experiment.finish(interrupted, quiet=True, when_done=lambda folder, say: order.append(f"done, {run_state(folder)}"))
    assert order == ["done, interrupted", "told"]  # nobody works on it any more


@pytest.mark.real
def test_language_search_survives_the_death_of_its_surrogate(write_spec, ray_local, tmp_path, monkeypatch) -> None:
    """kill -9 of the surrogate's process mid-search: same observations, all trials there."""
    import os
    import signal

    from raylora.run.journaled import JournaledSearcher

    killed, seen = [], []
    original = JournaledSearcher.on_trial_complete

    def complete(self, trial_id, result=None, error=False):
        original(self, trial_id, result, error)
        seen.append(len(self.inner.observations))
        pid = self.inner.actor_pid()
        if pid and len(killed) < 2:
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    monkeypatch.setattr(JournaledSearcher, "on_trial_complete", complete)
    options = {"n_initial": 1, "language": True, "pool": 16, "fit_steps": 3}
    file = write_spec(search={"searcher": "language", "trials": 5, "options": options}, final={"enabled": False})
    text = load(file, ["search.llm=" + load(file).model])
    summary = experiment.tune(text, quiet=True)
    assert summary["trials"] == 5 and len(killed) == 2
    assert seen == [1, 2, 3, 4, 5]


@pytest.fixture
def no_actor_left(ray_local):
    """Ray goes on where it was there before a run: what a run started there has to be ended."""
    from ray._private.state import actors

    def alive() -> set[str]:
        return {name for name, one in actors().items() if one["State"] != "DEAD"}

    before = alive()
    yield
    for _ in range(50):
        if not alive() - before:
            return
        time.sleep(0.1)
    pytest.fail(f"alive after the run: {[actors(name)['ActorClassName'] for name in alive() - before]}")


def test_trials_that_a_scheduler_stops_keep_their_error_and_costs(write_spec, no_actor_left, tmp_path) -> None:
    file = write_spec(search__searcher="tpe", search__scheduler="asha", final={"enabled": False})
    summary = experiment.tune(load(file), quiet=True)
    assert summary["trials"] == 3
    table = trial_table(tmp_path / "runs" / "run")
    assert set(table["status"]) <= {"finished", "stopped"}
    for column in ("accuracy_se", "adapter_parameters", "optimizer_mb", "eval_s", "train_s"):
        assert table[column].notna().all(), column


@pytest.fixture
def unfitted(monkeypatch) -> None:
    """Searches the spec's space as it is: configurations that the model cannot have are tried."""
    from raylora.run.fit import Fitted

    monkeypatch.setattr("raylora.run.prepare.fit_space", lambda spec, *more: Fitted(spec.to_space()))


def test_trials_that_fail_are_counted_and_replaced_until_enough_have_finished(
    write_spec, ray_local, tmp_path, unfitted, capsys
) -> None:
    file = write_spec(
        space={
            "variant": ["pissa", "lora"],
            "rank": 64,
            "alpha_ratio": 1,
            "learning_rate": [1e-3, 1e30],
            "batch_size": 4,
            "dropout": 0.0,
        },
        search={"trials": 3, "searcher": "grid"},
        final={"enabled": False},
    )
    summary = experiment.tune(load(file))
    run = tmp_path / "runs" / "run"
    assert list(trial_table(run)["status"]) == ["infeasible", "infeasible", "finished", "diverged"]
    assert (summary["trials"], summary["failed"]) == (4, {"infeasible": 2})
    assert summary["best"]["config"]["learning_rate"] == 1e-3
    diverged = next(row for row in Journal(run).rows() if row.get("diverged"))
    assert diverged["accuracy"] == 0.0
    shown = capsys.readouterr().err
    assert "Traceback" not in shown and "Traceback" in (run / "errors.log").read_text()
    assert shown.count("infeasible: variant pissa: rank 64 exceeds") == 2
    assert "trial 1: pissa rank=64" in shown and "2 trials failed" in shown


def test_where_the_first_trials_all_fail_the_search_stops_and_says_why(
    write_spec, ray_local, tmp_path, unfitted, capsys
) -> None:
    file = write_spec(space__variant="pissa", space__rank=[4096], search__trials=8)
    assert main(["tune", str(file)]) == 2
    shown = capsys.readouterr().err.strip().splitlines()
    assert shown[-1].startswith("raylora: search: the first 3 trials failed; the last message: variant pissa")
    assert not any("Traceback" in line for line in shown)
    assert list(trial_table(tmp_path / "runs" / "run")["status"]) == ["infeasible"] * 3


def test_no_result_at_all_is_one_clear_line(write_spec, ray_local, capsys) -> None:
    file = write_spec(
        space={
            "variant": "lora",
            "rank": 4,
            "alpha_ratio": 1,
            "learning_rate": 1e30,
            "batch_size": [4, 8],
            "dropout": 0.0,
        },
        search__trials=2,
    )
    assert main(["tune", str(file), "--quiet"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("raylora: search.trials") and "lower learning rates" in error


def test_variants_of_matched_size_report_their_own_rank(write_spec, ray_local, tmp_path) -> None:
    file = write_spec(
        space={"variant": ["lora", "lora_xs", "mora"], "rank": 2, "alpha_ratio": 1, "learning_rate": 1e-3,
               "batch_size": 8, "dropout": 0.0},
        train={"match_parameters": "lora"},
        search__trials=3,
    )  # fmt: skip
    summary = experiment.tune(load(file), quiet=True)
    table = trial_table(tmp_path / "runs" / "run").set_index("variant")
    assert table.loc["lora", "effective_rank"] == 2
    assert table.loc["lora_xs", "effective_rank"] > 8
    counts = table["trainable_parameters"]
    assert (counts / counts["lora"]).between(0.7, 1.3).all()  # ranks are coarse on matrices this small
    assert summary["best"]["config"]["rank"] == 2


def test_mistakes_are_one_line_and_status_2_before_anything_starts(write_spec, tmp_path, capsys) -> None:
    file = write_spec()
    for override in ("search.searcher=lnguage", "task.nme=x", "space.rank=[0]", "space.variant=[lora, dorra]"):
        assert main(["tune", str(file), override]) == 2
        error = capsys.readouterr().err.strip()
        assert error.startswith("raylora: ") and "\n" not in error
    assert not (tmp_path / "runs" / "run").exists()
    assert main(["resume", str(tmp_path / "runs")]) == 2
    assert main(["export", str(tmp_path / "runs"), "--to", str(tmp_path / "x")]) == 2
