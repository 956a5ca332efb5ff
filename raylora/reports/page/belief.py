"""What a surrogate believes of a run's trials: each predicted from all others."""

from __future__ import annotations

from typing import Any

from raylora.reports.page.datasets import Row, page_key
from raylora.reports.page.facts import RunFacts

# Searchers whose model is fitted here as they fit it; of `language` the knobs' part alone, without the model's reading.
OWN = {"gp": "its own Gaussian process", "latent": "its own Gaussian process on learned features"}
STAND_IN = {"language", "optuna_gp"}
LEAST_TRIALS = 8
_STEPS = 50


def surrogate_of(run: RunFacts) -> str:
    """In words, the model that the predictions of a run come from; empty for a searcher that has none."""
    searcher = run.spec.search.searcher
    if searcher in OWN:
        return OWN[searcher]
    if searcher in STAND_IN:
        return "a Gaussian process on the knobs alone, which stands in for the searcher's richer model"
    return ""


def belief_rows(run: RunFacts) -> list[Row]:
    """Leave-one-out predictions of the finished trials, in the metric's unit; nothing for a searcher without a model.

    The model is fitted once to all trials; each value is then predicted from the others at these hyperparameters
    (Rasmussen and Williams, 2006, equation 5.12): with A = K + noise I and y' = y - mean,

        predicted_i = y_i - [A^-1 y']_i / [A^-1]_ii,    variance_i = 1 / [A^-1]_ii.

    Imports torch, for runs that have a model alone.
    """
    if not surrogate_of(run):
        return []
    space = run.spec.to_space()
    known = [(trial, space.encode(trial.config), run.value(trial)) for trial in run.trials if trial.config in space]
    known = [one for one in known if one[2] is not None and one[0].status == "finished"]
    values = [float(value) for _, _, value in known if value is not None]
    if len(known) < LEAST_TRIALS or len(set(values)) < 2:
        return []
    import numpy as np

    mean, deviation = float(np.mean(values)), float(np.std(values))
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # matrices this small cost more to share than to work through
    try:
        predicted, spread = _leave_one_out(run, space, [index for _, index, _ in known], values)
    finally:
        torch.set_num_threads(threads)
    rows = []
    for (trial, _, value), at, sd in zip(known, predicted, spread, strict=True):
        centre = mean + deviation * at
        rows.append(
            {
                "key": page_key(run, trial),
                "run": run.name,
                "trial": trial.number,
                "variant": str(trial.config.get("variant", "")),
                "recipe": " ".join(f"{name}={given}" for name, given in trial.config.items()),
                "observed": value,
                "predicted": centre,
                "low": centre - 2 * deviation * sd,
                "high": centre + 2 * deviation * sd,
            }
        )
    return rows


def _leave_one_out(
    run: RunFacts, space: Any, indices: list[int], values: list[float]
) -> tuple[list[float], list[float]]:
    """Standardised predictions and their standard deviations."""
    import torch

    from searchers.surrogate.encoded_gp import MixedEncoding, fit_latent, fit_mixed, standardise

    y = standardise(values)
    if run.spec.search.searcher == "latent":
        x = torch.from_numpy(space.features(indices))
        options = run.spec.search.options
        width, steps = int(options.get("width", 64)), int(options.get("fit_steps", 100))
        model = fit_latent(x, y, width=width, steps=steps, seed=run.spec.seed * 1000 + len(y))
    else:
        encoding = MixedEncoding(space)
        x = encoding(indices)
        model = fit_mixed(x, y, encoding, _STEPS)
    with torch.no_grad():
        z = x if model.features is None else model.features(x)
        covariance = model.kernel(z).to_dense() + (model.noise + 1e-8) * torch.eye(len(y), dtype=torch.float64)
        inverse = torch.linalg.inv(covariance)
        left = inverse @ (y - model.mean)
        predicted = y - left / inverse.diagonal()
        spread = inverse.diagonal().clamp_min(1e-12).rsqrt()
    return predicted.tolist(), spread.tolist()
