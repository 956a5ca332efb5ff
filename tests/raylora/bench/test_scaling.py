from __future__ import annotations

import pytest

from raylora.bench.scaling import WAYS, bench_scaling
from raylora.errors import UserError


@pytest.mark.real  # several short trainings in two processes of their own
def test_each_way_is_measured_against_plain_training(tiny_model) -> None:
    names = ["gradient_checkpointing", "pack: 4", "nf4", "int8", "fsdp"]
    ways = bench_scaling(str(tiny_model), ways=names, rows=4, longest=32, turns=1, dtype="float32", quiet=True)["ways"]
    assert list(ways) == ["plain", *names]
    ratios = {"step_time": 1.0, "cpu_time": 1.0, "peak_memory": 1.0}
    assert ways["plain"] == {"workers": 1, **ratios, "loss": 0.0, "loss_from_plain": None}
    for name, way in ways.items():
        assert way["loss"] < 1e-4, name
        # A quantised base has other losses; over dense weights of the same values they are the same.
        assert (way["loss_from_plain"] is None) == (WAYS[name].quantization == "none"), name
        assert way["loss_from_plain"] is None or way["loss"] < way["loss_from_plain"] < 1e-2, name
        assert way["workers"] == (2 if WAYS[name].strategy else 1)


def test_a_way_that_there_is_not_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="--ways: zero4; allowed: plain; "):
        bench_scaling("smollm2-135m", ways=["zero4"])
