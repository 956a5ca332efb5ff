from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from searchers.surrogate.fitting import Table, fit
from searchers.surrogate.learned import Context, Learned, Shape

RATES = [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2]
SHAPE = Shape(0.8, 0.4)


def table(best: float, family: str, number: int = 0, *, size: float = 1e9, slope: float = 0.0, **knobs: Any) -> Table:
    """Runs whose best rate is `best` (rank / 16)^slope, at alpha = rank unless told otherwise."""
    configs = [{"rank": r, "batch_size": 64, "learning_rate": x, **knobs} for r in (4, 16, 64) for x in RATES]
    places = [np.log10(best) + slope * np.log10(c["rank"] / 16) for c in configs]
    values = [float(SHAPE(np.log10(c["learning_rate"]) - p)) for c, p in zip(configs, places, strict=True)]
    return Table(f"{family}{number}", "made", Context(50_000, size, family), configs, values)


def exponent(learned: Learned, name: str) -> float:
    return learned.coefficient(name)


def test_without_runs_the_published_numbers_remain() -> None:
    learned = fit([])
    assert 10 ** exponent(learned, "constant") == pytest.approx(3e-4)
    assert learned.tables == {} and learned.families == {}


def test_the_best_rate_is_learned_from_the_curves() -> None:
    learned = fit([table(1e-3, family) for family in ("a", "b", "c")])
    row = learned.describe({"rank": 16, "batch_size": 64}, Context(50_000, 1e9), 1.0)
    assert 10 ** float(learned.location(row[None])[0]) == pytest.approx(1e-3, rel=0.3)


def test_more_tables_make_surer() -> None:
    row = fit([]).describe({"rank": 16}, Context(50_000, 1e9), 1.0)
    spreads = [float(fit([table(1e-3, f"f{n}") for n in range(count)]).spread(row[None])[0]) for count in (1, 6)]
    assert spreads[1] < spreads[0]


@pytest.mark.parametrize("slope", [-0.4, 0.0])
def test_two_regimes_of_alpha_are_told_apart(slope: float) -> None:
    falling = [table(5e-4, f"a{n}", slope=slope) for n in range(3)]
    level = [table(5e-4, f"b{n}", alpha=32) for n in range(3)]
    learned = fit([*falling, *level])
    assert exponent(learned, "rank") == pytest.approx(slope, abs=0.12)
    # At a fixed alpha the scale falls as the rank grows.
    assert exponent(learned, "rank") - exponent(learned, "scale") == pytest.approx(0.0, abs=0.1)


def test_a_diverged_run_does_not_blur_what_is_near_the_best() -> None:
    plain = table(1e-3, "a")
    values = [v - 1000.0 if c["learning_rate"] > 3e-3 else v for c, v in zip(plain.configs, plain.values, strict=True)]
    blown = Table(plain.name, plain.source, plain.context, plain.configs, values)
    row = fit([]).describe({"rank": 16}, Context(50_000, 1e9), 1.0)
    places = [float(fit([one]).location(row[None], "a")[0]) for one in (plain, blown)]
    assert places[1] == pytest.approx(places[0], abs=0.15)


def test_a_family_with_rates_of_its_own_is_told_apart() -> None:
    learned = fit([table(1e-3, "high", n) for n in range(3)] + [table(1e-4, f"f{n}") for n in range(3)])
    assert learned.families["high"][0] > 0.1
    row = learned.describe({"rank": 16}, Context(50_000, 1e9), 1.0)
    assert learned.location(row[None], "high")[0] > learned.location(row[None], "stranger")[0]
    assert learned.spread(row[None], "high")[0] < learned.spread(row[None], "stranger")[0]


def test_what_only_a_publication_of_the_left_out_runs_says_is_not_believed_beforehand() -> None:
    read, unread = fit([]), fit([], unread=["learning-rate-matters"])
    assert exponent(read, "rank") < 0 and exponent(unread, "rank") == 0
    assert exponent(read, "variant pissa") < -0.3 and exponent(unread, "variant pissa") == 0
    # Others say it, too.
    assert exponent(unread, "batch") == exponent(read, "batch") and exponent(unread, "variant full") == -1
