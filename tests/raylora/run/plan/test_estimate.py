from __future__ import annotations

import pytest

from raylora.run.plan.estimate import estimate, model_shape


def test_an_estimate_comes_from_the_models_shape(tiny_model) -> None:
    found = estimate(tiny_model, tokens_per_row=50.0, new_tokens=4, threads=1, dtype="float32")
    assert not found.measured
    assert found.shape.layers == 2 and found.shape.hidden == 32 and found.shape.weight_bytes == 4
    assert found.step_seconds("lora", 8, 8) > found.step_seconds("lora", 8, 2) > 0
    assert found.memory_gb("lora", 8, 4096) > found.resident_gb > 0


def test_longer_answers_cost_more_to_score(tiny_model) -> None:
    rows = [estimate(tiny_model, tokens_per_row=50.0, new_tokens=n, threads=1).evaluation_row_s for n in (0, 500)]
    assert rows[1] > rows[0]


@pytest.mark.parametrize("kind", ["none", "nf4", "int8"])
def test_weights_of_a_quantised_base_are_predicted(kind: str, tmp_path) -> None:
    from trainables.session import load_model
    from trainables.testing import make_tiny_model

    folder = make_tiny_model(tmp_path, hidden=128)
    model, _ = load_model(folder, "float32", "cpu", quantization=kind)
    # nf4's tables are the same size for any matrix.
    tensors = [t for n, t in [*model.named_parameters(), *model.named_buffers()] if not n.endswith("code")]
    held = sum(t.numel() * t.element_size() for t in tensors)
    assert model_shape(folder, "all-linear", 4, quantization=kind).base_bytes == pytest.approx(held, rel=0.05)
