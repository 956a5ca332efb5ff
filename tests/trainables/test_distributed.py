from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from trainables.distributed import WorkerGroup, _fit, fit_group, tokens_that_may_fit, train_worker
from trainables.exhausted import Crowded
from trainables.journal import Journal
from trainables.protocols import TrainSettings, TrialSetup
from trainables.run import TrialRun
from trainables.testing import ExactMatch, make_tiny_tokenizer, tokenised_rows

KNOBS = {"variant": "lora", "rank": 4, "alpha_ratio": 2, "learning_rate": 5e-3, "batch_size": 5, "dropout": 0.0}


class GroupError(Exception):
    """As Ray Train's."""

    def __init__(self, *failures: Exception) -> None:
        super().__init__("Training failed due to worker errors")
        self.worker_failures = dict(enumerate(failures))


@pytest.mark.parametrize(
    ("error", "killed", "expected"),
    [
        (GroupError(Crowded(64), ValueError("the other one")), False, 64),
        (GroupError(Crowded(64), Crowded(32)), False, 32),
        (GroupError(RuntimeError("died: running low on memory")), False, 128),
        (GroupError(RuntimeError("its process was ended")), True, 128),
        (GroupError(RuntimeError("its process was ended")), False, None),
        (GroupError(Crowded(256)), False, None),
        (ValueError("of another kind"), False, None),
    ],
)
def test_a_group_begins_again_with_what_may_fit(error, killed, expected) -> None:
    assert tokens_that_may_fit(error, 256, killed) == expected


def hungry_worker(arguments: dict[str, Any]) -> None:
    """The second of two workers has no memory for more than one row at a time."""
    import ray.train

    from trainables.heads import LanguageHead

    original = LanguageHead.loss

    def loss(self, module, batch):
        if ray.train.get_context().get_world_rank() == 1 and len(batch.labels) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return original(self, module, batch)

    LanguageHead.loss = loss
    train_worker(arguments)


def ragged_rows(count: int) -> list[dict[str, Any]]:
    rows = tokenised_rows(make_tiny_tokenizer(), count)
    return [{**row, "prompt_ids": row["prompt_ids"][: 4 + i % 9]} for i, row in enumerate(rows)]


def trial_setup(model: Path, folder: Path, train: list[dict[str, Any]], validation: list[dict[str, Any]]) -> TrialSetup:
    import ray

    return TrialSetup(
        model_folder=str(model),
        scorer=ExactMatch(),
        settings=TrainSettings(samples=21, reports=5, micro_batch_tokens=32),
        train=[ray.put(pa.Table.from_pylist(train))],
        validation=[ray.put(pa.Table.from_pylist(validation))],
        run_dir=str(folder),
        dtype="float32",
        threads=1,
    )


@pytest.mark.real
def test_where_memory_runs_out_at_one_worker_all_go_on_with_smaller_micro_batches(
    tiny_model, ray_local, tmp_path
) -> None:
    import ray
    from transformers import AutoModelForCausalLM

    rows = ragged_rows(29)
    setup = trial_setup(tiny_model, tmp_path, rows[:21], rows[21:])
    alone = TrialRun(AutoModelForCausalLM.from_pretrained(tiny_model), KNOBS, rows[:21], setup.settings, pad_id=0)
    expected = [alone.train_step() for _ in range(5)]
    alone.close()
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        arguments = {"group": WorkerGroup(workers=2, cpus=0.1), "knobs": KNOBS, "trial_id": "t"}
        _fit(hungry_worker, arguments, setup, arguments["group"], "train-t", str(tmp_path / "ray_train"), [])
    finally:
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    rows = Journal(tmp_path).rows()
    assert [row["event"] for row in rows][-1] == "finish" and "error" not in {row["event"] for row in rows}
    losses = [row["loss"] for row in rows if row["event"] in ("report", "finish")]
    assert losses[-5:] == pytest.approx(expected, abs=1e-3)


def mortal_worker(arguments: dict[str, Any]) -> None:
    """The second of two workers is killed in its second step, once."""
    import ray.train

    killed, original = Path(arguments["setup"].run_dir, "killed"), TrialRun.train_step

    def train_step(run):
        if ray.train.get_context().get_world_rank() == 1 and run.step == 1 and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return original(run)

    TrialRun.train_step = train_step
    train_worker(arguments)


@pytest.mark.real
def test_a_worker_that_is_killed_ends_the_group_and_not_the_trial(tiny_model, ray_local, tmp_path) -> None:
    import ray
    from ray.train import WorkerGroupError

    rows = ragged_rows(29)
    setup = trial_setup(tiny_model, tmp_path, rows[:21], rows[21:])
    arguments = {"group": WorkerGroup(workers=2, cpus=0.1), "knobs": KNOBS, "trial_id": "t"}
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        for again in (False, True):
            ended = contextlib.nullcontext() if again else pytest.raises(WorkerGroupError)
            storage = str(tmp_path / f"ray_train-{again}")
            with ended:
                _fit(mortal_worker, arguments, setup, arguments["group"], "train-t", storage, [])
            assert bool(Journal(tmp_path).concluded()) is again
    finally:
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert "error" not in {row["event"] for row in Journal(tmp_path).rows()}


@pytest.mark.real
def test_two_workers_reach_the_losses_of_one(tiny_model, ray_local, tmp_path) -> None:
    """Batches of 5 over 2 workers: unequal shares, and a last batch of one row that one worker has none of."""
    from ray import tune
    from transformers import AutoModelForCausalLM

    rows = ragged_rows(29)
    train, validation = rows[:21], rows[21:]
    setup = trial_setup(tiny_model, tmp_path, train, validation)
    alone = TrialRun(AutoModelForCausalLM.from_pretrained(tiny_model), KNOBS, train, setup.settings, pad_id=0)
    expected = [alone.train_step() for _ in range(5)]
    scores = alone.evaluate(validation, ExactMatch(), make_tiny_tokenizer())
    alone.close()

    group = WorkerGroup(workers=2, cpus=0.1)
    trainable = tune.with_parameters(fit_group, setup=setup, group=group, storage=str(tmp_path / "ray_train"))
    results = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 0.001}),
        param_space=KNOBS,
        tune_config=tune.TuneConfig(metric="accuracy", mode="max", max_concurrent_trials=1),
        run_config=tune.RunConfig(name="tune", storage_path=str(tmp_path), verbose=0),
    ).fit()
    assert not results.errors
    losses = list(results[0].metrics_dataframe["loss"])
    assert losses == pytest.approx(expected, abs=1e-3)
    assert results[0].metrics["validation_loss"] == pytest.approx(scores["validation_loss"], abs=1e-3)
    # The first worker alone writes.
    events = [row["event"] for row in Journal(tmp_path).rows()]
    assert events == ["start", *["report"] * (len(losses) - 1), "finish"]
