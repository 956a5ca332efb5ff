"""How much each knob mattered in a run: Optuna's evaluators on its trials."""

from __future__ import annotations

from collections.abc import Sequence

from raylora.reports.page.datasets import Knob, Row

# Fewer scored trials say nothing that would not change with the next one.
LEAST_TRIALS = 10
METHODS = {
    "fANOVA": "share of the values' variance that the knob explains (Hutter et al., 2014)",
    "PED-ANOVA": "how much the knob decides whether a trial is among the best tenth (Watanabe et al., 2023)",
}


def importances(rows: Sequence[Row], knobs: Sequence[Knob], mode: str, seed: int = 0) -> list[Row]:
    """`{"knob", "method", "importance"}` for both methods; knobs that not every trial has are left out.

    Args:
        rows: of one run, see `datasets.trial_rows`. Diverged and failed trials have no value and do not count.

    Returns:
        Nothing for fewer than `LEAST_TRIALS` trials with values, or where all values are equal.
    """
    scored = [row for row in rows if row["value"] is not None]
    common = [
        knob
        for knob in knobs
        if all(row[knob.column] is not None for row in scored) and len({row[knob.column] for row in scored}) > 1
    ]
    if len(scored) < LEAST_TRIALS or not common or len({row["value"] for row in scored}) < 2:
        return []
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    spaces = {
        knob.name: FloatDistribution(float(knob.values[0]), float(knob.values[-1]), log=knob.log)
        if knob.numeric
        else CategoricalDistribution([str(value) for value in knob.values])
        for knob in common
    }
    study = optuna.create_study(direction="maximize" if mode == "max" else "minimize")
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={k.name: float(row[k.column]) if k.numeric else str(row[k.column]) for k in common},
                distributions=spaces,
                value=row["value"],
            )
            for row in scored
        ]
    )
    evaluators = {"fANOVA": FanovaImportanceEvaluator(seed=seed), "PED-ANOVA": PedAnovaImportanceEvaluator()}
    found = []
    for method, evaluator in evaluators.items():
        for name, share in get_param_importances(study, evaluator=evaluator).items():
            found.append({"knob": name, "method": method, "importance": float(share)})
    return found
