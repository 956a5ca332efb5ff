from __future__ import annotations

import pytest

from raylora.run.plan.calibrate import cost_model, points


def test_two_ranks_and_two_batches_of_the_space_are_measured(spec) -> None:
    assert points(spec()) == ([8, 64], [2, 8])
    assert points(spec(space__rank=[4], space__batch_size=[1, 2])) == ([4], [1, 8])


def test_what_was_measured_makes_a_model() -> None:
    step = {"rank": 8, "batch_size": 2, "tokens": 200.0, "seconds": 1.0, "peak_gb": 2.0}
    found = cost_model(
        {"parameters": 10, "layers": 1, "hidden": 2, "vocabulary": 3, "adapter_per_rank": 5, "weight_bytes": 4,
         "tokens_per_row": 100.0, "evaluation_row_s": 0.5, "attach_s": 0.1, "resident_gb": 1.0, "available_gb": 9.0,
         "steps": [step], "spent_s": 3.0}
    )  # fmt: skip
    assert found.measured and found.step_seconds("lora", 8, 2) == pytest.approx(1.0)
    assert found.evaluation_seconds(4) == 2.0
