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


def wait_until(condition, process, limit: float = 120) -> None:
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
    output, _ = process.communicate(timeout=240)
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


@pytest.mark.parametrize("known", [True, False])
def test_a_searcher_catches_up_with_results_that_its_state_missed(tmp_path, known) -> None:
    from raylora.run.journaled import JournaledSearcher
    from searchers import make_searcher
    from searchers.space import Space

    space = Space.from_dict({"rank": [2, 4, 8, 16], "learning_rate": [1e-4, 1e-3]})

    def fresh() -> JournaledSearcher:
        inner = make_searcher("random", space=space, metric="accuracy", mode="max", seed=3)
        return JournaledSearcher(inner, str(tmp_path), metric="accuracy", mode="max")

    from trainables.journal import trial_key

    journal, first = Journal(tmp_path), fresh()
    done, running = first.suggest("a"), first.suggest("b")
    for trial_id, config in (("a", done), ("b", running)):
        journal.append("start", trial_key(config), config=config, trial_id=trial_id)
    journal.append("finish", trial_key(done), config=done, accuracy=0.5, samples=10)
    if known:
        first.on_trial_complete("a", {"accuracy": 0.5, "samples": 10})
    unheard = first.suggest("c")  # proposed, never started

    second = fresh()
    second.catch_up()
    assert [o.value for o in second.inner.observations] == [0.5]
    assert second.suggest("d") == done
    second.on_trial_complete("d", {"accuracy": 0.5})
    assert len(second.inner.observations) == 1
    assert [second.suggest("e"), second.suggest("f")] == [running, unheard]
    rest = [second.suggest(str(i)) for i in range(5)]
    assert len({tuple(c.items()) for c in [done, running, unheard, *rest]}) == 8
    assert second.suggest("z") == "FINISHED"
