from __future__ import annotations

import pyarrow as pa
import pytest

from trainables.distributed import WorkerGroup, fit_group
from trainables.journal import Journal
from trainables.protocols import TrainSettings, TrialSetup
from trainables.run import TrialRun
from trainables.testing import ExactMatch, make_tiny_tokenizer, tokenised_rows

KNOBS = {"variant": "lora", "rank": 4, "alpha_ratio": 2, "learning_rate": 5e-3, "batch_size": 5, "dropout": 0.0}


@pytest.mark.real
def test_two_workers_reach_the_losses_of_one(tiny_model, ray_local, tmp_path) -> None:
    """Batches of 5 over 2 workers: unequal shares, and a last batch of one row that one worker has none of."""
    import ray
    from ray import tune
    from transformers import AutoModelForCausalLM

    rows = tokenised_rows(make_tiny_tokenizer(), 29)
    rows = [{**row, "prompt_ids": row["prompt_ids"][: 4 + i % 9]} for i, row in enumerate(rows)]
    train, validation = rows[:21], rows[21:]
    settings = TrainSettings(samples=21, reports=5, micro_batch_tokens=32)
    alone = TrialRun(AutoModelForCausalLM.from_pretrained(tiny_model), KNOBS, train, settings, pad_id=0)
    expected = [alone.train_step() for _ in range(5)]
    scores = alone.evaluate(validation, ExactMatch(), make_tiny_tokenizer())
    alone.close()

    setup = TrialSetup(
        model_folder=str(tiny_model),
        scorer=ExactMatch(),
        settings=settings,
        train=[ray.put(pa.Table.from_pylist(train))],
        validation=[ray.put(pa.Table.from_pylist(validation))],
        run_dir=str(tmp_path),
        dtype="float32",
        threads=1,
    )
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
