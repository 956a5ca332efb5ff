from __future__ import annotations

import os
import signal
import time

import pyarrow as pa
import pytest

from trainables.journal import Journal, trial_key
from trainables.protocols import TrainSettings, TrialSetup
from trainables.testing import ExactMatch, make_tiny_tokenizer, tokenised_rows

KNOBS = {"variant": "lora", "rank": 4, "alpha_ratio": 2, "batch_size": 4, "dropout": 0.1}
TRIALS = [
    {**KNOBS, "variant": name, "learning_rate": 1e-3 * (k + 1)}
    for k, name in enumerate(("lora", "dora", "pissa", "full"))
]


@pytest.fixture
def start(tiny_model, ray_local, tmp_path):
    import ray

    from trainables.host import start_hosts

    rows = tokenised_rows(make_tiny_tokenizer(), 32)
    train, validation = [ray.put(pa.Table.from_pylist(part)) for part in (rows[:24], rows[24:])]
    started = []

    def make(folder: str):
        (tmp_path / folder).mkdir()
        setup = TrialSetup(
            model_folder=str(tiny_model),
            scorer=ExactMatch(),
            settings=TrainSettings(samples=48, reports=6, checkpoint_every_s=0.0),
            train=[train],
            validation=[validation],
            run_dir=str(tmp_path / folder),
            dtype="float32",
            threads=1,
            pack=4,
        )
        started.extend(start_hosts(setup, 1))
        return started[-1]

    yield make
    for host in started:
        ray.kill(host)


def rounds(host, count: int) -> list[list]:
    """Reports of all trials, asked for at once, `count` times; waits for a host that is being restarted."""
    import ray

    found, deadline = [], time.monotonic() + 120
    while len(found) < count:
        calls = [host.advance.remote(f"owner-{k}", knobs) for k, knobs in enumerate(TRIALS)]
        try:
            found.append(ray.get(calls))
        except ray.exceptions.RayActorError:
            assert time.monotonic() < deadline
            time.sleep(0.5)
    return found


@pytest.mark.real
def test_a_killed_host_goes_on_with_each_of_its_trials_from_its_own_checkpoint(start, tmp_path) -> None:
    import ray

    expected = rounds(start("whole"), 6)
    host = start("killed")
    before = rounds(host, 3)
    os.kill(ray.get(host.ready.remote())["pid"], signal.SIGKILL)
    after = rounds(host, 3)
    for found, wanted in zip([*before, *after], expected, strict=True):
        for own, whole in zip(found, wanted, strict=True):
            assert own["step"] == whole["step"]
            assert own["loss"] == pytest.approx(whole["loss"], abs=1e-4)
    journal = Journal(tmp_path / "killed")
    going_on = {row["key"]: row["from_step"] for row in journal.rows() if row["event"] == "continue"}
    assert going_on == {trial_key(knobs): 6 for knobs in TRIALS}
    assert len([row for row in journal.rows() if row["event"] == "finish"]) == 4
