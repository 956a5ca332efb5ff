from __future__ import annotations

import pytest

from raylora.run.plan.cost import CostModel, StepPoint, fit
from raylora.run.plan.memory import Shape, activation_gb

SHAPE = Shape(parameters=1000, layers=2, hidden=10, vocabulary=50, adapter_per_rank=1_000_000)
REST = {"tokens_per_row": 100.0, "evaluation_row_s": 0.1, "attach_s": 0.2, "resident_gb": 1.0}


def points(seconds) -> list[StepPoint]:
    grid = [(rank, batch) for rank in (8, 64) for batch in (2, 8)]
    return [StepPoint(rank, batch, 100.0 * batch, seconds(rank, 100.0 * batch)) for rank, batch in grid]


def test_a_fit_gives_the_measured_steps_back() -> None:
    def seconds(rank: int, tokens: float) -> float:
        return 0.5 + tokens * (0.01 + 1e-5 * rank) + 1e-3 * rank

    model = fit(SHAPE, points(seconds), **REST)
    for point in points(seconds):
        assert model.step_seconds("lora", point.rank, point.batch_size) == pytest.approx(point.seconds, rel=1e-3)
    assert model.step_seconds("lora", 32, 16) == pytest.approx(seconds(32, 1600.0), rel=1e-3)


def test_no_term_is_negative_where_measurements_are_noisy() -> None:
    noisy = [StepPoint(8, 2, 200, 1.0), StepPoint(8, 8, 800, 3.5), StepPoint(64, 2, 200, 0.8), StepPoint(64, 8, 800, 4)]
    model = fit(SHAPE, noisy, **REST)
    assert min(model.token_s, model.fixed_s, model.rank_s, model.rank_token_s) >= 0
    assert model.step_seconds("lora", 8, 8) == pytest.approx(3.5, rel=0.2)


def test_one_point_scales_with_the_tokens() -> None:
    model = fit(SHAPE, [StepPoint(8, 2, 200, 1.0)], **REST)
    assert model.step_seconds("lora", 8, 4) == pytest.approx(2.0)


def test_nothing_measured_is_no_model() -> None:
    with pytest.raises(ValueError, match="no step"):
        fit(SHAPE, [], **REST)


def test_activations_come_from_how_peaks_grow_with_the_batch() -> None:
    expected = activation_gb(SHAPE)
    grown = [StepPoint(8, 2, 200, 1.0, 5.0), StepPoint(8, 8, 800, 3.0, 5.0 + 2 * expected * 600)]
    assert fit(SHAPE, grown, **REST).activation_token_gb == pytest.approx(2 * expected)
    noisy = [StepPoint(8, 2, 200, 1.0, 5.0), StepPoint(8, 8, 800, 3.0, 9.0)]
    assert fit(SHAPE, noisy, **REST).activation_token_gb == pytest.approx(4 * expected)
    assert fit(SHAPE, grown[:1], **REST).activation_token_gb == pytest.approx(expected)


def test_memory_grows_with_rank_micro_batch_and_full_tuning(cost) -> None:
    model = cost()
    assert model.memory_gb("lora", 64, 512) > model.memory_gb("lora", 8, 512)
    assert model.memory_gb("lora", 8, 1024) > model.memory_gb("lora", 8, 512)
    assert model.memory_gb("full", 8, 512) > model.memory_gb("lora", 8, 512)


def test_longer_rows_cost_more_than_their_tokens() -> None:
    shape = Shape(parameters=1_000_000, layers=10, hidden=100, vocabulary=50, adapter_per_rank=1000)
    model = CostModel(shape, 100.0, 0.0, 0.01, 0.0, 0.0, 0.1)
    assert model.step_seconds("lora", 8, 1, 100.0) == pytest.approx(1.0)
    assert model.step_seconds("lora", 8, 1, 1000.0) == pytest.approx(10 * (1 + 1.0) / (1 + 0.1))


def test_variants_cost_their_factor(cost) -> None:
    model = cost()
    assert model.step_seconds("dora", 8, 4) == pytest.approx(1.33 * model.step_seconds("lora", 8, 4))


def test_a_batch_beyond_the_samples_is_one_step_of_them(cost) -> None:
    model = cost(row_s=0.1)
    assert model.train_seconds("lora", 8, 256, 10) == pytest.approx(1.0)


def test_trials_correct_the_model(cost) -> None:
    model = cost(row_s=0.1, score_s=0.1)
    slow = {"variant": "lora", "rank": 8, "batch_size": 4, "samples": 100, "train_s": 30.0, "eval_s": 4.0,
            "attach_s": 0.1, "wall_s": 36.0}  # fmt: skip
    seen = model.corrected([slow] * 9, evaluated=20)
    assert seen.training == pytest.approx(275 / 95)
    assert 0.18 < seen.evaluation_row_s < 0.2
    assert seen.trial_seconds("lora", 8, 4, 100, 20) == pytest.approx(34, rel=0.15)


def test_an_estimate_gives_way_to_the_first_trial(cost) -> None:
    slow = {"variant": "lora", "rank": 8, "batch_size": 4, "samples": 100, "train_s": 100.0, "eval_s": 0.0,
            "attach_s": 0.1, "wall_s": 101.0}  # fmt: skip
    assert cost(measured=False).corrected([slow], 20).training > 9
    assert cost(measured=True).corrected([slow], 20).training == pytest.approx(7.0)


def test_a_cost_model_survives_as_plain_data(cost) -> None:
    assert CostModel.from_dict(cost().to_dict()) == cost()
