from __future__ import annotations

from raylora.cli._summary import show_summary


def test_mistake_in_a_spec_is_one_line_before_anything_starts(write_spec, mistake, tmp_path) -> None:
    spec = write_spec()
    assert mistake("tune", spec, "search.trials=0") == "search.trials = 0: allowed: at least 1"
    assert "no such key" in mistake("tune", spec, "search.trails=3", "--quiet", "--json")
    assert "no such file" in mistake("tune", tmp_path / "none.yaml")
    assert not (tmp_path / "runs" / "run").exists()


def test_run_that_exists_is_not_written_over(workplace, mistake) -> None:
    assert "is in use" in mistake("tune", workplace / "spec.yaml", "name=sums")


def test_summary_shows_the_three_models_with_errors(capsys) -> None:
    recipe = {"variant": "lora", "rank": 4, "alpha": 8, "alpha_ratio": 2}
    entry = {"config": recipe, "validation": 0.5, "test": 0.25, "test_se": 0.125}
    show_summary(
        {"metric": "accuracy", "trials": 3, "wall_s": 9.6, "base": {"test": 0}, "default": entry, "best": entry}
    )
    shown = capsys.readouterr().out
    assert "accuracy after 3 trials, 10 s" in shown and "0.2500 ± 0.1250" in shown
    assert shown.count("lora rank=4 alpha=8") == 2 and "base, untouched" in shown


def test_summary_tells_what_was_used_of_a_budget_and_names_no_adapter_that_is_not_there(capsys) -> None:
    best = {"config": {"variant": "lora", "rank": 4, "alpha": 8}, "validation": 0.5}
    budget = {"budget_s": 600.0, "used_s": 540.4}
    show_summary(
        {"metric": "accuracy", "trials": 3, "wall_s": 9.6, "best": best, "default": best, "budget": budget,
         "run_dir": "runs/x"}
    )  # fmt: skip
    shown = capsys.readouterr().out
    assert "540 s of a budget of 600 s used" in shown
    assert "runs/x/best.yaml" in shown and "adapter/" not in shown
