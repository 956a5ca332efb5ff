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


def search(host, folder, rates: list[float], *, together: int, scheduler=None) -> list[str]:
    """Trials of these rates under Tune, so many at a time; their keys."""
    from ray import tune

    from trainables.host import start_pool
    from trainables.hosted import HostedTrial

    bound = tune.with_parameters(HostedTrial, pool=start_pool([host]), worst={"accuracy": 0.0}, pack=together)
    results = tune.Tuner(
        tune.with_resources(bound, {"cpu": 0.001}),
        param_space={**KNOBS, "learning_rate": tune.grid_search(rates)},
        tune_config=tune.TuneConfig(
            metric="validation_loss", mode="min", scheduler=scheduler, max_concurrent_trials=together, reuse_actors=True
        ),
        run_config=tune.RunConfig(name="tune", storage_path=str(folder), verbose=0),
    ).fit()
    assert not results.errors
    return [trial_key({**KNOBS, "learning_rate": rate}) for rate in rates]


@pytest.mark.real
def test_the_same_configurations_have_packed_the_journal_that_they_have_unpacked(start, tmp_path) -> None:
    for folder, together in (("unpacked", 1), ("packed", 4)):
        keys = search(start(folder), tmp_path / folder, [1e-3, 2e-3, 4e-3, 8e-3], together=together)
    expected, found = (Journal(tmp_path / folder).concluded() for folder in ("unpacked", "packed"))
    assert found.keys() == expected.keys() == set(keys)
    for key, end in expected.items():
        for name in ("loss", "validation_loss", "accuracy", "samples", "step"):
            assert found[key].metrics[name] == pytest.approx(end.metrics[name], abs=1e-4), name


@pytest.mark.real
def test_a_trial_that_asha_stops_gives_its_place_to_the_next(start, tmp_path) -> None:
    from ray.tune.schedulers import ASHAScheduler

    scheduler = ASHAScheduler(time_attr="samples", max_t=48, grace_period=8, reduction_factor=2)
    # The rates get worse: who comes later is stopped at the first report that is compared.
    rates = [1e-2 / 4**place for place in range(8)]
    keys = search(start("asha"), tmp_path / "asha", rates, together=2, scheduler=scheduler)
    rows = list(Journal(tmp_path / "asha").rows())
    last = {row["key"]: row for row in rows if row["event"] in ("report", "finish")}
    stopped = [key for key in keys if last[key]["event"] == "report"]
    assert len(last) == 8 and len(stopped) >= 3
    assert sum(last[key]["samples"] for key in stopped) < 0.5 * 48 * len(stopped)
    # Whoever begins after the first two takes the place of one that was stopped, beside one that goes on.
    ends = {key: max(at for at, row in enumerate(rows) if row.get("key") == key) for key in keys}
    starts = {row["key"]: at for at, row in enumerate(rows) if row["event"] == "start"}
    beside = [sum(starts[other] < at < ends[other] for other in keys) for at in starts.values()]
    assert max(beside) == 1 and sum(beside) >= 5
