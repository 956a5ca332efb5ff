from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from searchers.space import Space, default_space
from searchers.surrogate.actor import SurrogateActor, candidate_stream, spread_points
from searchers.testing import objective, small_space


@pytest.fixture
def actor(tiny_llm: Path) -> SurrogateActor:
    return SurrogateActor(str(tiny_llm), small_space(), fit_steps=5, threads=None, dtype="float32")


def observed(*indices: int) -> list[tuple[int, float]]:
    return [(i, objective(small_space().decode(i))) for i in indices]


def test_proposals_are_new_and_reproducible(actor: SurrogateActor, tiny_llm: Path) -> None:
    first, state = actor.propose(observed(0, 4), [7], 3, seed=1, exclude=[2])
    assert len(set(first)) == 3
    assert not set(first) & {0, 4, 7, 2}
    fresh = SurrogateActor(str(tiny_llm), small_space(), fit_steps=5, threads=None, dtype="float32")
    again, state_again = fresh.propose(observed(0, 4), [7], 3, seed=1, exclude=[2])
    assert again == first
    assert state is not None and state_again is not None
    assert all(np.array_equal(state[k], state_again[k]) for k in state)


def test_parameters_go_on_from_the_state_given(actor: SurrogateActor) -> None:
    _, state = actor.propose(observed(0, 4), [], 1, seed=1)
    assert state is not None
    before = {k: v.copy() for k, v in state.items()}
    _, later = actor.propose(observed(0, 4, 6), [], 1, seed=1, state=state)
    assert later is not None
    assert all(np.array_equal(state[k], before[k]) for k in state), "the caller's arrays are its own"
    assert np.array_equal(later["centre"], state["centre"])
    assert not np.array_equal(later["projection.linear.weight"], state["projection.linear.weight"])


def test_a_space_that_runs_out_gives_what_is_left(actor: SurrogateActor) -> None:
    left, _ = actor.propose(observed(*range(10)), [10], 5, seed=0)
    assert left == [11]
    assert actor.propose(observed(*range(12)), [], 2, seed=0)[0] == []
    assert len(actor.propose([], [], 2, seed=0)[0]) == 2


def test_neighbours_of_the_best_are_candidates(tiny_llm: Path) -> None:
    space = default_space()
    actor = SurrogateActor(str(tiny_llm), space, candidates=8, fit_steps=1, threads=None)
    pool = actor._pool([(100, 1.0), (20_000, 0.0)], {100, 20_000}, seed=0, k=1)
    assert set(space.neighbours(100)) <= set(pool)
    assert len(pool) <= 8 + 2 * 10
    assert len(actor.propose([(100, 1.0)], [], 2, seed=0)[0]) == 2


def test_knowledge_picks_half_of_the_candidates_and_follows_what_was_learned(tiny_llm: Path) -> None:
    space = default_space()
    actor = SurrogateActor(str(tiny_llm), space, candidates=64, fit_steps=1, threads=None)
    blind = SurrogateActor(str(tiny_llm), space, candidates=64, fit_steps=1, threads=None, knowledge=False)
    assert actor.knowledge is not None
    chance = actor.knowledge.values(blind._window(0, 0, None)).mean()
    window = actor._window(0, 0, None)
    assert 32 < len(window) <= 64
    assert actor.knowledge.values(window).mean() > chance + 0.2
    moved = actor._window(0, 0, {"trend.shift": np.array(1.0)})
    rates = [np.mean([r for r, _ in actor.knowledge.columns(w)]) for w in (window, moved)]
    assert rates[1] > rates[0] + 0.2


def test_it_finds_good_configurations_faster_than_chance(actor: SurrogateActor) -> None:
    data = observed(0, 5)
    state = None
    while len(data) < 7:
        (chosen,), state = actor.propose(data, [], 1, seed=0, state=state)
        data += observed(chosen)
    everything = sorted((v for _, v in observed(*range(12))), reverse=True)
    assert max(v for _, v in data) >= everything[1]


def test_windows_of_the_candidate_stream_overlap_and_never_repeat() -> None:
    space = default_space()
    first, second = candidate_stream(space, 3, 0, 64), candidate_stream(space, 3, 8, 64)
    assert first[8:] == second[:-8]
    assert len(set(first + second)) == 72
    assert sorted(candidate_stream(small_space(), 0, 40, 256)) == list(range(12))
    huge = Space.from_dict({f"k{i}": list(range(10)) for i in range(9)})
    assert candidate_stream(huge, 1, 0, 20)[4:] == candidate_stream(huge, 1, 4, 16)


def test_spread_points_keep_their_distance() -> None:
    space = default_space()
    x = space.features(spread_points(space, np.random.default_rng(0), 8, [], set()))
    y = space.features(space.sample(np.random.default_rng(0), 8))

    def closest(points: np.ndarray) -> float:
        gaps = np.abs(points[:, None] - points[None]).sum(axis=2)
        return float(gaps[~np.eye(len(points), dtype=bool)].min())

    assert closest(x) > closest(y)
    assert len(spread_points(small_space(), np.random.default_rng(0), 20, [], set(range(9)))) == 3
