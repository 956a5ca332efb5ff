from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from raylora.run.curve import CurveScheduler, CurveSearcher, conclude_paused
from raylora.run.pool import Pool
from raylora.run.trials import trial_table
from searchers import make_searcher
from searchers.space import Space
from searchers.surrogate.link import LOSS
from trainables.journal import Journal, trial_key
from trainables.protocols import TrainSettings
from trainables.stops import ask_to_stop

SETTINGS = TrainSettings(samples=64, reports=5, doubling=True)
SPACE = {"rank": [2, 4, 8, 16], "learning_rate": [1e-5, 1e-4, 1e-3, 1e-2]}


def loss_at(config: dict[str, Any], samples: int) -> float:
    """Validation loss of a configuration; the best rate is 1e-3, and 1e-2 diverges after 8 samples."""
    far = abs(math.log10(config["learning_rate"]) + 3)
    if config["learning_rate"] == 1e-2 and samples > 8:
        return math.nan
    return 3.0 - (1.5 - 0.6 * far + 0.02 * math.log2(config["rank"])) * math.log2(samples) / 6


@dataclass
class FakeTrial:
    trial_id: str
    config: dict[str, Any]
    status: str = "RUNNING"


@dataclass
class FakeTune:
    """Tune's loop, with trials that take no time: each step asks the searcher, then the scheduler, then one reports."""

    searcher: CurveSearcher
    folder: Path
    trials: list[FakeTrial] = field(default_factory=list)
    most: int = 0
    finished: bool = False

    def __post_init__(self) -> None:
        self.scheduler, self.journal = CurveScheduler(self.searcher), Journal(self.folder)

    def get_trials(self) -> list[FakeTrial]:
        return list(self.trials)

    def pause_trial(self, trial: FakeTrial, should_checkpoint: bool = True) -> None:
        assert not should_checkpoint
        trial.status = "PAUSED"

    def stop_trial(self, trial: FakeTrial) -> None:
        trial.status = "TERMINATED"
        self.searcher.on_trial_complete(trial.trial_id)
        self._booked(trial, {}, stopped=True)

    def _booked(self, trial: FakeTrial, result: dict[str, Any], stopped: bool = False) -> None:
        key = trial_key(trial.config)
        if key not in self.journal.concluded():
            self.journal.finish(key, trial.config, result or self.journal.last_report(key), stopped=stopped)

    def step(self) -> bool:
        """Whether there is more to do."""
        found = None if self.finished else self.searcher.suggest(f"{self.folder.name}-{len(self.trials)}")
        self.finished |= found == "FINISHED"
        if isinstance(found, dict):
            self.trials.append(FakeTrial(f"{self.folder.name}-{len(self.trials)}", found))
            if trial_key(found) not in self.journal.started():
                self.journal.append("start", trial_key(found), config=found, trial_id=self.trials[-1].trial_id)
        chosen = self.scheduler.choose_trial_to_run(self)
        if chosen is not None:
            chosen.status = "RUNNING"
        running = [trial for trial in self.trials if trial.status == "RUNNING"]
        self.most = max(self.most, len(running))
        if running and (len(running) == self.searcher.hosts or not isinstance(found, dict)):
            self._report(running[0])
        return not self.finished or any(trial.status in ("RUNNING", "PAUSED") for trial in self.trials)

    def _report(self, trial: FakeTrial) -> None:
        key = trial_key(trial.config)
        over = self.journal.concluded().get(key)
        if over is not None:
            trial.status = "TERMINATED"
            self.searcher.on_trial_complete(trial.trial_id, dict(over.replay({LOSS: 20.0})))
            return
        seen = int(self.journal.last_report(key).get("samples") or 0)
        samples = SETTINGS.due(seen)
        loss = loss_at(trial.config, samples)
        result = {LOSS: loss, "samples": samples, "diverged": math.isnan(loss)}
        if samples == 64 or math.isnan(loss):
            trial.status = "TERMINATED"
            self._booked(trial, result)
            self.searcher.on_trial_complete(trial.trial_id, result)
            return
        self.journal.report(key, result)
        if self.scheduler.on_trial_result(self, trial, result) == "CONTINUE":
            assert trial.status == "RUNNING"
        self.searcher.on_trial_result(trial.trial_id, result)

    def run(self, steps: int = 400) -> None:
        for _ in range(steps):
            if not self.step():
                return


@pytest.fixture
def attempt(tmp_path, quick_fits):
    """Makes the searcher of a run in `tmp_path` under a fake Tune, as each attempt does."""

    def make(trials: int = 3, hosts: int = 1, name: str = "random", again: bool = False) -> FakeTune:
        space = Space.from_dict(SPACE)
        inner = make_searcher(name, space=space, metric=LOSS, mode="min", seed=1, worst=20.0)
        pool = Pool(space, 64, SETTINGS.due)
        searcher = CurveSearcher(inner, str(tmp_path), pool, hosts, trials)
        if again:
            searcher.catch_up()
        return FakeTune(searcher, tmp_path)

    return make


def spent(folder: Path) -> int:
    """Samples that the journal tells of."""
    most: dict[str, int] = {}
    for row in Journal(folder).rows():
        most[row["key"]] = max(most.get(row["key"], 0), int(row.get("samples") or 0))
    return sum(most.values())


@pytest.mark.parametrize("hosts", [1, 2])
def test_a_search_spends_its_samples_on_more_trials_and_ends_with_a_whole_one(attempt, tmp_path, hosts) -> None:
    tune = attempt(hosts=hosts)
    tune.run()
    assert tune.finished and tune.most == hosts
    ends = Journal(tmp_path).concluded()
    whole = [end for end in ends.values() if not end.stopped and not end.diverged]
    assert whole and spent(tmp_path) <= 3 * 64
    assert len(ends) == len(tune.trials) > 3
    if hosts == 1:
        assert min(whole, key=lambda end: end.metrics[LOSS]).config["learning_rate"] == 1e-3
    assert all(trial.status == "TERMINATED" for trial in tune.trials)


def test_the_searcher_is_told_what_is_forecast_of_a_paused_trial_and_then_what_came_of_it(attempt) -> None:
    tune = attempt()
    tune.run()
    inner = tune.searcher.inner
    seen = {observation.index: observation for observation in inner.observations}
    paused = [m for m in tune.searcher.pool.members.values() if m.state == "over" and not m.whole and not m.lost]
    whole = [m for m in tune.searcher.pool.members.values() if m.whole]
    assert paused and whole
    for member in paused:
        told = seen[member.index]
        assert told.samples == member.samples and told.error > 0
        assert told.value != member.losses[member.samples]
    for member in whole:
        assert seen[member.index].value == member.losses[64] and seen[member.index].samples == 64
    for member in tune.searcher.pool.members.values():
        if member.lost:
            assert seen[member.index].value == 20.0
    assert not inner.pending or set(inner.pending) == {tune.searcher._held[0]}


@pytest.mark.parametrize("steps", [2, 9])
def test_a_search_that_was_killed_goes_on_where_its_trials_were(attempt, tmp_path, steps) -> None:
    first = attempt()
    first.run(steps)
    before, started = spent(tmp_path), list(Journal(tmp_path).started())
    second = attempt(again=True)
    second.run()
    assert second.finished and before <= spent(tmp_path) <= 3 * 64
    rows = Journal(tmp_path).rows()
    assert [row["key"] for row in rows if row["event"] == "start"][: len(started)] == started
    conclude_paused(tmp_path, second.searcher)
    concluded = [row["key"] for row in Journal(tmp_path).rows() if row["event"] == "finish"]
    assert sorted(concluded) == sorted(Journal(tmp_path).started())
    reported = [(row["key"], row["samples"]) for row in rows if row["event"] == "report"]
    assert len(reported) == len(set(reported))


def test_a_paused_trial_that_is_asked_to_stop_ends(attempt, tmp_path) -> None:
    tune = attempt()
    while not any(trial.status == "PAUSED" for trial in tune.trials):
        tune.step()
    key = trial_key(next(trial for trial in tune.trials if trial.status == "PAUSED").config)
    ask_to_stop(tmp_path, key)
    tune.step()
    assert Journal(tmp_path).concluded()[key].stopped
    tune.run()
    assert tune.finished


def test_what_people_ask_for_begins_next(attempt, tmp_path) -> None:
    tune = attempt()
    tune.run(3)
    asked = next(
        c for c in map(Space.from_dict(SPACE).decode, range(16)) if trial_key(c) not in Journal(tmp_path).started()
    )
    tune.searcher.ask_for(asked)
    count = len(tune.trials)
    tune.run(6)
    assert tune.trials[count].config == asked or tune.trials[count + 1].config == asked
    tune.searcher.ask_for({**asked, "rank": 3})
    tune.run()
    outside = [end for end in Journal(tmp_path).concluded().values() if end.config["rank"] == 3]
    assert len(outside) == 1 and not outside[0].stopped


def test_when_no_trial_may_begin_the_paused_ones_go_on(attempt, tmp_path) -> None:
    tune = attempt()
    tune.run(6)
    count = len(tune.trials)
    tune.searcher.enough = lambda: True
    tune.run()
    assert tune.finished and len(tune.trials) == count


def test_more_trials_are_more_samples(attempt, tmp_path) -> None:
    tune = attempt(trials=2)
    tune.run(4)
    tune.searcher.trials = 3
    tune.run()
    assert 2 * 64 < spent(tmp_path) <= 3 * 64


def test_three_failures_first_end_the_search(attempt) -> None:
    tune = attempt()
    for number in range(3):
        config = tune.searcher.suggest(f"x{number}")
        assert isinstance(config, dict)
        tune.searcher.on_trial_complete(f"x{number}", error=True)
    assert tune.searcher.suggest("y") == "FINISHED" and tune.searcher.hopeless


# ---- real processes ----------------------------------------------------------------------------------------


def until(condition, process, seconds: float = 900) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "the run made no progress"
        time.sleep(0.05)


@pytest.mark.real
def test_a_driver_killed_in_the_middle_loses_no_trial(write_spec, start_raylora, tmp_path) -> None:
    run = tmp_path / "runs" / "run"
    file = write_spec(
        search={"searcher": "random", "trials": 4, "scheduler": "curve"},
        train={"samples": 64},
        resources={"cpus_per_host": 1},
        space__batch_size=[2, 4],
        final={"enabled": False},
    )
    process = start_raylora("tune", file)
    until(lambda: sum(row["event"] == "continue" for row in Journal(run).rows()) >= 1, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = {row["key"]: row for row in Journal(run).rows() if row["event"] == "report"}
    kept = {key for key in before if (run / "checkpoints" / key / "position.json").is_file()}
    mark = len(Journal(run).rows())
    process = start_raylora("resume", run)
    output, _ = process.communicate(timeout=1200)
    assert process.returncode == 0, output
    rows = Journal(run).rows()
    finished = [row["key"] for row in rows if row["event"] == "finish"]
    assert sorted(finished) == sorted(Journal(run).started())
    for row in rows[mark:]:
        if row["event"] == "continue" and row["key"] in kept:
            assert row["from_step"] > 0
    table = trial_table(run)
    assert "finished" in set(table["status"]) and set(table["status"]) <= {"finished", "stopped", "diverged"}
    assert table["samples"].sum() <= 4 * 64
    assert (run / "summary.json").is_file()
    with contextlib.suppress(FileNotFoundError):
        assert not [place for place in (run / "checkpoints").iterdir() if place.name in finished]
