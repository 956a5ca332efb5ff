"""The recipe that is expected to be best before any trial, from the model's size and what recorded runs taught."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from raylora.errors import UserError

if TYPE_CHECKING:
    from searchers.surrogate.advice import Advice
    from searchers.surrogate.learned import Context, Learned

# What is chosen from: the range that recorded runs have explored.
RANKS = (1, 2, 4, 8, 16, 32, 64, 128)
BATCHES = (4, 8, 16, 32, 64, 128)
# At 32 most models were recorded, and the best rate hardly depends on the rank there.
ALPHA = 32.0
RATES = tuple(float(f"{step}e{power}") for power in (-6, -5, -4, -3) for step in (1, 1.5, 2, 3, 4, 5, 6, 8))
SAMPLES = 50_000
# Of the recorded sweeps, most had 780.
_STEPS = 600
_ORDER = ("variant", "rank", "alpha", "batch_size", "learning_rate", "dropout")
_WORDS = {
    "constant": "the best rate at rank 16, alpha 16, batch 64, 50,000 samples, 1B parameters",
    "rank": "rank",
    "scale": "alpha / rank",
    "batch": "batch size",
    "samples": "training samples",
    "size_below_10b": "active parameters, up to 10B",
    "size_beyond_10b": "active parameters, beyond 10B",
    "short": "a run of few steps",
    "family": "models of this family",
}


@dataclass(frozen=True)
class Recommendation:
    """What `raylora recommend` answers.

    Attributes:
        recipe: variant, rank, alpha, batch_size, learning_rate, dropout.
        low, high: the best rate lies between them with probability 0.8.
        reasons: one line each.
        about: the model as it was read: family, parameters, active_parameters, samples.

    Example:
        >>> raylora.recommend("smollm2-135m", samples=20_000).recipe["variant"]
        'lora'
    """

    recipe: Mapping[str, Any]
    low: float
    high: float
    reasons: Sequence[str]
    about: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` writes them."""
        rate = {"low": self.low, "high": self.high, "probability": 0.8}
        return {"recipe": dict(self.recipe), "learning_rate": rate, "reasons": list(self.reasons), **self.about}


def recommend(
    model: str,
    *,
    data: str | None = None,
    samples: int | None = None,
    variant: str = "lora",
    rank: int | None = None,
    alpha: float | None = None,
    batch_size: int | None = None,
) -> Recommendation:
    """The recipe expected to be best before any trial.

    Args:
        model: alias, folder or hub id; its config alone is read.
        data: rows to train on, counted where `samples` is not given.
        samples: rows that training sees, epochs included.
        variant: of LoRA.
        rank, alpha, batch_size: fixed where given.

    Raises:
        UserError: an unknown model, data or variant, or a number outside its domain.

    Example:
        >>> found = raylora.recommend("smollm2-135m", samples=20_000)
        >>> found.low < found.recipe["learning_rate"] < found.high
        True
    """
    from raylora.run.sizes import size_of
    from searchers.surrogate.advice import advise
    from searchers.surrogate.learned import Context, shipped

    for name, value in (("samples", samples), ("rank", rank), ("alpha", alpha), ("batch-size", batch_size)):
        if value is not None and not value > 0:
            raise UserError.at(f"--{name}", f"{value}; allowed: above 0", value=value)
    scales = _scales(variant)
    size = size_of(model)
    told = _count(data) if samples is None and data is not None else samples
    context = Context(told or SAMPLES, size.active, size.family)
    learned = shipped()
    ranks = [rank] if rank else [r for r in RANKS if r <= size.narrowest] or [RANKS[0]]
    batch = batch_size or _batch(told or SAMPLES)
    configs = [
        {
            "variant": variant,
            "rank": r,
            "alpha": alpha or ALPHA,
            "batch_size": batch,
            "learning_rate": lr,
            "dropout": 0.0,
        }
        for r, lr in product(ranks, RATES)
    ]
    advice = advise(configs, learned, context, scales)
    about = {
        "model": model,
        "family": size.family,
        "parameters": size.parameters,
        "active_parameters": size.active,
        "samples": told,
        "fitted_to": dict(learned.tables),
    }
    recipe = {name: advice.config[name] for name in _ORDER}
    return Recommendation(recipe, advice.low, advice.high, _reasons(advice, learned, context, scales), about)


def _batch(samples: int) -> int:
    """The largest that leaves as many steps as recorded sweeps had; the smallest where none does."""
    return max([b for b in BATCHES if samples / b >= _STEPS], default=BATCHES[0])


def _scales(variant: str) -> dict[str, str]:
    from trainables.variants import available, scale_rules

    if variant not in available():
        allowed = list(available())
        raise UserError.at("--variant", f"{variant!r}; allowed: {', '.join(allowed)}", value=variant, allowed=allowed)
    return scale_rules()


def _count(data: str) -> int:
    from raylora.data.readers import read
    from raylora.data.sources import open_splits

    parts = open_splits(data)["train"].parts
    count = sum(part.rows if part.rows is not None else sum(1 for _ in read(part)) for part in parts)
    if not count:
        raise UserError.at("--data", f"{data!r}: has no rows to train on", value=data)
    return count


def _reasons(advice: Advice, learned: Learned, context: Context, scales: Mapping[str, str]) -> list[str]:
    from searchers.surrogate.advice import reasons
    from searchers.surrogate.facts import scale_of

    config = advice.config
    scale = scale_of(config, scales.get(str(config["variant"])))
    lines = []
    for one in reasons(config, learned, context, scale):
        of = _WORDS.get(one["of"], str(one["of"]))
        if one["of"] == "constant":
            lines.append(f"{one['factor']:.1e}: {of}")
        elif one["exponent"] is None:
            lines.append(f"x {one['factor']:.2f}: {of}")
        else:
            lines.append(f"x {one['factor']:.2f}: {of} (exponent {one['exponent']:.2f} ± {one['uncertainty']:.2f})")
    lines.append(
        f"= {advice.expected:.1e} is where the best rate is expected; one above it costs more than one below, "
        f"hence {config['learning_rate']:g}"
    )
    lines.append(
        f"rank: a doubling adds {learned.rank_gain:.3f} of what the right rate does, as far as runs were recorded"
    )
    lines.append(f"alpha {ALPHA:g}: where most models were recorded; the best rate hardly depends on the rank there")
    lines.append(
        f"batch size: the largest that leaves {_STEPS} steps is the fastest; a halving adds {-learned.batch_gain:.3f}"
    )
    return lines
