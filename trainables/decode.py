"""Greedy decoding and the loss of the reference completion, from one shared run of the prompt; or that loss alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.batching import IGNORE, last_positions, pad_left
from trainables.modes import evaluating
from trainables.protocols import Row


def prompt_batches(rows: Sequence[Row], max_tokens: int, reserve: int) -> list[list[int]]:
    """Indices of rows grouped by prompt length, at most `max_tokens` padded tokens with the reserve."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["prompt_ids"]), reverse=True)
    groups: list[list[int]] = []
    for i in order:
        width = 0 if not groups else len(rows[groups[-1][0]]["prompt_ids"]) + reserve
        if groups and (len(groups[-1]) + 1) * width <= max_tokens:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


@torch.inference_mode()
def generate_and_score_loss(
    model: nn.Module,
    rows: Sequence[Row],
    *,
    pad_id: int,
    eos_ids: Sequence[int],
    max_new_tokens: int,
    max_tokens: int = 8192,
    device: torch.device | str = "cpu",
) -> tuple[list[list[int]], float, int]:
    """Greedy continuation of each prompt, and the summed loss of the reference responses.

    The prompt runs once: its keys and values serve both the decoding and the teacher-forced pass over the
    reference response.

    Returns:
        Token ids per row (end token excluded), the summed cross-entropy in nats over all response tokens,
        and how many tokens that is.
    """
    outputs: list[list[int]] = [[] for _ in rows]
    loss_sum, loss_tokens = 0.0, 0
    reserve = max_new_tokens + max((len(row["response_ids"]) for row in rows), default=0)
    for group in prompt_batches(rows, max_tokens, reserve):
        chosen = [rows[i] for i in group]
        inputs = {k: v.to(device) for k, v in pad_left([r["prompt_ids"] for r in chosen], pad_id).items()}
        last = last_positions(inputs["input_ids"], 1)
        out = model(**inputs, use_cache=True, logits_to_keep=last)
        first, cache, width = out.logits[:, -1], out.past_key_values, inputs["input_ids"].shape[1]
        total, tokens = _reference_loss(model, chosen, first, cache, inputs, pad_id)
        loss_sum += total
        loss_tokens += tokens
        if any(getattr(layer, "is_sliding", False) for layer in cache.layers):
            # A sliding window has dropped what a crop would need: run the prompt again.
            out = model(**inputs, use_cache=True, logits_to_keep=last)
            first, cache = out.logits[:, -1], out.past_key_values
        elif cache.get_seq_length() > width:
            cache.crop(width - cache.get_seq_length())
        completions = _greedy(model, first, cache, inputs, eos_ids, max_new_tokens)
        for i, ids in zip(group, completions, strict=True):
            outputs[i] = ids
    return outputs, loss_sum, loss_tokens


def _reference_loss(
    model: nn.Module, rows: Sequence[Row], first: Tensor, cache: object, inputs: dict[str, Tensor], pad_id: int
) -> tuple[float, int]:
    """Teacher-forced loss of the responses over the cached prompts; the cache grows and is cropped after."""
    device = first.device
    longest = max(len(row["response_ids"]) for row in rows)
    ids = torch.full((len(rows), longest), pad_id, dtype=torch.long, device=device)
    labels = torch.full_like(ids, IGNORE)
    for i, row in enumerate(rows):
        response = torch.tensor(np.array(row["response_ids"], dtype=np.int64), device=device)
        ids[i, : len(response)] = response
        labels[i, : len(response)] = response
    logits = first.unsqueeze(1)  # n x 1 x vocabulary
    if longest > 1:
        ahead = ids[:, :-1]
        mask = torch.cat([inputs["attention_mask"], torch.ones_like(ahead)], dim=1)
        positions = inputs["position_ids"][:, -1:] + 1 + torch.arange(longest - 1, device=device)
        out = model(input_ids=ahead, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True)
        logits = torch.cat([logits, out.logits], dim=1)  # n x longest x vocabulary
    loss = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORE, reduction="sum")
    return float(loss), int((labels != IGNORE).sum())


def _greedy(
    model: nn.Module,
    first: Tensor,
    cache: object,
    inputs: dict[str, Tensor],
    eos_ids: Sequence[int],
    max_new_tokens: int,
) -> list[list[int]]:
    """Continue each row with its most likely tokens until an end token or the limit."""
    device = first.device
    stops = torch.as_tensor(list(eos_ids), device=device)
    mask, position = inputs["attention_mask"], inputs["position_ids"][:, -1:]
    token = first.argmax(-1, keepdim=True)  # n x 1
    done = torch.isin(token[:, 0], stops)
    columns = [token]
    while len(columns) < max_new_tokens and not bool(done.all()):
        mask = torch.cat([mask, torch.ones_like(token)], dim=1)
        position = position + 1
        out = model(
            input_ids=token,
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
        )
        token = out.logits[:, -1].argmax(-1, keepdim=True)
        columns.append(token)
        done = done | torch.isin(token[:, 0], stops)
    stop_set = set(eos_ids)
    completions = []
    for ids in torch.cat(columns, dim=1).tolist():
        end = next((i for i, token_id in enumerate(ids) if token_id in stop_set), len(ids))
        completions.append(ids[:end])
    return completions


@torch.no_grad()
def mean_loss(module: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> float:
    """Cross-entropy per completion token in evaluation mode, nats; NaN without batches.

    Args:
        batches: as `batching.labelled_batches` makes them.
    """
    total, tokens = torch.zeros(()), 0
    with evaluating(module):
        for batch in batches:
            labels = batch["labels"]  # (rows, length)
            inputs = {name: value for name, value in batch.items() if name != "labels"}
            wanted = labels != IGNORE
            first = max(1, int(wanted.any(dim=0).nonzero()[0]))
            keep = torch.arange(first - 1, labels.shape[1] - 1, device=labels.device)
            logits = module(**inputs, use_cache=False, logits_to_keep=keep).logits.float()
            targets = labels[:, first:].flatten()
            total = total.to(logits.device) + F.cross_entropy(
                logits.flatten(0, 1), targets, ignore_index=IGNORE, reduction="sum"
            )
            tokens += int(wanted[:, first:].sum())
    return float(total) / tokens if tokens else math.nan
