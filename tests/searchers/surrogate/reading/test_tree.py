from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from searchers.surrogate.reading.tree import PromptTree

PRODUCT = [[1, 2, a, 3, b, b, 4, c] for a, b, c in product(range(5), range(4), range(6))]
RANDOM = [np.random.default_rng(i).integers(0, 2 if i % 2 else 9, size=1 + i % 11).tolist() for i in range(150)]
CASES = {
    "product": PRODUCT,
    "shuffled": [PRODUCT[i] for i in np.random.default_rng(0).permutation(len(PRODUCT))],
    "random": RANDOM,
    "repeated": [[1, 2, 3]] * 9,
    "some repeated": PRODUCT[:7] * 3 + RANDOM[:5] * 2,
    "one begins another": [[1] * k for k in range(1, 40)] + [[1, 1, 2], [1, 1, 2, 0]],
    "nothing in common": [[i, i] for i in range(30)],
    "one": [[5, 6, 7]],
    "one token": [[5]],
}


@pytest.fixture(params=[(name, size) for name in CASES for size in (1, 4, 64)], ids=lambda p: f"{p[0]}-{p[1]}")
def case(request: pytest.FixtureRequest) -> tuple[list[list[int]], PromptTree, int]:
    name, size = request.param
    return CASES[name], PromptTree(CASES[name], size), size


Case = tuple[list[list[int]], PromptTree, int]


def paths(tree: PromptTree) -> dict[int, tuple[int, ...]]:
    """Nodes from the root to the end of each prompt."""
    return {
        int(prompt): (*block.stem.tolist(), *block.own[block.on[c]].tolist())
        for block in tree.blocks
        for c, prompt in enumerate(block.prompts)
    }


def test_every_prompt_is_in_exactly_one_block(case: Case) -> None:
    prompts, tree, _ = case
    assert sorted(int(p) for block in tree.blocks for p in block.prompts) == list(range(len(prompts)))


def test_no_block_is_larger_than_asked(case: Case) -> None:
    _, tree, size = case
    while tree is not None:
        assert max(len(block.prompts) for block in tree.blocks) <= size
        tree = tree.stems


def test_a_path_is_one_node_for_every_beginning_of_the_prompt(case: Case) -> None:
    prompts, tree, _ = case
    beginning: dict[int, tuple[int, ...]] = {}
    for prompt, path in paths(tree).items():
        assert len(path) == len(prompts[prompt])
        for end, node in enumerate(path, start=1):
            assert beginning.setdefault(node, tuple(prompts[prompt][:end])) == tuple(prompts[prompt][:end])


def test_there_are_as_many_nodes_as_distinct_beginnings(case: Case) -> None:
    prompts, tree, _ = case
    distinct = {tuple(p[:end]) for p in prompts for end in range(1, len(p) + 1)}
    assert tree.nodes == len(distinct) == len({node for path in paths(tree).values() for node in path})


def test_own_nodes_know_their_tokens_and_depths(case: Case) -> None:
    prompts, tree, _ = case
    for block in tree.blocks:
        for c, prompt in enumerate(block.prompts):
            start = len(block.stem)
            assert block.tokens[block.on[c]].tolist() == prompts[prompt][start:]
            assert block.depths[block.on[c]].tolist() == list(range(start, len(prompts[prompt])))


def test_an_own_node_sees_the_path_to_it(case: Case) -> None:
    _, tree, _ = case
    for block in tree.blocks:
        for on in block.on:
            for i in np.flatnonzero(on):
                assert (block.above[i] == (on & (block.depths <= block.depths[i]))).all()


def test_stems_are_the_prompts_of_the_next_tree(case: Case) -> None:
    _, tree, _ = case
    levels = 0
    while tree.stems is not None:
        stems = {tuple(block.stem.tolist()) for block in tree.blocks if len(block.stem)}
        below = list(paths(tree.stems).values())
        assert set(below) == stems and len(below) == len(stems)
        assert tree.stems.nodes == len({node for stem in stems for node in stem})
        tree = tree.stems
        levels += 1
        assert levels < 50
    assert not any(len(block.stem) for block in tree.blocks)


def test_blocks_end_where_neighbours_have_least_in_common() -> None:
    prompts = [[a, 7, b] for a in range(4) for b in range(6)]
    assert [len(block.prompts) for block in PromptTree(prompts, 8).blocks] == [6, 6, 6, 6]


def test_sharing_leaves_few_nodes_to_read() -> None:
    tree = PromptTree(PRODUCT)
    assert sum(len(block.own) for block in tree.blocks) < 0.3 * sum(map(len, PRODUCT))


@pytest.mark.parametrize("prompts", [[list(range(40))], PRODUCT[:24], PRODUCT], ids=len)
def test_a_common_beginning_is_read_in_one_piece(prompts: list[list[int]]) -> None:
    tree, levels = PromptTree(prompts), 1
    while tree.stems is not None:
        tree, levels = tree.stems, levels + 1
    assert levels <= 3
