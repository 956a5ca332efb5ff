"""How likely a causal model holds each of several continuations of a prompt."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from raylora.metrics.base import OptionScores

if TYPE_CHECKING:
    import torch

Ids = Sequence[int]


def option_scores(
    model: object,
    prompts: Sequence[Ids],
    options: Sequence[Sequence[Ids]],
    *,
    pad_id: int = 0,
    batch_tokens: int = 8192,
) -> list[OptionScores]:
    """Log-likelihoods of each row's options after its prompt, which is read once; the options go on from its cache.

    Rows are taken in the order of their prompts' lengths, as many at a time as fit. Prompts are padded on the left and
    options on the right, with explicit masks and positions, so that padding changes nothing. A model that keeps no such
    cache reads each prompt with each option.

    Args:
        model: a causal model of transformers, PEFT's included, in evaluation mode.
        prompts: token ids of each row's prompt, at least one, `(n,)`.
        options: token ids of each row's options, `(n, options)`; rows may have different numbers of them.
        pad_id: any token; it is masked.
        batch_tokens: bound on the tokens of one pass, padding included; one row is always taken.

    Returns:
        Scores of each row, `(n,)`. An option without tokens has the log-likelihood 0.
    """
    import torch

    found: list[OptionScores | None] = [None] * len(prompts)
    with torch.no_grad():  # what inference mode makes of partitioned weights could not be trained with
        for batch in _batches(prompts, options, batch_tokens):
            flat = [(place, ids) for place in batch for ids in options[place]]
            sums = _score_batch(model, [prompts[place] for place in batch], flat, batch, pad_id)
            for place in batch:
                own = [scores for (owner, _), scores in zip(flat, sums, strict=True) if owner == place]
                found[place] = OptionScores(
                    tuple(value for value, _ in own),
                    tuple(len(ids) for ids in options[place]),
                    tuple(greedy for _, greedy in own),
                )
    return [scores for scores in found if scores is not None]


def encode_options(tokenizer: Any, prompt: str, options: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """Token ids of a prompt, and of each option as it reads after it.

    Spaces at the end of the prompt belong to the options, as they do for a tokenizer that joins them to words. An
    option is what tokenising prompt and option together adds to the prompt.
    """
    bare = prompt.rstrip(" ")
    gap = prompt[len(bare) :]
    start = list(tokenizer(bare)["input_ids"])
    start = start or [tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id]
    whole = [list(tokenizer(bare + gap + option)["input_ids"]) for option in options]
    skipped = len(tokenizer(bare)["input_ids"])
    return start, [ids[skipped:] for ids in whole]


def _batches(prompts: Sequence[Ids], options: Sequence[Sequence[Ids]], bound: int) -> Iterator[list[int]]:
    batch: list[int] = []
    count = 0
    for place in sorted(range(len(prompts)), key=lambda one: len(prompts[one])):
        # The cache of the prompt is repeated for each option.
        longest = len(prompts[place]) + max((len(ids) for ids in options[place]), default=0)
        more = len(options[place])
        if batch and (count + more) * longest > bound:
            yield batch
            batch, count = [], 0
        batch.append(place)
        count += more
    if batch:
        yield batch


def _score_batch(
    model: Any, prompts: Sequence[Ids], flat: Sequence[tuple[int, Ids]], batch: Sequence[int], pad_id: int
) -> list[tuple[float, bool]]:
    """The log-likelihood of each option of the batch, and whether greedy decoding would give it."""
    import torch

    if not flat:
        return []
    device = next(model.parameters()).device
    owners = torch.tensor([batch.index(place) for place, _ in flat], device=device)
    ids, mask = _padded(prompts, pad_id, left=True, device=device)  # (rows, P)
    inputs = {"input_ids": ids, "attention_mask": mask, **_positions(model, mask.cumsum(-1) - 1)}
    read = model(**inputs, use_cache=True, **_last_logits(model))
    options, there = _padded([option for _, option in flat], pad_id, left=False, device=device)  # (options, K)
    if not options.shape[1]:
        return [(0.0, True)] * len(flat)
    first = read.logits[:, -1:].index_select(0, owners)  # (options, 1, vocabulary)
    logits = first
    if options.shape[1] > 1:
        cache = getattr(read, "past_key_values", None)
        if cache is None or not hasattr(cache, "batch_select_indices"):
            logits = _read_whole(model, ids[owners], mask[owners], options, there)
        else:
            cache.batch_select_indices(owners)
            both = torch.cat([mask[owners], there[:, :-1]], dim=1)
            places = _positions(model, (both.cumsum(-1) - 1)[:, mask.shape[1] :])
            inputs = {"input_ids": options[:, :-1], "attention_mask": both, **places}
            rest = model(**inputs, past_key_values=cache, use_cache=True).logits
            logits = torch.cat([first, rest], dim=1)  # (options, K, vocabulary)
    chosen = logits.float().log_softmax(-1).gather(-1, options[..., None])[..., 0]
    greedy = ((logits.argmax(-1) == options) | (there == 0)).all(-1)
    return list(zip((chosen * there).sum(-1).tolist(), greedy.tolist(), strict=True))


def _read_whole(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, options: torch.Tensor, there: torch.Tensor
) -> torch.Tensor:
    """Logits for the options' tokens, `(options, K, vocabulary)`, from prompts and options read together."""
    import torch

    both, masks = torch.cat([ids, options], dim=1), torch.cat([mask, there], dim=1)
    logits = model(input_ids=both, attention_mask=masks, **_positions(model, masks.cumsum(-1) - 1)).logits
    return logits[:, ids.shape[1] - 1 : -1]


def _padded(rows: Sequence[Ids], pad_id: int, *, left: bool, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and their mask, `(rows, longest)` each."""
    import torch

    longest = max((len(row) for row in rows), default=0)
    ids, mask = [], []
    for row in rows:
        gap = longest - len(row)
        pad, off = [pad_id] * gap, [0] * gap
        ids.append([*pad, *row] if left else [*row, *pad])
        mask.append([*off, *[1] * len(row)] if left else [*[1] * len(row), *off])
    return (
        torch.tensor(ids, dtype=torch.long, device=device),
        torch.tensor(mask, dtype=torch.long, device=device),
    )


def _positions(model: object, places: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"position_ids": places.clamp(min=0)} if _takes(model, "position_ids") else {}


def _last_logits(model: object) -> dict[str, int]:
    return {"logits_to_keep": 1} if _takes(model, "logits_to_keep") else {}


def _takes(model: Any, argument: str) -> bool:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return argument in inspect.signature(base.forward).parameters
