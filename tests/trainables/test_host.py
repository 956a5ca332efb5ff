from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest

from trainables.host import HostPool, start_pool
from trainables.journal import Journal, trial_key
from trainables.protocols import Mark, Outputs, Row, Scorer, TrainSettings, TrialSetup
from trainables.testing import ExactMatch, make_tiny_tokenizer, tokenised_rows


@dataclass(frozen=True)
class InCompany(ExactMatch):
    """Scores nothing before a second trial has started, however long Tune takes for that."""

    run_dir: str = ""

    def marks(self, split: str, outputs: Outputs, rows: Sequence[Row]) -> list[Mark]:
        until = time.monotonic() + 120
        while time.monotonic() < until and [r["event"] for r in Journal(self.run_dir).rows()].count("start") < 2:
            time.sleep(0.05)
        return super().marks(split, outputs, rows)


KNOBS = {"variant": "lora", "rank": 4, "alpha_ratio": 2, "learning_rate": 1e-3, "batch_size": 4, "dropout": 0.0}


@pytest.fixture
def make_setup(tiny_model, ray_local, tmp_path):
    import ray

    rows = tokenised_rows(make_tiny_tokenizer(), 32)
    train, validation = [ray.put(pa.Table.from_pylist(part)) for part in (rows[:24], rows[24:])]

    def make(scorer: Scorer | None = None, **settings) -> TrialSetup:
        return TrialSetup(
            model_folder=str(tiny_model),
            scorer=scorer or ExactMatch(),
            settings=TrainSettings(**{"samples": 24, **settings}),
            train=[train],
            validation=[validation],
            run_dir=str(tmp_path),
            dtype="float32",
            threads=1,
        )

    return make


@pytest.fixture
def start(make_setup):
    import ray

    from trainables.host import start_hosts

    started = []

    def make(count: int = 1, **settings):
        hosts = start_hosts(make_setup(**settings), count)
        started.extend(hosts)
        return hosts if count > 1 else hosts[0]

    yield make
    for host in started:
        ray.kill(host)


def run_hosted(hosts, configs, **tune_config):
    """Run `configs` as HostedTrials under Tune."""
    from ray import tune

    from trainables.hosted import HostedTrial

    trainable = tune.with_parameters(HostedTrial, pool=start_pool(hosts), worst={"accuracy": 0.0})
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 0.001}),
        param_space={**KNOBS, "learning_rate": tune.grid_search([c["learning_rate"] for c in configs])},
        tune_config=tune.TuneConfig(metric="accuracy", mode="max", reuse_actors=True, **tune_config),
        run_config=tune.RunConfig(name="tune", storage_path=tempfile.mkdtemp(), verbose=0),
    )
    return tuner.fit()


@pytest.mark.real
def test_fifty_trials_on_one_host_leave_the_base_model_and_memory_as_they_were(start) -> None:
    import ray

    host = start(samples=8)
    before, memory = ray.get(host.checksum.remote()), []
    for i in range(50):
        variant = ("lora", "rslora", "dora", "pissa", "olora")[i % 5]
        knobs = {**KNOBS, "variant": variant, "learning_rate": 1e-4 * (i + 1)}
        assert ray.get(host.advance.remote("owner", knobs))["done"]
        assert ray.get(host.checksum.remote()) == before
        memory.append(ray.get(host.resident_mb.remote()))
    # The allocator settles within the first rounds; a kept adapter or model would grow on.
    assert memory[-1] - memory[24] < 30


def test_journal_line_precedes_the_answer_and_a_repeat_is_not_trained(start, tmp_path) -> None:
    import ray

    host = start()
    first = ray.get(host.advance.remote("a", KNOBS))
    again = ray.get(host.advance.remote("b", KNOBS))
    assert not again.failed and again.metrics["accuracy"] == first["accuracy"]
    assert [row["event"] for row in Journal(tmp_path).rows()] == ["start", "finish"]


def test_another_owner_puts_a_trial_aside_and_it_goes_on_from_there(start, tmp_path) -> None:
    import ray

    host = start(reports=3)
    other = {**KNOBS, "learning_rate": 2e-3}
    assert not ray.get(host.advance.remote("a", KNOBS))["done"]
    assert not ray.get(host.advance.remote("b", other))["done"]
    steps = [ray.get(host.advance.remote("a", KNOBS))["step"] for _ in range(2)]
    assert steps == [4, 6]
    events = [
        (row["event"], row.get("from_step")) for row in Journal(tmp_path).rows() if row["key"] == trial_key(KNOBS)
    ]
    assert events == [("start", None), ("report", None), ("continue", 2), ("report", None), ("finish", None)]


@pytest.mark.real
def test_killed_host_comes_back_and_the_trial_goes_on_from_its_checkpoint(start, tmp_path) -> None:
    import ray

    uninterrupted = start(reports=6, checkpoint_every_s=0.0)
    expected = [ray.get(uninterrupted.advance.remote("a", KNOBS))["loss"] for _ in range(6)]
    (tmp_path / "trials.jsonl").unlink()

    host = start(reports=6, checkpoint_every_s=0.0)
    losses = [ray.get(host.advance.remote("a", KNOBS))["loss"] for _ in range(3)]
    os.kill(ray.get(host.ready.remote())["pid"], signal.SIGKILL)
    deadline = time.monotonic() + 60
    while len(losses) < 6:
        try:
            losses.append(ray.get(host.advance.remote("a", KNOBS))["loss"])
        except ray.exceptions.RayActorError:
            assert time.monotonic() < deadline
            time.sleep(0.5)
    assert losses == pytest.approx(expected, rel=1e-6)
    going_on = [row for row in Journal(tmp_path).rows() if row["event"] == "continue"]
    assert [row["from_step"] for row in going_on] == [3]


def test_trials_go_to_the_host_with_the_fewest_and_stay_there() -> None:
    hosts: list[Any] = ["host-0", "host-1"]
    pool = HostPool(hosts)
    assert [pool.assign(owner) for owner in ("a", "b", "a", "b")] == ["host-0", "host-1", "host-0", "host-1"]
    pool.release("b")
    assert pool.assign("c") == "host-1"


def test_tune_runs_trials_over_two_hosts_and_stops_poor_ones_early(start, tmp_path) -> None:
    from ray.tune.schedulers import ASHAScheduler

    configs = [{"learning_rate": 1e-3 * (k + 1)} for k in range(4)]
    hosts = start(2, scorer=InCompany(run_dir=str(tmp_path)), reports=3)
    scheduler = ASHAScheduler(time_attr="samples", max_t=24, grace_period=8, reduction_factor=2)
    results = run_hosted(hosts, configs, scheduler=scheduler, max_concurrent_trials=2)
    assert len(results) == 4 and not results.errors
    frame = results.get_dataframe()
    assert set(frame["samples"]) <= {8, 16, 24}
    hosts_used = {row["host"] for row in Journal(tmp_path).rows() if row["event"] == "start"}
    assert hosts_used == {"host-0", "host-1"}


def test_a_pool_whose_process_is_killed_gives_hosts_again(ray_local) -> None:
    import ray

    pool = start_pool(["a", "b"])
    os.kill(ray.get(pool.__ray_call__.remote(lambda self: os.getpid())), signal.SIGKILL)
    assert [ray.get(pool.assign.remote(owner)) for owner in ("x", "y", "x")] == ["a", "b", "a"]
    ray.kill(pool)
