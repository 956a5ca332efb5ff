"""What `summary.json` of a run holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast


class MoreFigures(TypedDict, total=False):
    """`metrics`: split -> name -> `[value, standard error]`, where there are several metrics or test sets."""

    metrics: dict[str, dict[str, list[float | None]]]


class RecipeSummary(MoreFigures):
    """A recipe and how it scored; `_se` are standard errors, None where nothing is known of them.

    `test` is the objective on the test set; of several test sets, the mean of their figures.

    Without a final stage there is the validation score of its trial alone.
    """

    config: dict[str, Any]
    validation: float
    validation_se: NotRequired[float | None]
    test: NotRequired[float]
    test_se: NotRequired[float | None]


class BaseSummary(MoreFigures):
    """The untouched base model's score, and its standard error over the rows where one is known."""

    test: float
    test_se: NotRequired[float | None]


class OnlyBest(TypedDict):
    """What is found without a final stage; the default recipe where a trial tried it."""

    best: RecipeSummary
    default: NotRequired[RecipeSummary]


class FinalSummary(TypedDict):
    """What is found with a final stage, and how many test rows there are and have a prompt that is trained on too."""

    base: BaseSummary
    default: RecipeSummary
    best: RecipeSummary
    test_rows: int
    test_prompts_in_train: int


class Better(TypedDict, total=False):
    """Probabilities that the found recipe is better than others.

    `default`: the default recipe, by the scores on test; without a final stage, by the trials on validation.
    `runner_up`: the second-best trial, on validation.
    """

    default: float
    runner_up: float


class Summary(TypedDict):
    """A run in numbers.

    `metric`, `mode`: of the task. `trials`: how many ended; `asked`: how many were to. `failed`: how many of them were
    `infeasible` (the model or the machine cannot have them) or `failed`, where any. `better`: how sure it is, as far as
    that is known. `search`: how long the searcher's
    calls took. `budget`: `budget_s` that the user would wait and `used_s` that all attempts took.
    `run_dir`: the run's folder. `wall_s`: seconds of this attempt.
    """

    metric: str
    mode: str
    trials: int
    asked: NotRequired[int]
    failed: NotRequired[dict[str, int]]
    base: NotRequired[BaseSummary]
    default: NotRequired[RecipeSummary]
    best: RecipeSummary
    test_rows: NotRequired[int]
    test_prompts_in_train: NotRequired[int]
    better: NotRequired[Better]
    search: NotRequired[dict[str, float]]
    budget: NotRequired[dict[str, float]]
    run_dir: str
    wall_s: float


def write_summary(run_dir: str | Path, summary: Summary) -> Path:
    """Write `summary.json` of a run; returns its path."""
    path = Path(run_dir) / "summary.json"
    path.write_text(json.dumps(summary, indent=2) + "\n")
    return path


def read_summary(run_dir: str | Path) -> Summary | None:
    """What `summary.json` of a run holds, with the folder's present place; None where the run is not finished."""
    path = Path(run_dir) / "summary.json"
    if not path.is_file():
        return None
    try:
        return cast(Summary, {**json.loads(path.read_text()), "run_dir": str(run_dir)})
    except ValueError:  # torn by a kill while it was written
        return None
