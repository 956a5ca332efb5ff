from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from searchers.surrogate.reading.embed import PromptReader
from searchers.surrogate.reading.hidden import HiddenStates
from searchers.surrogate.reading.whole import Whole
from searchers.surrogate.setup import Setup
from searchers.testing import conditional_space, small_space

POOL = np.arange(12)


def states_of(llm: Path, **options: Any) -> HiddenStates:
    setup = Setup(**{"dtype": "float32", "threads": None, "cache": False, **options})
    return HiddenStates(llm, small_space(), setup)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many prompts each call of `PromptReader.read` was given."""
    found: list[int] = []
    usual = PromptReader.read

    def read(self: PromptReader, prompts: Any, **options: Any) -> Any:
        found.append(len(prompts))
        return usual(self, prompts, **options)

    monkeypatch.setattr(PromptReader, "read", read)
    return found


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_states_are_those_of_the_whole_prompts(llm_of_family: Callable[..., Path], family: str) -> None:
    made = states_of(llm_of_family(family))
    assert made.shared is (family == "llama") and made.info()["shared"] is made.shared
    ids = made.reader.ids([made.prompt.values(small_space().decode(i)) for i in POOL])
    wanted = Whole(made.reader, ids).run(made.initial_token())
    assert torch.allclose(made.pool_states(POOL, None), wanted, atol=1e-4)


def test_states_of_a_token_that_stays_are_read_once(tiny_llm: Path, reads: list[int]) -> None:
    made = states_of(tiny_llm)
    first = made.pool_states(POOL, None)
    assert made.pool_states(POOL, None) is first
    assert torch.equal(made.observed([3, 1])(None), first[[3, 1]])
    assert torch.equal(made.reference(POOL), first)
    assert reads == [12]


def test_configurations_outside_the_pool_are_read_alone_and_once(tiny_llm: Path, reads: list[int]) -> None:
    made = states_of(tiny_llm)
    made.pool_states(POOL[:6], None)
    made.observed([2, 9, 11])
    made.observed([9, 11, 4])
    assert reads == [6, 2]


def test_another_pool_is_read_anew(tiny_llm: Path, reads: list[int]) -> None:
    made = states_of(tiny_llm)
    first, second = made.pool_states(POOL[:6], None), made.pool_states(POOL[6:], None)
    assert reads == [6, 6] and not torch.equal(first, second)


def test_keys_and_values_stay_where_the_token_moves(tiny_llm: Path, reads: list[int]) -> None:
    made = states_of(tiny_llm, token=True)
    start = made.pool_states(POOL, None)
    moved = made.pool_states(POOL, made.initial_token() + 0.5)
    assert reads == [12]
    assert torch.allclose(start, made.pool_states(POOL, made.initial_token())) and not torch.allclose(start, moved)
    assert made.info()["kept"] == 1.0


@pytest.mark.parametrize("token", [False, True])
def test_gradients_reach_a_token_that_moves_and_no_other(tiny_llm: Path, token: bool) -> None:
    made = states_of(tiny_llm, token=token)
    psi = made.initial_token().requires_grad_()
    assert made.observed([0, 5])(psi).requires_grad is token


def test_a_token_that_moves_gives_observed_and_pool_the_same_states(tiny_llm: Path) -> None:
    made = states_of(tiny_llm, token=True)
    psi = made.initial_token() + 0.3
    assert torch.allclose(made.observed([7, 2])(psi), made.pool_states(POOL, psi)[[7, 2]], atol=1e-5)


@pytest.mark.parametrize("token", [False, True])
def test_what_is_on_disk_is_not_read_again(
    tiny_llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: bool
) -> None:
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path))
    found, read = [], []
    for _ in range(2):
        made = states_of(tiny_llm, cache=True, token=token)
        tokens: list[int] = []
        made.reader.model.register_forward_pre_hook(
            lambda module, args, given, tokens=tokens: tokens.append(next(iter(given.values())).shape[1]),
            with_kwargs=True,
        )
        found.append(made.pool_states(POOL, None))
        read.append(sum(tokens))
    assert len(list(tmp_path.glob("embeddings/*.safetensors"))) == 1
    assert torch.equal(*found)
    # Where the token moves, it is left to run, behind stems that are few.
    assert read[1] == 0 if not token else read[1] < 0.2 * read[0]


@pytest.mark.parametrize("change", [{"prompt_style": "paper"}, {"dtype": "bfloat16"}, {"token": True}], ids=str)
def test_other_prompts_and_numbers_are_another_file(
    tiny_llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path))
    for options in ({}, change):
        states_of(tiny_llm, cache=True, **options).pool_states(POOL, None)
    assert len(list(tmp_path.glob("embeddings/*.safetensors"))) == 2


def test_a_template_file_is_the_prompt(tiny_llm: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("Mine.\n{variant} {rank} {learning_rate}")
    made = states_of(tiny_llm, prompt=str(file))
    assert made.reader.tokenizer.decode(made.reader.prefix_ids) == "Mine.\n"


def test_conditional_configurations_have_states(tiny_llm: Path) -> None:
    made = HiddenStates(tiny_llm, conditional_space(), Setup(dtype="float32", threads=None, cache=False))
    states = made.pool_states(np.arange(10), None)
    assert states.shape == (10, 32) and bool(torch.isfinite(states).all())
