from __future__ import annotations

from raylora.cli._summary import show_summary

CONFIG = {"variant": "lora", "rank": 2}


def entry(value: float) -> dict:
    told = {"accuracy": [value, 0.1], "accuracy[level=1]": [value, None], "rows[level=1]": [3, None]}
    metrics = {"test.math": told, "validation": {"validation_loss": [2.0, 0.2]}}
    return {"config": CONFIG, "validation": value, "test": value, "test_se": 0.1, "metrics": metrics}


def test_every_metric_of_every_set_has_a_row(capsys) -> None:
    summary = {"metric": "accuracy", "trials": 1, "wall_s": 1.0, "default": entry(0.25), "best": entry(0.75)}
    show_summary(summary)
    shown = capsys.readouterr().out
    lines = [" ".join(line.replace("│", " ").split()) for line in shown.splitlines()]
    assert "math accuracy 0.2500 ± 0.1000 0.7500 ± 0.1000" in lines
    assert "math accuracy[level=1] 0.2500 0.7500" in lines and "math rows[level=1] 3 3" in lines
    assert "validation loss 2.0000 ± 0.2000 2.0000 ± 0.2000" in lines


def test_a_run_of_one_metric_has_one_table(capsys) -> None:
    plain = {"config": CONFIG, "validation": 0.5, "test": 0.5}
    show_summary({"metric": "accuracy", "trials": 1, "wall_s": 1.0, "best": plain})
    assert "every metric" not in capsys.readouterr().out


def test_how_sure_it_is_is_a_line(capsys) -> None:
    plain = {"config": CONFIG, "validation": 0.5, "test": 0.5}
    summary = {"metric": "accuracy", "trials": 1, "wall_s": 1.0, "best": plain, "better": {"runner_up": 0.61}}
    show_summary(summary)
    assert "the found recipe is better than the runner-up with probability 0.61\n" in capsys.readouterr().out
