from __future__ import annotations

import pytest

from raylora.run.trackers.trackio import Trackio

pytestmark = pytest.mark.real


def test_a_group_with_a_run_per_trial_is_read_back_through_its_api(tell, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trackio = pytest.importorskip("trackio")
    tell(Trackio)
    runs = {run.name: run for run in trackio.Api().runs("raylora")}
    assert set(runs) == {"sums", "sums/trial-00aa", "sums/trial-00bb"}
    assert runs["sums/trial-00aa"].config["rank"] == 4
