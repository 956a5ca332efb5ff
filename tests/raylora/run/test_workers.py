from __future__ import annotations

import pytest

from raylora.run import experiment
from raylora.spec import load


@pytest.mark.real
def test_a_spec_with_two_workers_runs_whole_under_ray_train(write_spec, ray_local, tmp_path) -> None:
    file = write_spec(resources={"workers": 2, "cpus_per_host": None}, search__trials=1)
    summary = experiment.tune(load(file), quiet=True)
    assert summary["trials"] == 1
    assert (tmp_path / "runs" / "run" / "adapter" / "adapter_config.json").is_file()
    assert {"validation", "test"} <= set(summary["best"])
