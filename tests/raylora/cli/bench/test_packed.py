from __future__ import annotations

import pytest

GAIN = {"speedup": 1.5, "ratios": [1.4, 1.6], "cpu_speedup": 1.7}
SIDE = {"peak_mb": 900.0, "adapters_mb": 5.0, "gradients_mb": 5.0, "optimizers_mb": 10.0}
FIGURES = {
    "training": [
        {
            "model": "smollm2-135m",
            "batch": "2x30",
            "pack": 8,
            "trials_per_hour": {"packed": 321.0, "alone": 200.0},
            "tokens_per_s": {"packed": 300.0, "alone": 190.0},
            "bar": 1.45,
            **GAIN,
        }
    ],
    "evaluation": {"adapters": 4, "rows": 48, "equal_answers": 1.0, "bar": 1.3, **GAIN},
    "memory": {"packed": SIDE, "alone": SIDE, "ratio": 1.07, "pack": 8, "bar": 1.3},
}


def test_figures_are_shown(monkeypatch, table, answer) -> None:
    monkeypatch.setattr("raylora.bench.packed.measure.bench_packed", lambda *given, **options: FIGURES)
    assert answer("bench", "packed") == FIGURES
    told = table("bench", "packed")
    assert "1.50 (1.40 to 1.60; by processor time 1.70)" in told
    assert "memory with 8: peak 900 MB: adapters 5" in told and "1.07 times that of one" in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--batches", "2by30"], "--batches: 2by30; allowed: two numbers such as 4x48"),
        (["--batches", "2x3"], "--batches: 2x3; allowed: rows of at least 4 tokens"),
        (["--packs", "8,0"], "--packs: 8,0; allowed: whole numbers above 0, separated by commas"),
        (["--rounds", "1"], "--rounds: 1; allowed: at least 2"),
        (["--evaluate", "4"], "--evaluate: 4; allowed: two numbers such as 4x48"),
    ],
)
def test_mistake_is_one_line(mistake, arguments, told) -> None:
    assert mistake("bench", "packed", *arguments) == told


def test_a_folder_that_cannot_be_made_is_refused_before_the_work(monkeypatch, mistake, tmp_path) -> None:
    monkeypatch.setattr("raylora.bench.packed.measure.bench_packed", lambda *given, **options: pytest.fail("worked"))
    (tmp_path / "file").write_text("")
    assert mistake("bench", "packed", "--profiles", tmp_path / "file").startswith("--profiles ")
