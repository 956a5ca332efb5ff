from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from raylora.bench.searchers import Entry, _figures, bench_searchers, parse_searchers, run_once
from raylora.data.grids import Grid, load_grid
from raylora.errors import UserError


@pytest.fixture
def grid(tmp_path) -> Grid:
    """Eight configurations, of which the last is the best; one is missing from the product."""
    rows = [{"rank": rank, "learning_rate": rate} for rank in (2, 4, 8) for rate in (1e-4, 1e-3, 1e-2)][1:]
    table = pd.DataFrame(rows).assign(accuracy=[0.1 * n for n in range(8)])
    table.to_csv(tmp_path / "made.csv", index=False)
    return load_grid(tmp_path / "made.csv")


def test_options_belong_to_the_searcher_before_them() -> None:
    assert parse_searchers("random, language:paper,pool=16,token=off,gp:n_initial=3") == [
        Entry("random", "random", {}),
        Entry("language:paper,pool=16,token=off", "language", {"preset": "paper", "pool": 16, "token": False}),
        Entry("gp:n_initial=3", "gp", {"n_initial": 3}),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pool=3,random", "option 'pool=3' stands before any searcher"),
        ("randm", "'randm': no such searcher; allowed: .*random"),
        (" , ", "is empty"),
    ],
)
def test_a_mistake_in_the_list_is_named(text: str, message: str) -> None:
    with pytest.raises(UserError, match=f"--searchers: {message}"):
        parse_searchers(text)


def test_regret_falls_from_trial_to_trial_and_ends_at_the_best(grid) -> None:
    regret = run_once(Entry("random", "random", {}), grid, seed=0, trials=8)
    assert (np.diff(regret) <= 0).all() and regret[0] > 0 and regret[-1] == 0


def test_a_grid_search_meets_every_row_that_there_is(grid) -> None:
    regret = run_once(Entry("grid", "grid", {}), grid, seed=0, trials=8)
    assert regret[-1] == 0 and regret[-2] > 0


def test_an_option_that_the_searcher_has_not_is_named(grid) -> None:
    with pytest.raises(UserError, match=r"--searchers: gp,colour=1: .*colour"):
        run_once(Entry("gp,colour=1", "gp", {"colour": 1}), grid, seed=0, trials=1)


def test_figures_are_means_over_seeds_with_their_errors() -> None:
    found = _figures(np.array([[1.0, 0.5], [0.5, 0.0]]))
    assert (found["auc"], found["auc_se"]) == (0.5, pytest.approx(0.25))
    assert found["regret"] == {"1": 0.75} and found["regret_se"] == {"1": pytest.approx(0.25)}
    assert _figures(np.array([[1.0, 0.5]]))["auc_se"] is None


def test_more_trials_than_rows_are_refused_before_anything_starts(grid, tmp_path) -> None:
    with pytest.raises(UserError, match="--trials: 9: made has only 8 rows"):
        bench_searchers([str(tmp_path / "made.csv")], "random", trials=9)
