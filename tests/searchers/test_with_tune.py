"""The searchers inside a real Tuner: two trials at once, restored afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray import tune

from searchers import make_searcher
from searchers.testing import objective, small_space


class Trivial(tune.Trainable):
    def setup(self, config: dict[str, Any]) -> None:
        self.config = config

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.config = new_config
        return True

    def step(self) -> dict[str, Any]:
        return {"score": objective(self.config), "samples": 8, "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        Path(checkpoint_dir, "nothing").touch()

    def load_checkpoint(self, checkpoint: Any) -> None:
        pass


@pytest.mark.parametrize("name", ["random", "grid", "tpe", "optuna_gp", "gp", "latent", "nomad", "language"])
def test_runs_in_a_tuner_and_restores(name: str, tiny_llm: Path, ray_local: None, tmp_path: Path) -> None:
    options: dict[str, Any] = {}
    if name == "language":
        options = {
            "llm": tiny_llm,
            "language": True,
            "fit_steps": 3,
            "projection": 4,
            "dtype": "float32",
            "cache": False,
        }
    searcher = make_searcher(name, space=small_space(), metric="score", mode="max", seed=0, **options)
    tuner = tune.Tuner(
        Trivial,
        tune_config=tune.TuneConfig(
            search_alg=searcher, num_samples=6, metric="score", mode="max", max_concurrent_trials=2, reuse_actors=True
        ),
        run_config=tune.RunConfig(name=name, storage_path=str(tmp_path), verbose=0),
    )
    results = tuner.fit()
    assert not results.errors
    assert len(results) == 6
    configs = [r.config for r in results]
    assert all(c in small_space() for c in configs)
    if searcher.never_repeats:
        assert len({small_space().key(c) for c in configs}) == 6
    assert len(searcher.observations) >= (6 if searcher.never_repeats else 1)
    assert searcher.observations[0].samples == 8

    restored = tune.Tuner.restore(str(tmp_path / name), Trivial)
    again = restored.fit()
    assert len(again) == 6 and not again.errors
    assert again.get_best_result().metrics["score"] == results.get_best_result().metrics["score"]
    if name == "language":
        searcher.close()
