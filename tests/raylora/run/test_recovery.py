"""kill -9 of the driver, then `raylora resume`."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter

import pytest

from raylora.run.trials import trial_table
from trainables.journal import Journal

TRIALS = 8


def wait_until(condition, process, limit: float = 300) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        if process.poll() is not None:
            return
        assert time.monotonic() < deadline, "the run made no progress"
        time.sleep(0.02)


def finished(run) -> int:
    return sum(row["event"] == "finish" for row in Journal(run).rows())


@pytest.mark.real
def test_driver_killed_at_five_moments_finishes_without_repeating_a_trial(write_spec, start_raylora, tmp_path) -> None:
    """Four random moments and one within a second after a trial ended; then the run is whole."""
    file = write_spec(search__trials=TRIALS, train__checkpoint_every_s=0.2, train__epochs=3)
    run = tmp_path / "runs" / "run"
    clock = random.Random(0)
    process = start_raylora("tune", file)
    for kill in range(5):
        before = finished(run)
        if kill == 0:
            wait_until(lambda b=before: finished(run) > b, process)
            time.sleep(clock.uniform(0, 0.9))
        else:
            wait_until((run / "trials.jsonl").exists, process)
            time.sleep(clock.uniform(0.5, 12))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process = start_raylora("resume", run)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    starts = Counter(row["key"] for row in Journal(run).rows() if row["event"] == "start")
    ends = Counter(row["key"] for row in Journal(run).rows() if row["event"] == "finish")
    assert len(starts) == len(ends) == TRIALS
    assert set(starts.values()) == set(ends.values()) == {1}
    over: set[str] = set()
    for row in Journal(run).rows():
        assert not (row["event"] in ("start", "continue") and row["key"] in over), "a finished trial ran again"
        if row["event"] == "finish":
            over.add(row["key"])
    assert len(trial_table(run)) == TRIALS
    from ray.tune import ExperimentAnalysis

    assert len(ExperimentAnalysis(str(run)).trials) == TRIALS
