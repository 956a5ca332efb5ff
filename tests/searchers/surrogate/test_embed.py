from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from searchers.space import Space
from searchers.surrogate.embed import PromptEmbedder, pick_device
from searchers.surrogate.prompt import Prompt

SPACE = Space.from_dict(
    {"variant": ["lora", "adalora"], "rank": [1, 2, 128], "learning_rate": [1e-4, 2.5e-4, 0.05], "dropout": [0.0, 0.15]}
)
# Short, so that a model with 1,024 learned positions can read it byte by byte.
TEMPLATE = "A larger rank needs a lower learning rate.\n{variant} {rank} {learning_rate} {dropout}\n"
KEYS = [0, 35, 7, 20, 13]


def embedder(folder: Path, **options: object) -> PromptEmbedder:
    prompt = Prompt(SPACE, TEMPLATE)
    options = {"dtype": torch.float32, **options}
    return PromptEmbedder(folder, prompt.prefix, lambda i: prompt.values(SPACE.decode(i)), **options)  # type: ignore


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gpt2", "gemma2"])
def test_shared_prefixes_equal_whole_prompts(llm_of_family: Callable[..., Path], family: str) -> None:
    changes = {"gemma2": {"head_dim": 16, "attn_logit_softcapping": 0.5}, "qwen3": {"head_dim": 16}}.get(family, {})
    fast, whole = (embedder(llm_of_family(family, **changes), share=share) for share in (True, False))
    fast.check(0)
    torch.manual_seed(1)
    token = torch.randn(32)
    assert fast.shared
    a = fast.run_token(fast.gather(KEYS), token)
    b = whole.run_token(whole.gather(KEYS), token)
    assert a.shape == (5, 32)
    assert (a - b).abs().max() < 1e-4
    assert (b[0] - b[1]).abs().max() > 1e-2, "the comparison would not notice wrong values"


def test_gradients_of_the_token_equal_those_through_whole_prompts(tiny_llm: Path) -> None:
    gradients = []
    for share in (True, False):
        model = embedder(tiny_llm, share=share)
        token = model.initial_token().requires_grad_()
        model.run_token(model.gather(KEYS), token)[:, :7].sum().backward()
        gradients.append(token.grad)
        assert all(p.grad is None for p in model.model.parameters())
    assert gradients[0].abs().max() > 0
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-4, atol=1e-4 * float(gradients[0].abs().max()))


def test_results_do_not_depend_on_batching_or_on_what_was_cached(tiny_llm: Path) -> None:
    token = torch.full((32,), 0.1)
    expected = embedder(tiny_llm).embed(KEYS, token)
    one_by_one = embedder(tiny_llm, batch_tokens=1)
    assert torch.allclose(one_by_one.embed(KEYS, token, chunk=2), expected, atol=1e-5)
    assert torch.allclose(one_by_one.embed(KEYS[::-1], token).flip(0), expected, atol=1e-5)


def test_the_cache_stays_within_its_bound_and_nothing_is_read_twice(
    tiny_llm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = embedder(tiny_llm)
    model.embed(KEYS, model.initial_token())
    assert 0 < model._cached == sum(kv.nbytes for kv in model._cache.values())
    monkeypatch.setattr(model, "_values_ids", lambda key: pytest.fail("read again"))
    model.embed(KEYS, model.initial_token())
    monkeypatch.undo()
    small = embedder(tiny_llm, cache_bytes=model._cached // 2)
    small.embed(KEYS, small.initial_token())
    assert small._cached <= small.cache_bytes
    none = embedder(tiny_llm, cache_bytes=0)
    assert torch.allclose(none.embed(KEYS, none.initial_token()), model.embed(KEYS, model.initial_token()), atol=1e-5)


def test_sliding_windows_shorter_than_the_prompt_fall_back_to_whole_prompts(llm_of_family: Callable[..., Path]) -> None:
    model = embedder(llm_of_family("mistral", sliding_window=16))
    assert model.shared is False
    reference = embedder(llm_of_family("mistral", sliding_window=16), share=False)
    token = model.initial_token()
    assert torch.equal(model.embed(KEYS, token), reference.embed(KEYS, token))


def test_a_wrong_shared_result_is_noticed(tiny_llm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = embedder(tiny_llm)
    assert model.check(0) < 1e-5 and model.shared
    assert model._prefix is not None
    monkeypatch.setattr(model, "_prefix", [(k, -v) for k, v in model._prefix])
    model._cache.clear()
    assert model.check(0) > 1e-3
    assert model.shared is False


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="llm: .* is no model folder"):
        embedder(tmp_path)


def test_a_gpu_is_used_only_where_a_share_was_asked_for() -> None:
    assert pick_device("auto", 0) == "cpu"
    assert pick_device("auto", 1) == ("cuda" if torch.cuda.is_available() else "cpu")
    assert pick_device("cpu", 1) == "cpu"


def test_values_in_bfloat16_and_the_token_in_float32_stay_close(tiny_llm: Path) -> None:
    mixed, exact = embedder(tiny_llm, dtype=torch.bfloat16), embedder(tiny_llm)
    token = exact.initial_token()
    a, b = mixed.embed(KEYS, token), exact.embed(KEYS, token)
    assert a.dtype == torch.float32
    assert (a - b).abs().max() < 0.05 * b.abs().max()
    assert {kv.dtype for kv in mixed._cache.values()} == {torch.bfloat16}
