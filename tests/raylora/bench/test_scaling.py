from __future__ import annotations

import pytest

from raylora.bench.scaling import WAYS, bench_scaling
from raylora.errors import UserError


@pytest.mark.real  # several short trainings in two processes of their own
def test_each_way_is_measured_against_plain_training(tiny_model) -> None:
    names = ["gradient_checkpointing", "pack: 4", "fsdp"]
    ways = bench_scaling(str(tiny_model), ways=names, rows=4, longest=32, turns=1, dtype="float32", quiet=True)["ways"]
    assert list(ways) == ["plain", *names]
    assert ways["plain"] == {"workers": 1, "step_time": 1.0, "cpu_time": 1.0, "peak_memory": 1.0, "loss": 0.0}
    for name, way in ways.items():
        assert way["loss"] < 1e-4, name
        assert way["workers"] == (2 if WAYS[name].strategy else 1)


def test_a_way_that_there_is_not_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="--ways: zero4; allowed: plain; "):
        bench_scaling("smollm2-135m", ways=["zero4"])
