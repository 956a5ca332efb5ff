from __future__ import annotations

import pytest

from raylora.bench.scaling import WAYS, bench_scaling


@pytest.mark.real  # ten short trainings, half of them with every tensor counted
def test_each_way_is_measured_against_plain_training(tiny_model) -> None:
    found = bench_scaling(str(tiny_model), rows=4, longest=32, turns=1, dtype="float32", quiet=True)["ways"]
    assert list(found) == list(WAYS)
    assert found["plain"] == {"step_time": 1.0, "peak_memory": 1.0, "loss": 0.0}
    assert found["gradient_checkpointing"]["peak_memory"] < 1 and found["gradient_checkpointing"]["loss"] == 0
    assert found["pack_sequences"]["loss"] < 1e-4
