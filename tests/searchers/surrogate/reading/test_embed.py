from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from searchers.space import Space
from searchers.surrogate.reading import model, shared
from searchers.surrogate.reading.cache import DiskCache
from searchers.surrogate.reading.embed import PromptReader
from searchers.surrogate.reading.model import pick_device
from searchers.surrogate.reading.prompt import Prompt
from searchers.surrogate.reading.shared import Reading
from searchers.surrogate.reading.whole import Whole

SPACE = Space.from_dict(
    {
        "variant": ["lora", "adalora"],
        "rank": [1, 2, 64, 128],
        "batch_size": [4, 16, 512],
        "learning_rate": [1e-4, 2.5e-4, 1e-3, 5e-3, 0.05],
        "dropout": [0.0, 0.15],
    }
)
# Short, so that a model with 1,024 learned positions can read it byte by byte.
TEMPLATE = "A larger rank needs a lower rate.\n{variant} {rank} {batch_size} {learning_rate} {dropout}\n"
PROMPT = Prompt(SPACE, TEMPLATE)
SOME = [0, 35, 7, 20, 13, 239]
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "gpt2": {},
    "gemma2": {"head_dim": 16, "attn_logit_softcapping": 0.5},
}


def reader_of(folder: Path, **options: Any) -> PromptReader:
    return PromptReader(folder, PROMPT.prefix, **{"dtype": torch.float32, **options})


def prompts(reader: PromptReader, indices: list[int] | range = SOME) -> list[list[int]]:  # type: ignore[assignment]
    return reader.ids([PROMPT.values(SPACE.decode(i)) for i in indices])


@pytest.fixture(scope="module")
def reader(tiny_llm: Path) -> PromptReader:
    return reader_of(tiny_llm)


@pytest.fixture(scope="module", params=FAMILIES)
def both(request: pytest.FixtureRequest, llm_of_family: Callable[..., Path]) -> dict[str, tuple[Tensor, Tensor]]:
    """Hidden states of the whole space, and a gradient of the token, from a reading and from whole prompts."""
    made = reader_of(llm_of_family(request.param, **FAMILIES[request.param]))
    ids = prompts(made, range(len(SPACE)))
    assert len(ids) >= 200 and made.shared
    weights = torch.randn(len(ids), made.hidden_size, generator=torch.Generator().manual_seed(2))
    found = {}
    for name, reading in (("shared", made.read(ids)), ("whole", Whole(made, ids))):
        token = torch.randn(made.hidden_size, generator=torch.Generator().manual_seed(1)).requires_grad_()
        states = reading.run(token)
        (states * weights).sum().backward()
        assert token.grad is not None and all(p.grad is None for p in made.model.parameters())
        found[name] = (states.detach(), token.grad)
    return found


def test_shared_prefixes_equal_whole_prompts(both: dict[str, tuple[Tensor, Tensor]]) -> None:
    shared, whole = both["shared"][0], both["whole"][0]
    assert (shared - whole).abs().max() < 1e-4
    gaps = torch.cdist(whole, whole) + torch.eye(len(whole))
    assert gaps.min() > 1e-3, "the comparison would not notice mixed-up prompts"


def test_gradients_of_the_token_equal_those_through_whole_prompts(both: dict[str, tuple[Tensor, Tensor]]) -> None:
    shared, whole = both["shared"][1], both["whole"][1]
    assert whole.abs().max() > 0
    assert (shared - whole).abs().max() < 1e-4 * whole.abs().max()


@pytest.mark.parametrize("ids", [[[9, 8, 7]] * 5, [[9] * k for k in range(1, 9)], [[9]], [[9, 8], [7]]], ids=str)
def test_prompts_that_repeat_or_begin_one_another_equal_whole_prompts(
    reader: PromptReader, ids: list[list[int]]
) -> None:
    token = reader.initial_token()
    assert torch.allclose(reader.read(ids).run(token), Whole(reader, ids).run(token), atol=1e-5)


def test_a_token_elsewhere_gives_other_states(reader: PromptReader) -> None:
    reading = reader.read(prompts(reader))
    assert (reading.run(reader.initial_token()) - reading.run(torch.ones(32))).abs().max() > 0.1


def test_without_memory_for_keys_and_values_the_numbers_are_the_same(reader: PromptReader) -> None:
    ids, token = prompts(reader, range(len(SPACE))), reader.initial_token()
    kept, none = reader.read(ids), reader.read(ids, kv_bytes=0)
    assert (kept.kept, none.kept) == (1.0, 0.0)
    assert torch.allclose(kept.run(token), none.run(token), atol=1e-6)


def test_what_fits_in_memory_is_kept_and_the_rest_read_anew(
    reader: PromptReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, token = prompts(reader, range(len(SPACE))), reader.initial_token()
    whole = reader.read(ids)
    monkeypatch.setattr(shared, "_POSITIONS", 128)
    every = reader.read(ids)
    assert isinstance(every, Reading) and every._table is not None
    own = sum(group.own.nbytes for group in every._groups if group.own is not None)
    half = reader.read(ids, kv_bytes=every._table.nbytes + own // 2)
    assert isinstance(half, Reading)
    assert 0 < half.kept < 1
    assert sum(g.own.nbytes for g in half._groups if g.own is not None) <= own // 2
    assert torch.allclose(half.run(token), whole.run(token), atol=1e-5)


def test_keys_and_values_from_disk_are_the_same_bits_and_not_read_again(
    reader: PromptReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []
    usual = Reading._read_own
    monkeypatch.setattr(Reading, "_read_own", lambda self, group: read.append(group) or usual(self, group))
    ids, token = prompts(reader), reader.initial_token()
    first = Reading(reader, ids, cache=DiskCache("key", tmp_path))
    before = len(read)
    second = Reading(reader, ids, cache=DiskCache("key", tmp_path))
    stems = before - len(first._groups)  # of which there are few: they are not kept
    assert len(read) - before == stems
    assert torch.equal(first.run(token), second.run(token))


@pytest.mark.parametrize("token_dtype", [None, torch.float32])
def test_keys_and_values_in_bfloat16_stay_close(tiny_llm: Path, token_dtype: torch.dtype | None) -> None:
    mixed, exact = reader_of(tiny_llm, dtype=torch.bfloat16, token_dtype=token_dtype), reader_of(tiny_llm)
    ids, token = prompts(exact), exact.initial_token()
    reading = mixed.read(ids)
    assert isinstance(reading, Reading) and mixed.shared
    states, wanted = reading.run(token), exact.read(ids).run(token)
    assert states.dtype == torch.float32
    assert {g.own.dtype for g in reading._groups if g.own is not None} == {torch.bfloat16}
    assert (states - wanted).abs().max() < 0.05 * wanted.abs().max()


def test_a_token_in_float32_keeps_what_bfloat16_rounds_away(tiny_llm: Path) -> None:
    token = reader_of(tiny_llm).initial_token().bfloat16().float()
    moved = token * (1 + 1e-4)
    seen = []
    for kind in (torch.bfloat16, torch.float32):
        made = reader_of(tiny_llm, dtype=torch.bfloat16, token_dtype=kind)
        reading = made.read(prompts(made))
        seen.append(not torch.equal(reading.run(token), reading.run(moved)))
    assert seen == [False, True]


# -- models that read whole prompts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "changes"), [("mistral", {}), ("gemma2", {"head_dim": 16})])
def test_only_windows_shorter_than_the_prompt_need_whole_prompts(
    llm_of_family: Callable[..., Path], family: str, changes: dict[str, Any]
) -> None:
    short = reader_of(llm_of_family(family, **changes, sliding_window=16))
    long = reader_of(llm_of_family(family, **changes, sliding_window=1024))
    assert (short.shared, long.shared) == (False, True)
    assert isinstance(short.read(prompts(short)), Whole)
    assert long.check(prompts(long)[0]) < 1e-4


def test_encoders_read_whole_prompts(tiny_encoder: Path) -> None:
    made = reader_of(tiny_encoder)
    assert (made.causal, made.shared) == (False, False)
    states = made.read(prompts(made)).run(made.initial_token())
    assert states.shape == (len(SOME), 32) and bool(torch.isfinite(states).all())


def test_the_end_that_a_tokenizer_puts_behind_a_text_is_left_out(tiny_encoder: Path) -> None:
    made = reader_of(tiny_encoder)
    assert made.tokenizer(PROMPT.prefix)["input_ids"][-1] == made.tokenizer.sep_token_id
    assert made.tokenizer.decode(made.prefix_ids) == "<start>" + PROMPT.prefix


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_padding_in_a_batch_changes_nothing(llm_of_family: Callable[..., Path], family: str) -> None:
    made = reader_of(llm_of_family(family))
    token = made.initial_token()
    together, alone = (Whole(made, prompts(made), batch_tokens=size) for size in (4096, 1))
    assert torch.allclose(together.run(token), alone.run(token), atol=1e-5)


def test_a_wrong_shared_result_is_noticed(tiny_llm: Path) -> None:
    made = reader_of(tiny_llm)
    one = prompts(made)[0]
    assert made.check(one) < 1e-5 and made.shared
    made.token_prefix = [(keys, -values) for keys, values in made.token_prefix]
    assert made.check(one) > 1e-3
    assert made.shared is False


def test_a_model_that_takes_no_shared_prefix_runs_whole_prompts(
    tiny_llm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise ValueError("not with me")

    monkeypatch.setattr(model, "attending", refuse)
    made = reader_of(tiny_llm)
    assert made.shared is False
    assert made.read(prompts(made)).run(made.initial_token()).shape == (len(SOME), 32)


# -- small things ------------------------------------------------------------------------------------------------------


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"llm: .* is no model folder"):
        reader_of(tmp_path)


def test_a_gpu_is_used_only_where_a_share_was_asked_for() -> None:
    assert pick_device("auto", 0) == "cpu"
    assert pick_device("auto", 1) == ("cuda" if torch.cuda.is_available() else "cpu")
    assert pick_device("cpu", 1) == "cpu"


def test_the_token_starts_at_the_mean_of_the_embeddings(reader: PromptReader) -> None:
    wanted = reader.model.get_input_embeddings().weight.mean(dim=0)
    assert torch.allclose(reader.initial_token(), wanted, atol=1e-6)


def test_no_prompt_is_empty(reader: PromptReader) -> None:
    assert reader.ids(["", "rank"])[0] == reader.prefix_ids[-1:]
    assert reader.ids([]) == []


@pytest.mark.parametrize("whole", [False, True])
def test_progress_ends_at_the_number_of_prompts(reader: PromptReader, whole: bool) -> None:
    told: list[tuple[int, int]] = []
    reading = Whole(reader, prompts(reader)) if whole else reader.read(prompts(reader))
    reading.run(reader.initial_token(), lambda done, all_: told.append((done, all_)))
    assert told[-1] == (len(SOME), len(SOME))
