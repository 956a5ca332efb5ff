from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from raylora.cli import main
from raylora.errors import UserError
from raylora.run import experiment
from raylora.run.export import export
from raylora.run.folder import write_best
from raylora.run.trials import best_trial, trial_table
from raylora.spec import load
from trainables.journal import Journal

ROOT = Path(__file__).resolve().parents[3]


def test_a_run_leaves_every_promised_file_and_opens_in_tunes_analysis(write_spec, ray_local, tmp_path) -> None:
    from ray import tune
    from ray.tune import ExperimentAnalysis

    from trainables.hosted import HostedTrial

    file = write_spec(search__trials=4)
    summary = experiment.tune(load(file), quiet=True)
    run = tmp_path / "runs" / "run"
    assert {"metric", "mode", "trials", "base", "default", "best", "wall_s"} <= set(summary)
    assert summary == json.loads((run / "summary.json").read_text())
    assert set(summary["base"]) == {"test"}
    for label in ("default", "best"):
        assert {"config", "validation", "test"} <= set(summary[label])
    assert summary["default"]["config"]["alpha"] == 8 and summary["default"]["config"]["alpha_ratio"] == 2

    # trials.csv: every trial, alpha both ways.
    trials = pd.read_csv(run / "trials.csv")
    assert len(trials) == summary["trials"] == 4
    assert (trials["alpha"] == trials["alpha_ratio"] * trials["rank"]).all()
    assert trials["key"].is_unique and set(trials["status"]) == {"finished"}

    # best.yaml is a spec of its own.
    again = load(run / "best.yaml")
    assert again.space_size == 1
    assert again.to_space().decode(0) == best_trial(run, "accuracy", "max")["config"]
    language = load(write_spec(search={"searcher": "language", "prior": {"rank": 2}, "knowledge": {"curvature": True}}))
    (tmp_path / "with-beliefs").mkdir()
    assert load(write_best(tmp_path / "with-beliefs", language, again.to_space().decode(0))).space == again.space

    # Tune's own tools open the folder.
    analysis = ExperimentAnalysis(str(run), default_metric="accuracy", default_mode="max")
    assert len(analysis.dataframe()) == 4
    assert analysis.best_config["rank"] in (2, 4)
    restored = tune.Tuner.restore(str(run), trainable=HostedTrial)
    frame = restored.get_results().get_dataframe()
    assert sorted(frame["accuracy"]) == sorted(trials["accuracy"])
    assert list(run.glob("trial_*/progress.csv")) and list(run.glob("trial_*/events.out.tfevents*"))

    # The notebook reads it, cell by cell.
    notebook = json.loads((ROOT / "notebooks" / "reading_a_run.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    scope: dict = {}
    for cell in cells:
        exec(cell.replace("../runs/RUN", str(run)), scope)
    assert scope["best_so_far"].iloc[-1] == trials["accuracy"].max()
    assert scope["analysis"].best_config == analysis.best_config and len(scope["answers"]) > 0

    # A finished run is answered without training anything.
    starts = [row for row in Journal(run).rows() if row["event"] in ("start", "continue")]
    repeated = experiment.resume(run, quiet=True)
    assert [row for row in Journal(run).rows() if row["event"] in ("start", "continue")] == starts
    assert {k: repeated[k] for k in ("base", "default", "best")} == {k: summary[k] for k in ("base", "default", "best")}

    # Only a run's folder is resumed: another one's files stay where they are.
    other = tmp_path / "other"
    other.mkdir()
    (other / "spec.yaml").write_text((run / "spec.yaml").read_text())
    (other / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds a spec.yaml but no run"):
        experiment.resume(other, quiet=True)
    assert sorted(path.name for path in other.iterdir()) == ["notes.txt", "spec.yaml"]

    # A second run in the same folder is refused.
    with pytest.raises(UserError, match="raylora resume"):
        experiment.tune(load(file), quiet=True)

    _exports_predict_what_the_run_predicted(run, tmp_path, again.model)


def _exports_predict_what_the_run_predicted(run, tmp_path, base_folder) -> None:
    import pyarrow.parquet as pq
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    expected = pq.read_table(run / "final" / "best-0" / "test.parquet").to_pylist()
    adapter = export(run, tmp_path / "adapter")
    merged = export(run, tmp_path / "merged", merge=True)
    tokenizer = AutoTokenizer.from_pretrained(merged)
    models = {
        "adapter": PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_folder), adapter),
        "merged": AutoModelForCausalLM.from_pretrained(merged),
    }
    for name, model in models.items():
        model.eval()
        for row in expected:
            ids = tokenizer(row["prompt"], return_tensors="pt", add_special_tokens=False)
            with torch.no_grad():
                out = model.generate(**ids, max_new_tokens=4, do_sample=False)
            text = tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
            assert text == row["completion"], name
    with pytest.raises(UserError, match="empty folder"):
        export(run, tmp_path / "adapter")


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


@pytest.mark.parametrize("searcher", ["tpe"])
def test_every_searcher_runs_a_spec_under_every_scheduler(write_spec, ray_local, tmp_path, searcher) -> None:
    file = write_spec(search__searcher=searcher, search__scheduler="asha", final={"enabled": False})
    summary = experiment.tune(load(file), quiet=True)
    assert summary["trials"] == 3
    assert set(trial_table(tmp_path / "runs" / "run")["status"]) <= {"finished", "stopped"}


def test_trials_that_diverge_or_fail_are_recorded_and_the_search_goes_on(write_spec, ray_local, tmp_path) -> None:
    file = write_spec(
        space={
            "variant": "lora",
            "rank": [4, 4096],
            "alpha_ratio": 1,
            "learning_rate": [1e-3, 1e30],
            "batch_size": 4,
            "dropout": 0.0,
        },
        search__trials=4,
        final={"enabled": False},
    )
    summary = experiment.tune(load(file), quiet=True)
    run = tmp_path / "runs" / "run"
    statuses = trial_table(run)["status"].value_counts().to_dict()
    assert statuses == {"failed": 2, "diverged": 1, "finished": 1}
    assert summary["best"]["config"]["learning_rate"] == 1e-3
    diverged = next(row for row in Journal(run).rows() if row.get("diverged"))
    assert diverged["accuracy"] == 0.0


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space__rank": [4096]}, "raylora: space: variant lora: rank 4096 exceeds the smaller side of"),
        ({"space__placement": ["q_prj"]}, "raylora: space: placement 'q_prj' matches no matrix: use"),
        ({"space__extra": {"niter": [4, -1]}}, "raylora: space: variant pissa: option niter is -1: use a whole"),
        ({"default_recipe": {"rank": 999}}, "raylora: default_recipe: variant lora: rank 999 exceeds"),
    ],
)
def test_what_cannot_be_attached_is_one_line_before_training(
    write_spec, ray_local, tmp_path, capsys, changes, message
) -> None:
    assert main(["tune", str(write_spec(**changes)), "--quiet"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(message)
    assert not (tmp_path / "runs" / "run" / "trials.jsonl").exists()


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


def test_a_recipe_that_is_no_adapter_is_served_and_exported_merged(write_spec, ray_local, tmp_path, capsys) -> None:
    file = write_spec(
        space={"variant": "full", "rank": 2, "alpha_ratio": 1, "learning_rate": 1e-3, "batch_size": 8, "dropout": 0.0},
        search__trials=1,
    )
    summary = experiment.tune(load(file), quiet=True)
    assert "test" in summary["best"]
    run, target = tmp_path / "runs" / "run", tmp_path / "merged"
    assert main(["export", str(run), "--to", str(tmp_path / "x")]) == 2
    assert "--merge" in capsys.readouterr().err
    assert main(["export", str(run), "--to", str(target), "--merge"]) == 0
    from safetensors.torch import load_file

    tuned = load_file(run / "adapter" / "tuned_weights.safetensors")
    merged = load_file(target / "model.safetensors")
    assert all((merged[f"{name}.weight"] == weight).all() for name, weight in tuned.items())


def test_mistakes_are_one_line_and_status_2_before_anything_starts(write_spec, tmp_path, capsys) -> None:
    file = write_spec()
    for override in ("search.searcher=lnguage", "task.nme=x", "space.rank=[0]", "space.variant=[lora, dorra]"):
        assert main(["tune", str(file), override]) == 2
        error = capsys.readouterr().err.strip()
        assert error.startswith("raylora: ") and "\n" not in error
    assert not (tmp_path / "runs" / "run").exists()
    assert main(["resume", str(tmp_path / "runs")]) == 2
    assert main(["export", str(tmp_path / "runs"), "--to", str(tmp_path / "x")]) == 2
