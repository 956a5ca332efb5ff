from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from searchers.language import LanguageBOSearch
from searchers.space import Space, default_space
from searchers.testing import Make, SearcherConformance, drive, objective, small_space

FAST: dict[str, Any] = {"fit_steps": 3, "candidates": 16, "projection_dim": 4, "dtype": "float32", "cache_mib": 64}


class TestLanguageBOSearch(SearcherConformance):
    @pytest.fixture
    def make(self, tiny_llm: Path) -> Make:
        return lambda **options: LanguageBOSearch(llm=tiny_llm, local=True, **FAST, **options)

    @pytest.mark.xfail(raises=KeyError, strict=False, reason="prompts name every knob, also inactive ones")
    def test_conditional_knobs_are_proposed_where_they_apply(self, make: Make, options: dict[str, Any]) -> None:
        super().test_conditional_knobs_are_proposed_where_they_apply(make, options)

    @pytest.mark.xfail(raises=KeyError, strict=False, reason="prompts name every knob, also inactive ones")
    def test_conditional_configurations_are_recorded_enqueued_and_restored(
        self, make: Make, options: dict[str, Any], tmp_path: Path
    ) -> None:
        super().test_conditional_configurations_are_recorded_enqueued_and_restored(make, options, tmp_path)


def test_a_searcher_made_without_any_argument_restores(tiny_llm: Path, tmp_path: Path) -> None:
    first = LanguageBOSearch(llm=tiny_llm, local=True, space=small_space(), metric="score", mode="max", seed=1, **FAST)
    drive(first, list("abc"))
    first.save(str(tmp_path / "state"))
    blank = LanguageBOSearch()
    blank.restore(str(tmp_path / "state"))
    assert drive(blank, list("de")) == drive(first, list("de"))


def test_minimising_is_maximising_the_negative(tiny_llm: Path) -> None:
    common: dict[str, Any] = {"llm": tiny_llm, "local": True, "space": small_space(), "metric": "score", **FAST}
    up = drive(LanguageBOSearch(mode="max", **common), list("abcdef"))
    down = drive(LanguageBOSearch(mode="min", **common), list("abcdef"), lambda c: -objective(c))
    assert up == down


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"candidates": -1}, "candidates: -1 is too small"),
        ({"fit_steps": 0}, "fit_steps: 0 is too small"),
        ({"dropout": 1.0}, "dropout: 1.0 is outside"),
        ({"patience_s": float("nan")}, "patience_s: nan is too small"),
        ({"mode": "up"}, "mode: 'up' is unknown"),
        ({"worst": float("inf")}, "worst: inf is not finite"),
    ],
)
def test_options_outside_their_domain_are_refused(option: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LanguageBOSearch(**option)


def test_without_a_language_model_it_says_so() -> None:
    searcher = LanguageBOSearch(space=small_space(), metric="score", mode="max", local=True, n_initial=1)
    drive(searcher, ["a"])
    with pytest.raises(ValueError, match="llm: not set"):
        searcher.suggest("b")


# -- with a real actor -------------------------------------------------------------------------------------------------


@pytest.fixture
def searcher(tiny_llm: Path, ray_local: None) -> Iterator[LanguageBOSearch]:
    made = LanguageBOSearch(llm=tiny_llm, space=default_space(), metric="score", mode="max", seed=2, **FAST)
    yield made
    made.close()


def ask(searcher: LanguageBOSearch, trial_id: str, timeout_s: float = 40.0) -> dict[str, Any]:
    """Suggests as Tune does: again after None."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        config = searcher.suggest(trial_id)
        if config is not None:
            assert isinstance(config, dict)
            return config
        time.sleep(0.02)
    raise AssertionError("no suggestion came")


def value(config: dict[str, Any]) -> dict[str, float]:
    return {"score": -abs(config["rank"] - 8) / 100 - config["dropout"]}


def test_suggestions_are_staged_survive_a_killed_actor_and_never_stall(searcher: LanguageBOSearch) -> None:
    space = default_space()
    given = []
    for name in "ab":
        given.append(searcher.suggest(name))
    assert all(isinstance(config, dict) for config in given), "initial points need no actor"
    for name, config in zip("ab", list(given), strict=True):
        searcher.on_trial_complete(name, value(config))
    for name in "cd":
        given.append(searcher.suggest(name))
    assert None not in given, "while the model loads, free slots get random points"
    # Two are running, the model is not there yet: ask again, at once.
    assert searcher.suggest("e") is None
    assert max(searcher.suggest_seconds) < 2.0
    given.append(ask(searcher, "e"))

    # With the batch staged, an answer is immediate.
    searcher.on_trial_complete("c", value(given[2]))
    before = len(searcher.suggest_seconds)
    given.append(ask(searcher, "f"))
    assert max(searcher.suggest_seconds[before:]) < 0.5

    # A clone carries the state and not the actor.
    clone = pickle.loads(pickle.dumps(searcher))
    assert clone._actor is None and clone.pending == searcher.pending
    assert [o.index for o in clone.observations] == [o.index for o in searcher.observations]

    pid = searcher.actor_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    searcher.on_trial_complete("d", value(given[3]))
    searcher.on_trial_complete("e", value(given[4]))
    searcher._staged.clear()
    given.append(ask(searcher, "g"))
    assert searcher.actor_pid() not in (None, pid)
    assert len(searcher.observations) == 5
    assert len({space.key(config) for config in given}) == 7

    # Patience: a stale batch is left alone while a fresh one is on its way.
    searcher.patience_s = 30.0
    searcher.on_trial_complete("f", value(given[5]))
    results = searcher._results
    given.append(ask(searcher, "h"))
    assert searcher._staged_from == results

    # With nothing running, suggest itself waits instead of leaving Tune to sleep.
    for name, config in zip("gh", given[6:], strict=True):
        searcher.on_trial_complete(name, value(config))
    searcher._staged.clear()
    assert isinstance(searcher.suggest("i"), dict)


def test_a_surrogate_that_cannot_start_is_an_error_with_its_cause(tmp_path: Path, ray_local: None) -> None:
    broken = LanguageBOSearch(
        llm=tmp_path,
        space=Space.from_dict({"rank": [1, 2, 4]}),
        metric="score",
        mode="max",
        synchronous=True,
        n_initial=1,
    )
    drive(broken, ["a"], lambda config: 0.5)
    with pytest.raises(RuntimeError, match="is no model folder"):
        broken.suggest("b")
