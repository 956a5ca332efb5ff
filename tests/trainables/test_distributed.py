from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from trainables.distributed import WorkerGroup, _fit, tokens_that_may_fit, train_worker
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


def troubled_worker(arguments: dict[str, Any]) -> None:
    """The second of two workers is killed in its second step, once; after that it has memory for one row at a time."""
    import ray.train

    from trainables.heads import LanguageHead

    killed = Path(arguments["setup"].run_dir, "killed")
    train_step, loss = TrialRun.train_step, LanguageHead.loss
    second = ray.train.get_context().get_world_rank() == 1

    def mortal(run):
        if second and run.step == 1 and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return train_step(run)

    def hungry(self, module, batch):
        if second and killed.exists() and len(batch.labels) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return loss(self, module, batch)

    TrialRun.train_step, LanguageHead.loss = mortal, hungry
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
def test_a_group_that_loses_a_worker_and_then_has_no_memory_goes_on_to_the_losses_of_one(
    tiny_model, ray_local, tmp_path
) -> None:
    """The first ends the group and not the trial; at the second all workers go on with smaller micro-batches.

    Batches of 5 over 2 workers: unequal shares, and a last batch of one row that one worker has none of.
    """
    import ray
    from ray.train import WorkerGroupError
    from transformers import AutoModelForCausalLM

    rows = ragged_rows(29)
    setup = trial_setup(tiny_model, tmp_path, rows[:21], rows[21:])
    alone = TrialRun(AutoModelForCausalLM.from_pretrained(tiny_model), KNOBS, rows[:21], setup.settings, pad_id=0)
    expected = [alone.train_step() for _ in range(5)]
    scores = alone.evaluate(rows[21:], ExactMatch(), make_tiny_tokenizer())
    alone.close()
    arguments = {"group": WorkerGroup(workers=2, cpus=0.1), "knobs": KNOBS, "trial_id": "t"}
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        for again in (False, True):
            ended = contextlib.nullcontext() if again else pytest.raises(WorkerGroupError)
            storage = str(tmp_path / f"ray_train-{again}")
            with ended:
                _fit(troubled_worker, arguments, setup, arguments["group"], "train-t", storage, [])
            assert bool(Journal(tmp_path).concluded()) is again
    finally:
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert len(list((tmp_path / "ray_train-True").iterdir())) == 2  # the group that had no memory, and the next one
    rows = Journal(tmp_path).rows()
    # The first worker alone writes.
    assert {row["event"] for row in rows} == {"start", "continue", "report", "finish"}
    losses = {row["samples"]: row["loss"] for row in rows if row["event"] in ("report", "finish")}
    assert losses == pytest.approx(dict(zip((5, 10, 15, 20, 21), expected, strict=True)), abs=1e-3)
    assert rows[-1]["validation_loss"] == pytest.approx(scores["validation_loss"], abs=1e-3)
