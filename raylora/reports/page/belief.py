"""What a searcher's model believes of a run's trials: each predicted from all others."""

from __future__ import annotations

from raylora.reports.page.datasets import Row, page_key
from raylora.reports.page.facts import RunFacts
from raylora.reports.page.words import recipe
from searchers import SEARCHERS, belief_of

LEAST_TRIALS = 8


def surrogate_of(run: RunFacts) -> str:
    """In words, the model that the predictions of a run come from; empty for a searcher that has none."""
    try:
        return belief_of(run.spec.search.searcher)
    except ValueError:  # of a package that is not here, or does not load
        return ""


def belief_rows(run: RunFacts) -> list[Row]:
    """Leave-one-out predictions of the finished trials, in the metric's unit; nothing for a searcher without a model.

    The model is fitted once to all trials; each value is then predicted from the others. Imports what the searcher's
    model is made with, such as torch, for runs that have a model alone.
    """
    if not surrogate_of(run):
        return []
    space, search = run.spec.to_space(), run.spec.search
    known = [(trial, space.encode(trial.config), run.value(trial)) for trial in run.trials if trial.config in space]
    known = [one for one in known if one[2] is not None and one[0].status == "finished"]
    values = [float(value) for _, _, value in known if value is not None]
    if len(known) < LEAST_TRIALS or len(set(values)) < 2:
        return []
    indices = [index for _, index, _ in known]
    predicted, spread = SEARCHERS[search.searcher].leave_one_out(space, indices, values, search.options, run.spec.seed)
    return [
        {
            "key": page_key(run, trial),
            "run": run.name,
            "trial": trial.number,
            "variant": str(trial.config.get("variant", "")),
            "recipe": recipe(trial.config),
            "observed": value,
            "predicted": float(centre),
            "low": float(centre - 2 * deviation),
            "high": float(centre + 2 * deviation),
        }
        for (trial, _, _), value, centre, deviation in zip(known, values, predicted, spread, strict=True)
    ]
