from __future__ import annotations

import pytest

from raylora.bench.packed.arms import Batch
from raylora.bench.packed.measure import bench_packed
from raylora.bench.packed.memory import Peak
from trainables.testing import make_tiny_model


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    told = bench_packed(
        [str(make_tiny_model(folder / "model"))],
        packs=(1, 3),
        batches=(Batch(2, 12),),
        rank=2,
        rounds=2,
        evaluated=(2, 3),
        memory=False,
        device="cpu",
        profiles=str(folder / "profiles"),
        quiet=True,
    )
    return told, folder


def test_both_sides_train_the_same_trials(found) -> None:
    told, _ = found
    assert [(one["batch"], one["pack"]) for one in told["training"]] == [("2x12", 1), ("2x12", 3)]
    for one in told["training"]:
        assert len(one["ratios"]) == 1 and one["bar"] is None
        assert min(*one["trials_per_hour"].values(), *one["tokens_per_s"].values(), one["cpu_speedup"]) > 0
        assert one["losses"]["packed"] == pytest.approx(one["losses"]["alone"], abs=1e-4)


def test_scored_together_the_answers_are_those_of_each_alone(found) -> None:
    told = found[0]["evaluation"]
    assert told["equal_answers"] == 1.0 and told["speedup"] > 0


def test_a_profile_of_each_pack_is_written(found) -> None:
    files = sorted((found[1] / "profiles").iterdir())
    assert len(files) == 2 and all("_PackedLinear" in file.read_text() for file in files)


def test_the_rest_of_a_peak_is_what_is_not_the_trials_own() -> None:
    assert Peak(1000.0, adapters=10.0, gradients=10.0, optimizers=20.0, activations=60.0).rest == 900.0
