from __future__ import annotations

from raylora.run.plan.estimate import estimate


def test_an_estimate_comes_from_the_models_shape(tiny_model) -> None:
    found = estimate(tiny_model, tokens_per_row=50.0, new_tokens=4, threads=1, dtype="float32")
    assert not found.measured
    assert found.shape.layers == 2 and found.shape.hidden == 32 and found.shape.weight_bytes == 4
    assert found.step_seconds("lora", 8, 8) > found.step_seconds("lora", 8, 2) > 0
    assert found.memory_gb("lora", 8, 4096) > found.resident_gb > 0


def test_longer_answers_cost_more_to_score(tiny_model) -> None:
    rows = [estimate(tiny_model, tokens_per_row=50.0, new_tokens=n, threads=1).evaluation_row_s for n in (0, 500)]
    assert rows[1] > rows[0]
