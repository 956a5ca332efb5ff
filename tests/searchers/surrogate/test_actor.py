from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from searchers.space import Space, paper_space
from searchers.surrogate.acquisition import ACQUISITIONS
from searchers.surrogate.actor import SurrogateActor
from searchers.surrogate.candidates import Candidates, spread_points
from searchers.surrogate.setup import Setup
from searchers.testing import conditional_objective, conditional_space, objective, small_space

FAST: dict[str, Any] = {"fit_steps": 5, "projection": 4, "dtype": "float32", "threads": None, "cache": False}
KNOBS: dict[str, Any] = {"fit_steps": 5, "language": False, "threads": None}
ALL = range(12)


def actor_of(llm: Path | None, space: Space | None = None, seed: int = 0, **options: Any) -> SurrogateActor:
    setup = Setup(**{**FAST, **options})
    return SurrogateActor(None if llm is None else str(llm), space or small_space(), setup, seed)


def blind(space: Space | None = None, seed: int = 0, **options: Any) -> SurrogateActor:
    """An actor without a language model."""
    return SurrogateActor(None, space or small_space(), Setup(**{**KNOBS, **options}), seed)


@pytest.fixture(scope="module")
def actor(tiny_llm: Path) -> SurrogateActor:
    return actor_of(tiny_llm)


def observed(*indices: int, error: float = 0.0) -> list[tuple[int, float, float]]:
    return [(i, objective(small_space().decode(i)), error) for i in indices]


# -- proposals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [False, True])
@pytest.mark.parametrize("acquisition", ACQUISITIONS)
def test_proposals_are_never_taken_ones(tiny_llm: Path, acquisition: str, token: bool) -> None:
    made = actor_of(tiny_llm, acquisition=acquisition, token=token)
    staged = made.propose(observed(0, 4), [7], 9, seed=1, exclude=[2]).staged
    assert sorted(staged) == sorted(set(ALL) - {0, 4, 7, 2})


def test_proposals_depend_on_the_seed_and_the_question_alone(actor: SurrogateActor, tiny_llm: Path) -> None:
    actor.propose(observed(3, 8, 9), [], 2, seed=5)
    first = actor.propose(observed(0, 4), [7], 3, seed=1)
    again = actor_of(tiny_llm).propose(observed(0, 4), [7], 3, seed=1)
    assert again.staged == first.staged
    assert first.state is not None and again.state is not None
    assert all(np.array_equal(first.state[k], again.state[k]) for k in first.state)


def test_another_seed_is_another_draw() -> None:
    made = blind(paper_space(), acquisition="thompson", pool=300)
    answers = [made.propose([(5, 1.0, 0.0), (9_000, 0.0, 0.0)], [], 3, seed=seed).staged for seed in range(4)]
    assert len({tuple(answer) for answer in answers}) > 1


def test_a_space_that_runs_out_gives_what_is_left(actor: SurrogateActor) -> None:
    assert actor.propose(observed(*range(10)), [10], 5, seed=0).staged == [11]
    assert actor.propose(observed(*ALL), [], 2, seed=0).staged == []
    assert len(actor.propose([], [], 2, seed=0).staged) == 2


@pytest.mark.parametrize("options", [{"warm_start": True}, {}], ids=str)
def test_parameters_go_on_from_the_state_given_where_asked(tiny_llm: Path, options: dict[str, Any]) -> None:
    made = actor_of(tiny_llm, token=True, token_every=1, **options)
    state = made.propose(observed(0, 4), [], 1, seed=1).state
    assert state is not None
    before = {k: v.copy() for k, v in state.items()}
    moved = {**state, "kernel.noise": state["kernel.noise"] + 3.0}
    later = made.propose(observed(0, 4, 6), [], 1, seed=1, state=moved).state
    afresh = made.propose(observed(0, 4, 6), [], 1, seed=1, state=state).state
    assert later is not None and afresh is not None
    assert all(np.array_equal(state[k], before[k]) for k in state), "the caller's arrays are its own"
    assert np.array_equal(later["centre"], state["centre"])
    assert not np.array_equal(later["token"], state["token"])
    gap = float(later["kernel.noise"] - afresh["kernel.noise"])
    assert (gap > 1.0) if options else (gap == 0.0)


@pytest.mark.parametrize(
    "options",
    [{}, {"language": False}, {"knobs": False}, {"knowledge": False}, {"projection": None}, {"priors": False}],
    ids=str,
)
def test_it_finds_good_configurations_faster_than_chance(tiny_llm: Path, options: dict[str, Any]) -> None:
    made = actor_of(tiny_llm, **options)
    data, state = observed(0, 5), None
    while len(data) < 7:
        answer = made.propose(data, [], 1, seed=0, state=state)
        state = answer.state
        data += observed(*answer.staged)
    everything = sorted((v for _, v, _ in observed(*ALL)), reverse=True)
    assert max(v for _, v, _ in data) >= everything[1]


def test_equal_values_are_no_obstacle(actor: SurrogateActor) -> None:
    assert len(actor.propose([(i, 0.5, 0.0) for i in range(4)], [], 2, seed=0).staged) == 2


def test_what_runs_is_believed_to_be_observed(actor: SurrogateActor) -> None:
    actor.propose(observed(0, 4, 11), [], 1, seed=1)
    assert actor.belief is not None
    free = actor.belief.var.copy()
    actor.propose(observed(0, 4, 11), [5, 6], 1, seed=1)
    assert actor.belief.var.max() < free.max()


@pytest.mark.parametrize("space", [conditional_space(), Space.from_dict({"rank": 8})], ids=["conditional", "one"])
def test_unusual_spaces_have_proposals(tiny_llm: Path, space: Space) -> None:
    made = actor_of(tiny_llm, space)
    assert made.propose([], [], 1, seed=0).staged
    if len(space) > 1:
        data = [(i, conditional_objective(space.decode(i)), 0.0) for i in (0, 3, 5)]
        assert sorted(made.propose(data, [], 7, seed=0).staged) == [1, 2, 4, 6, 7, 8, 9]


def test_without_language_no_model_is_needed() -> None:
    made = blind()
    answer = made.propose(observed(0, 4), [7], 3, seed=1)
    assert len(answer.staged) == 3 and made.info()["candidates"] == 12
    assert made.propose(observed(0, 4, 9), [], 3, seed=1, state=answer.state).staged


# -- the pool ----------------------------------------------------------------------------------------------------------


def test_a_small_space_is_scored_whole(actor: SurrogateActor) -> None:
    assert actor.candidates.pool.tolist() == list(ALL)
    rows, extra = actor._pool(observed(3), {3, 4}, 1, np.random.default_rng(0))
    assert rows.tolist() == [i for i in ALL if i not in (3, 4)] and len(extra) == 0


def test_of_a_large_space_a_seeded_subset_is_scored() -> None:
    pools = [Candidates(paper_space(), Setup(pool=64), seed).pool for seed in (0, 0, 1)]
    assert len(np.unique(pools[0])) == 64 and pools[0].max() > 10_000
    assert np.array_equal(pools[0], pools[1]) and not np.array_equal(pools[0], pools[2])


def test_beside_a_subset_neighbours_of_the_best_are_scored() -> None:
    space = paper_space()
    made = blind(space, pool=8)
    data = [(100, 1.0, 0.0), (20_000, 0.0, 0.0)]
    rows, extra = made._pool(data, {100, 20_000}, 1, np.random.default_rng(0))
    scored = set(made.candidates.pool[rows].tolist()) | set(extra.tolist())
    assert set(space.neighbours(100)) <= scored and not scored & {100, 20_000}
    assert len(scored) <= 8 + 2 * 10
    assert len(made.propose(data, [], 2, seed=0).staged) == 2


def test_when_a_subset_is_used_up_there_are_still_proposals() -> None:
    made = blind(paper_space(), pool=4)
    data = [(int(i), float(i), 0.0) for i in made.candidates.pool]
    near = {j for i in made.candidates.pool for j in paper_space().neighbours(int(i))}
    staged = made.propose(data, [], 5, seed=0, exclude=sorted(near)).staged
    assert len(set(staged)) == 5 and not set(staged) & (near | set(made.candidates.pool.tolist()))


@pytest.mark.parametrize(("family", "changes"), [("bert", {}), ("mistral", {"sliding_window": 16})])
def test_models_that_read_whole_prompts_score_a_subset(
    llm_of_family: Callable[..., Path], family: str, changes: dict[str, Any]
) -> None:
    made = actor_of(llm_of_family(family, **changes), paper_space(), subset=6)
    assert len(made.candidates.pool) == 6 and made.info()["shared"] is False
    assert len(set(made.propose([(100, 1.0, 0.0), (20_000, 0.0, 0.0)], [7], 2, seed=0).staged)) == 2


def test_warming_reads_what_the_first_request_needs(tiny_llm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from searchers.surrogate.reading.embed import PromptReader

    made = actor_of(tiny_llm)
    made.warm()
    monkeypatch.setattr(PromptReader, "read", lambda *a, **k: pytest.fail("read again"))
    assert made.propose(observed(0, 4), [7], 1, seed=1).staged


# -- other outcomes ----------------------------------------------------------------------------------------------------


def test_there_is_an_answer_for_each_outcome_of_what_runs(actor: SurrogateActor) -> None:
    answer = actor.propose(observed(0, 4, 11), [7, 9], 3, seed=1, branch=True)
    assert answer.branches.keys() == {7, 9}
    for branches in answer.branches.values():
        outcomes = [outcome for outcome, _ in branches]
        assert len(outcomes) >= 3 and outcomes == sorted(outcomes) and outcomes[0] < outcomes[-1]
        for _, staged in branches:
            assert staged and not set(staged) & {0, 4, 11, 7, 9}


def test_outcomes_are_in_the_units_of_the_reports() -> None:
    made = blind()
    plain, scaled = (
        made.propose([(i, 100 + factor * v, 0.0) for i, v, _ in observed(0, 4, 11)], [7], 1, seed=1, branch=True)
        for factor in (1.0, 1000.0)
    )
    for (a, _), (b, _) in zip(plain.branches[7], scaled.branches[7], strict=True):
        assert b - 100 == pytest.approx(1000 * (a - 100), rel=1e-6)


def test_a_good_outcome_leads_closer_than_a_bad_one() -> None:
    space = Space.from_dict({"x": list(range(41))})
    made = blind(space)
    data = [(0, 0.0, 0.0), (20, 0.2, 0.0), (40, 0.0, 0.0)]
    branches = made.propose(data, [10], 1, seed=0, branch=True).branches[10]
    bad, good = branches[0][1][0], branches[-1][1][0]
    assert abs(good - 10) < abs(bad - 10)


@pytest.mark.parametrize(("pending", "branch"), [([], True), ([7], False), ([1, 2, 3, 5, 6], True)], ids=str)
def test_no_outcomes_without_need(actor: SurrogateActor, pending: list[int], branch: bool) -> None:
    assert actor.propose(observed(0, 4, 11), pending, 1, seed=1, branch=branch).branches == {}


# -- where to begin ----------------------------------------------------------------------------------------------------


def test_knowledge_begins_near_the_expected_rate_and_then_elsewhere() -> None:
    space = paper_space()
    made = Candidates(space, Setup(), 0)
    assert made.knowledge is not None
    first = made.first(4, [], set(), np.random.default_rng(0))
    offsets = [made.knowledge.offset(space.decode(i)) for i in first]
    assert len(set(first)) == 4
    assert abs(offsets[0]) < 0.5 and max(offsets) - min(offsets) > 0.3


def test_first_points_avoid_what_is_taken_or_excluded() -> None:
    made = Candidates(small_space(), Setup(), 0)
    assert set(made.first(20, [1, 2], {3}, np.random.default_rng(0))) == set(ALL) - {1, 2, 3}


def test_without_knowledge_first_points_fill_the_space() -> None:
    made = Candidates(small_space(), Setup(knowledge=False), 0)
    first = made.first(12, [], set(), np.random.default_rng(0))
    assert sorted(first) == list(ALL)
    seeds = {tuple(made.first(3, [], set(), np.random.default_rng(seed))) for seed in range(5)}
    assert len(seeds) > 1


def test_earlier_results_say_where_to_begin() -> None:
    configs = [small_space().decode(i) for i in ALL]
    best = 3
    source = {"configs": configs, "values": [float(i == best) for i in ALL]}
    made = blind(knowledge=False, learn_from=[source])
    assert made.propose([], [], 1, seed=0).staged == [best]
    assert len(made.propose(observed(0, 4), [], 3, seed=0).staged) == 3


def test_a_useless_source_leaves_proposals_valid() -> None:
    configs = [small_space().decode(i) for i in ALL]
    source = {"configs": configs, "values": np.random.default_rng(0).standard_normal(12).tolist()}
    staged = blind(learn_from=[source]).propose(observed(0, 4, 5), [], 9, seed=0).staged
    assert sorted(staged) == [1, 2, 3, 6, 7, 8, 9, 10, 11]


def test_the_coordinate_of_the_rate_is_its_offset_where_there_is_knowledge() -> None:
    space = small_space()
    known, plain = Candidates(space, Setup(), 0), Candidates(space, Setup(knowledge=False), 0)
    assert known.knowledge is not None
    offsets = [known.knowledge.offset(space.decode(i)) for i in ALL]
    assert known.x[:, -1] == pytest.approx(offsets)
    decades = [np.log10(space.decode(i)["learning_rate"]) for i in ALL]
    assert np.ptp(plain.x[:, -1]) == pytest.approx(np.ptp(decades))
    assert known.x.shape[1] == plain.x.shape[1] == len(known.lengthscales)
    assert known.means.shape == (12, len(known.log_prior)) and plain.means.shape == (12, 1)


def test_spread_points_keep_their_distance() -> None:
    space = paper_space()
    x = space.features(spread_points(space, np.random.default_rng(0), 8, [], set()))
    y = space.features(space.sample(np.random.default_rng(0), 8))

    def closest(points: np.ndarray) -> float:
        gaps = np.abs(points[:, None] - points[None]).sum(axis=2)
        return float(gaps[~np.eye(len(points), dtype=bool)].min())

    assert closest(x) > closest(y)
    assert len(spread_points(small_space(), np.random.default_rng(0), 20, [], set(range(9)))) == 3


def test_a_fit_is_bounded_and_keeps_the_best() -> None:
    from searchers.surrogate.actor import fitted

    many = [(i, float((i * 37) % 1000), 0.0) for i in range(1000)]
    kept = fitted(many, np.random.default_rng(0))
    assert len(kept) == 400 and kept == sorted(kept)
    assert {v for _, v, _ in kept} >= set(range(800, 1000)) and fitted(many[:9], np.random.default_rng(0)) == many[:9]


# -- embeddings --------------------------------------------------------------------------------------------------------


def test_embeddings_are_what_each_part_of_the_model_sees(tiny_llm: Path) -> None:
    made = actor_of(tiny_llm, token=True, prompt_style="paper")
    state = made.propose(observed(0, 4, 7), [], 1, seed=1).state
    assert state is not None
    found = made.embeddings([0, 4, 7, 9], state)
    assert found["learned"].shape == (4, FAST["projection"])
    assert found["plain"].shape == found["prompt"].shape and len(found["prompt"]) == 4
    assert not np.allclose(found["plain"], found["prompt"])
    moved = {**state, "token": state["token"] + 1.0}
    assert not np.allclose(made.embeddings([0, 4], moved)["learned"], found["learned"][:2])


def test_without_language_there_are_no_embeddings() -> None:
    made = blind()
    state = made.propose(observed(0, 4), [], 1, seed=1).state
    assert state is not None and made.embeddings([0, 4], state) == {}
