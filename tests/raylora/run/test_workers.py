from __future__ import annotations

import pytest
from ray.tune import ExperimentAnalysis

from raylora.run import experiment
from raylora.spec import load
from trainables.journal import Journal


@pytest.mark.real
def test_a_spec_with_two_workers_runs_whole_under_ray_train(write_spec, ray_local, tmp_path) -> None:
    file = write_spec(resources={"workers": 2, "cpus_per_host": None}, search__trials=1, train={"reports": 3})
    summary = experiment.tune(load(file), quiet=True)
    assert summary["trials"] == 1
    run = tmp_path / "runs" / "run"
    assert (run / "adapter" / "adapter_config.json").is_file()
    # The first worker alone writes, and Tune has heard what it wrote.
    rows = [row for row in Journal(run).rows() if "trial_id" in row or row["event"] in ("report", "finish")]
    assert [row["event"] for row in rows] == ["start", "report", "report", "finish"]
    (heard,) = ExperimentAnalysis(str(run)).trial_dataframes.values()
    assert list(heard["loss"]) == [row["loss"] for row in rows[1:]]
    assert {"validation", "test"} <= set(summary["best"])
