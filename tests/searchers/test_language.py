from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from searchers.language import LanguageBOSearch
from searchers.space import Space, paper_space
from searchers.surrogate.actor import Proposal
from searchers.surrogate.presets import make_setup
from searchers.testing import Make, SearcherConformance, drive, objective, small_space

FAST: dict[str, Any] = {"language": True, "fit_steps": 3, "projection": 4, "dtype": "float32", "cache": False}
SEARCH: dict[str, Any] = {"space": small_space(), "metric": "score", "mode": "max"}


class TestLanguageBOSearch(SearcherConformance):
    @pytest.fixture
    def make(self) -> Make:
        return lambda **options: LanguageBOSearch(local=True, fit_steps=3, **options)

    def test_another_seed_gives_other_suggestions(self, make: Make, options: Mapping[str, object]) -> None:
        # Knowledge begins at the same place whatever the seed.
        super().test_another_seed_gives_other_suggestions(make, {**options, "knowledge": False})


class TestWithLanguage(SearcherConformance):
    @pytest.fixture
    def make(self, tiny_llm: Path) -> Make:
        return lambda **options: LanguageBOSearch(llm=tiny_llm, local=True, **FAST, **options)


class TestPublishedAlgorithm(SearcherConformance):
    @pytest.fixture
    def make(self, tiny_llm: Path) -> Make:
        return lambda **options: LanguageBOSearch(llm=tiny_llm, local=True, preset="paper", **FAST, **options)


def test_a_searcher_made_without_any_argument_restores(tiny_llm: Path, tmp_path: Path) -> None:
    first = LanguageBOSearch(llm=tiny_llm, local=True, seed=1, **SEARCH, **FAST)
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


def test_without_language_no_model_is_needed() -> None:
    searcher = LanguageBOSearch(local=True, preset="paper", language=False, knobs=True, fit_steps=3, **SEARCH)
    suggested = drive(searcher, [f"t{i}" for i in range(12)])
    assert len({small_space().key(config) for config in suggested}) == 12


def test_standard_errors_reach_the_surrogate() -> None:
    searcher = LanguageBOSearch(local=True, language=False, **SEARCH)
    searcher.suggest("a")
    searcher.on_trial_complete("a", {"score": 0.5, "score_se": 0.1})
    assert [(v, e) for _, v, e in searcher.evidence] == [(0.5, 0.1)]


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"preset": "fast"}, "preset: 'fast' is unknown; use default or paper"),
        ({"candidates": 16}, "candidates: the language searcher has no such option; use .*acquisition.*"),
        ({"pool": 0}, "pool: 0 is not a whole number of at least 1"),
        ({"subset": -1}, "subset: -1 is not a whole number of at least 1"),
        ({"fit_steps": 0}, "fit_steps: 0 is not a whole number of at least 1"),
        ({"fit_steps": True}, "fit_steps: True is not a whole number of at least 1"),
        ({"token_every": 0}, "token_every: 0 is not a whole number of at least 1"),
        ({"kv_budget_gb": float("nan")}, "kv_budget_gb: nan is not a number of at least 0"),
        ({"num_gpus": -1}, "num_gpus: -1 is not a number of at least 0"),
        ({"threads": 0}, "threads: 0 is too small"),
        ({"dropout": 1.0}, "dropout: 1.0 is outside"),
        ({"prior_shift": 0.0}, "prior_shift: 0.0 is not above 0"),
        ({"projection": 0}, "projection: 0 is no width"),
        ({"projection": [4, 4]}, r"projection: \[4, 4\] is no width"),
        ({"acquisition": "pi"}, "acquisition: 'pi' is unknown; use logei, ei, ucb, thompson"),
        ({"prompt_style": "long"}, "prompt_style: 'long' is unknown; use default, paper, plain"),
        ({"language": False, "knobs": False}, "language, knobs: both are off"),
        ({"n_initial": 0}, "n_initial: 0 is too small"),
        ({"extra_random": -1}, "extra_random: -1 is too small"),
        ({"stage": 0}, "stage: 0 is too small"),
        ({"mode": "up"}, "mode: 'up' is unknown"),
        ({"worst": float("inf")}, "worst: inf is not finite"),
        ({"space": small_space(), "prior": {"colour": 1}}, "prior.colour: no such knob"),
    ],
    ids=str,
)
def test_options_outside_their_domain_are_refused_by_name(option: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LanguageBOSearch(**option)


@pytest.mark.parametrize(("given", "width"), [(32, 32), ([64], 64), (None, None), (False, None)], ids=str)
def test_the_projection_is_a_width_or_none(given: Any, width: int | None) -> None:
    assert make_setup({"projection": given}).projection == width


def test_options_win_over_the_preset() -> None:
    setup = LanguageBOSearch(preset="paper", acquisition="ucb").setup
    assert (setup.acquisition, setup.token, setup.knobs) == ("ucb", True, False)


def test_without_a_language_model_it_says_so() -> None:
    searcher = LanguageBOSearch(local=True, language=True, **SEARCH)
    drive(searcher, ["a"])
    with pytest.raises(ValueError, match="llm: not set"):
        searcher.suggest("b")


# -- with an actor that answers when told to ---------------------------------------------------------------------------


class SlowActor:
    """Stands in for the Ray actor: a request is answered by `answer`, never by itself."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.answers: dict[int, Proposal | Exception] = {}
        self.timeouts: list[float | None] = []
        self.warmed = 0
        self.propose = SimpleNamespace(remote=self._propose)
        self.warm = SimpleNamespace(remote=self._warm)

    def _propose(self, *question: Any) -> int:
        self.asked.append(question)
        return len(self.asked) - 1

    def _warm(self) -> int:
        self.warmed += 1
        return -1

    def wait(self, requests: list[int], timeout: float | None = None) -> tuple[list[int], list[int]]:
        self.timeouts.append(timeout)
        ready = [r for r in requests if r in self.answers]
        return ready, [r for r in requests if r not in self.answers]

    def get(self, request: int) -> Proposal:
        answer = self.answers[request]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def answer(self, staged: list[int], branches: dict[int, list[tuple[float, list[int]]]] | None = None) -> None:
        """Answers the latest request."""
        self.answers[len(self.asked) - 1] = Proposal(staged, branches or {}, {"asked": len(self.asked)}, {})  # type: ignore[dict-item]

    def fail(self) -> None:
        self.answers[len(self.asked) - 1] = RuntimeError("out of luck")


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> SlowActor:
    made = SlowActor()
    monkeypatch.setattr("ray.wait", made.wait)
    monkeypatch.setattr("ray.get", made.get)
    monkeypatch.setattr(LanguageBOSearch, "_ensure_actor", lambda self: made)
    return made


def search(**options: Any) -> LanguageBOSearch:
    """A searcher with one result, of configuration `first(searcher)`, and nothing running."""
    searcher = LanguageBOSearch(**{"language": False, "seed": 0, "extra_random": 0, **SEARCH, **options})
    finish(searcher, "first", 0.5, start=True)
    return searcher


def finish(searcher: LanguageBOSearch, name: str, value: float, start: bool = False) -> None:
    if start:
        assert searcher.suggest(name) is not None
    searcher.on_trial_complete(name, {"score": value})


def suggested(searcher: LanguageBOSearch, name: str) -> int | None:
    config = searcher.suggest(name)
    return None if config is None else small_space().encode(config)  # type: ignore[arg-type]


def free(searcher: LanguageBOSearch) -> list[int]:
    return [i for i in range(12) if i not in searcher._seen]


def test_suggest_never_waits(actor: SlowActor) -> None:
    searcher = search(extra_random=2)
    given = [searcher.suggest(name) for name in "abc"]
    assert None not in given[:2] and given[2] is None
    actor.answer(free(searcher)[:3])
    assert searcher.suggest("c") is not None
    finish(searcher, "a", 0.7)
    searcher.on_trial_result("b", {"score": 0.1})
    searcher.suggest("d")
    assert actor.timeouts and set(actor.timeouts) == {0.0}
    assert len(searcher.suggest_seconds) == 6


def test_the_model_is_loaded_while_the_first_trial_runs(actor: SlowActor) -> None:
    LanguageBOSearch(language=False, **SEARCH).suggest("a")
    assert actor.warmed == 1 and not actor.asked


def test_a_result_is_a_question_to_the_actor(actor: SlowActor) -> None:
    searcher = search()
    data, pending, k, seed, state, exclude, branch = actor.asked[0]
    assert [(v, e) for _, v, e in data] == [(0.5, 0.0)] and pending == [] and exclude == []
    assert (k, seed, state, branch) == (2, 0, None, True)
    assert searcher._observations.keys() == {data[0][0]}


def test_trials_one_after_the_other_each_know_the_result_before(actor: SlowActor) -> None:
    searcher = search(extra_random=1)
    others = free(searcher)
    running = suggested(searcher, "a")  # a further first point
    others.remove(running)
    for name, outcome, value in (("a", 0, 0.1), ("b", 1, 0.9), ("c", 0, 0.2)):
        # The one question of this trial, asked as it started, so that it is about its outcomes.
        assert actor.asked[-1][1] == [running]
        low, high = others[:2]
        actor.answer([others[-1]], {running: [(0.1, [low]), (0.8, [high])]})
        finish(searcher, name, value)
        running = suggested(searcher, chr(ord(name) + 1))
        assert running == (low, high)[outcome]
        others.remove(running)
    assert searcher.fresh == [True] * 3 and len(actor.asked) == 4


def test_what_is_staged_is_handed_out_in_its_order(actor: SlowActor) -> None:
    searcher = search()
    batch = free(searcher)[3:6]
    actor.answer(batch)
    assert [suggested(searcher, name) for name in "abc"] == batch
    assert searcher.fresh == [True] * 3


def test_a_newer_batch_replaces_an_older_one(actor: SlowActor) -> None:
    searcher = search()
    old, new = free(searcher)[:4], free(searcher)[6:8]
    actor.answer(old)
    assert suggested(searcher, "a") == old[0]
    actor.answer(new)
    assert suggested(searcher, "b") == new[0]


def test_an_older_batch_does_while_there_is_no_newer_one(actor: SlowActor) -> None:
    searcher = search()
    batch = free(searcher)[:3]
    actor.answer(batch)
    assert suggested(searcher, "a") == batch[0]
    finish(searcher, "a", 0.1)
    assert suggested(searcher, "b") == batch[1]
    assert searcher.fresh == [True, False]


def test_what_has_been_tried_since_is_not_handed_out(actor: SlowActor) -> None:
    searcher = search()
    batch = free(searcher)[:3]
    actor.answer(batch)
    searcher.exclude(batch[:2])
    assert suggested(searcher, "a") == batch[2]


def test_what_runs_and_what_is_excluded_is_part_of_the_question(actor: SlowActor) -> None:
    searcher = search()
    batch = free(searcher)[:3]
    actor.answer(batch)
    suggested(searcher, "a")
    actor.answer(batch)
    gone = free(searcher)[-1]
    searcher.exclude([gone])
    searcher.on_trial_result("a", {"score": 0.1})
    assert [q[1] for q in actor.asked] == [[], batch[:1], batch[:1]]
    assert [q[5] for q in actor.asked] == [[], [], [gone]]


def test_parameters_go_on_from_the_last_answer(actor: SlowActor) -> None:
    searcher = search()
    actor.answer(free(searcher)[:3])
    suggested(searcher, "a")
    assert [q[4] for q in actor.asked] == [None, {"asked": 1}]


@pytest.mark.parametrize(("mode", "sign"), [("max", 1.0), ("min", -1.0)])
@pytest.mark.parametrize(("value", "wanted"), [(0.0, 0), (0.45, 1), (5.0, 2)])
def test_the_branch_is_that_of_the_nearest_outcome(
    actor: SlowActor, mode: str, sign: float, value: float, wanted: int
) -> None:
    searcher = search(mode=mode)
    running, *others = free(searcher)
    actor.answer([running, others[9]])
    assert suggested(searcher, "a") == running
    actor.answer([others[9]], {running: [(0.2, [others[0]]), (0.5, [others[1]]), (0.8, [others[2]])]})
    finish(searcher, "a", sign * value)
    assert suggested(searcher, "b") == others[wanted]
    assert searcher.fresh == [True, True]


def test_a_result_that_came_before_the_answer_chooses_its_branch_too(actor: SlowActor) -> None:
    searcher = search()
    running, *others = free(searcher)
    actor.answer([running])
    suggested(searcher, "a")
    finish(searcher, "a", 0.9)
    actor.answer([others[5]], {running: [(0.1, [others[0]]), (0.8, [others[1]])]})
    assert suggested(searcher, "b") == others[1]


def test_a_failed_trial_chooses_no_branch(actor: SlowActor) -> None:
    searcher = search()
    running, *others = free(searcher)
    actor.answer([running])
    suggested(searcher, "a")
    actor.answer([others[5]], {running: [(0.1, [others[0]]), (0.8, [others[1]])]})
    searcher.on_trial_complete("a", None, error=True)
    assert suggested(searcher, "b") == others[5]


def test_a_request_that_fails_is_made_again(actor: SlowActor) -> None:
    searcher = search(extra_random=0)
    batch = free(searcher)[:2]
    actor.fail()
    assert searcher.suggest("a") is None
    assert len(actor.asked) == 2 and actor.asked[1][:5] == actor.asked[0][:5]
    actor.answer(batch)
    assert suggested(searcher, "a") == batch[0]
    assert searcher._failures == 0


def test_an_actor_that_always_fails_is_an_error_with_its_cause(actor: SlowActor) -> None:
    searcher = search(extra_random=0)
    for _ in range(2):
        actor.fail()
        assert searcher.suggest("a") is None
    actor.fail()
    with pytest.raises(RuntimeError, match="failed 3 times in a row: out of luck"):
        searcher.suggest("a")


def test_nothing_is_asked_while_nothing_has_changed(actor: SlowActor) -> None:
    searcher = search(extra_random=0)
    actor.answer([])
    for _ in range(3):
        searcher.on_trial_result("stranger", {"score": 0.1})
    assert len(actor.asked) == 1


def test_a_batch_is_for_one_more_than_run_at_once(actor: SlowActor) -> None:
    searcher = LanguageBOSearch(language=False, extra_random=0, **SEARCH)
    assert searcher.set_max_concurrency(4) is False
    finish(searcher, "a", 0.5, start=True)
    assert actor.asked[0][2] == 5
    finish(LanguageBOSearch(language=False, extra_random=0, stage=3, **SEARCH), "a", 0.5, start=True)
    assert actor.asked[1][2] == 3


def test_synchronous_waits_for_the_answer(actor: SlowActor, monkeypatch: pytest.MonkeyPatch) -> None:
    searcher = search(synchronous=True)
    best = free(searcher)[4]
    usual = actor._propose
    monkeypatch.setattr(actor.propose, "remote", lambda *q: [usual(*q), actor.answer([best])][0])
    assert suggested(searcher, "a") == best
    assert actor.timeouts == [None]


def test_a_copy_has_the_state_and_not_the_actor(actor: SlowActor) -> None:
    searcher = search()
    actor.answer(free(searcher)[:3])
    searcher.suggest("a")
    searcher._actor = actor
    clone = pickle.loads(pickle.dumps(searcher))
    assert clone._actor is None and clone._request is None
    assert clone.pending == searcher.pending and clone.observations == searcher.observations
    assert clone._staged == searcher._staged and clone._surrogate == searcher._surrogate


# -- with a real actor -------------------------------------------------------------------------------------------------


@pytest.fixture
def searcher(tiny_llm: Path, ray_local: None) -> Iterator[LanguageBOSearch]:
    made = LanguageBOSearch(
        llm=tiny_llm, space=paper_space(), metric="score", mode="max", seed=2, pool=64, threads=1, **FAST
    )
    yield made
    made.close()


def ask(searcher: LanguageBOSearch, trial_id: str, timeout_s: float = 180.0) -> dict[str, Any]:
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


@pytest.mark.real
def test_suggestions_are_staged_and_survive_a_killed_actor(searcher: LanguageBOSearch) -> None:
    given = {"a": ask(searcher, "a")}
    searcher.on_trial_complete("a", value(given["a"]))
    for name in "bcd":  # two further first points while the model loads, then a staged one
        given[name] = ask(searcher, name)
    searcher.on_trial_complete("b", value(given["b"]))
    assert searcher._any_staged

    pid = searcher.actor_pid()
    assert pid is not None
    searcher._receive(timeout=180.0)
    os.kill(pid, signal.SIGKILL)
    before = searcher.observations
    searcher._staged.clear()
    searcher._branches.clear()
    searcher.on_trial_complete("c", value(given["c"]))
    given["e"] = ask(searcher, "e")
    assert searcher.actor_pid() not in (None, pid)
    assert searcher.observations[:2] == before and len(searcher.observations) == 3
    assert len({paper_space().key(config) for config in given.values()}) == 5


def test_a_surrogate_that_cannot_start_is_an_error_with_its_cause(tmp_path: Path, ray_local: None) -> None:
    broken = LanguageBOSearch(
        llm=tmp_path,
        language=True,
        space=Space.from_dict({"rank": [1, 2, 4]}),
        metric="score",
        mode="max",
        synchronous=True,
    )
    drive(broken, ["a"], lambda config: 0.5)
    with pytest.raises(RuntimeError, match="is no model folder"):
        broken.suggest("b")


def test_embeddings_are_of_the_configurations_asked_for_once_the_model_has_learned(tiny_llm: Path) -> None:
    searcher = LanguageBOSearch(llm=tiny_llm, local=True, **SEARCH, **FAST)
    assert searcher.embeddings([0, 1]) == {}
    drive(searcher, list("abc"))
    assert {name: len(one) for name, one in searcher.embeddings([0, 5, 7]).items()} == dict.fromkeys(
        ("plain", "prompt", "learned"), 3
    )
