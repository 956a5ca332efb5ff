"""Searches on real training as a table: worked by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raylora.bench.records import markdown
from raylora.bench.training_report import found_after, read_searches, share_to, training_table, write_training
from raylora.errors import UserError


def trial(validation: float | None, test: float | None, diverged: bool = False) -> dict[str, Any]:
    figures = {"validation": {"loss": validation}, "test": {"loss": test, "accuracy": test, "accuracy_se": 0.1}}
    return {**figures, "samples": 10, "diverged": diverged, "train_s": 2.0, "score_s": 1.0, "suggest_s": 0.5}


def write(folder: Path, searcher: str, seed: int, *trials: dict[str, Any], about: str = "m") -> None:
    folder.mkdir(exist_ok=True)
    record = {"task": "sums", "searcher": searcher, "seed": seed, "about": {"model": about}, "metric": "loss"}
    text = json.dumps({**record, "mode": "min", "trials": trials})
    (folder / f"{searcher}_{seed}_{about}.json").write_text(text)


def test_what_is_found_is_best_on_validation_and_worth_its_figure_on_test() -> None:
    trials = [trial(None, None), trial(3.0, 5.0), trial(9.0, 0.0, diverged=True), trial(2.0, 6.0), trial(2.0, 1.0)]
    assert found_after(trials, "loss", "min") == [float("inf"), 5.0, 5.0, 6.0, 6.0]
    assert found_after(trials[1:2] + trials[3:], "loss", "max") == [5.0, 5.0, 5.0]


def test_searchers_are_compared_with_random_seed_by_seed(tmp_path: Path) -> None:
    for seed, shift in ((0, 0.0), (1, 1.0)):
        write(tmp_path / "runs", "random", seed, *(trial(v, v + shift) for v in (4.0, 3.0, 2.0, 1.5)))
        write(tmp_path / "runs", "gp", seed, *(trial(v, v + shift) for v in (3.0, 1.5, 1.0, 1.0)))
    gp, random = read_searches(tmp_path / "runs")
    assert share_to(gp, random) == 0.5 and share_to(random, gp) is None
    head, first, second = training_table([gp, random])
    cells = dict(zip(head, first, strict=True))
    assert cells["after 4 trials"] == "1.500 ± 0.500" and cells["better than random at the end"] == "+0.500 ± 0.000"
    assert cells["share of the samples to random's end"] == "0.50" and cells["a trial, s"] == "3.0"
    assert cells["also, at the end"] == "accuracy 1.500 ± 0.500"
    assert dict(zip(head, second, strict=True))["better than random at the end"] == ""
    table, plot = write_training(tmp_path / "runs", tmp_path / "out" / "training")
    assert table.read_text().count("\n") == 4 and plot.stat().st_size > 0


def test_searches_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no search there"):
        read_searches(tmp_path)
    write(tmp_path, "random", 0, trial(1.0, 1.0))
    write(tmp_path, "random", 0, trial(1.0, 1.0), about="n")
    with pytest.raises(UserError, match="the searches of sums differ"):
        read_searches(tmp_path)


def test_the_documentations_table_is_that_of_its_records() -> None:
    docs = Path(__file__).resolve().parents[3] / "docs"
    searches = read_searches(docs / "training")
    assert (docs / "training.md").read_text() == markdown(training_table(searches))
    assert all(one.samples.shape[1] == 8 for one in searches)
    assert len({(one.task, one.seeds) for one in searches}) == len({one.task for one in searches})
