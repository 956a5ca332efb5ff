"""Answers and the loss of the reference completion, from one shared run of the prompt; or that loss alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.batching import IGNORE, collate, last_positions, micro_batches, pad_left
from trainables.exhausted import is_exhausted
from trainables.modes import evaluating
from trainables.protocols import Row, Sampling
from trainables.sampling import TAIL, Choose, chooser


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


@dataclass
class Decoded:
    """What was generated after each prompt, and how likely its reference response is.

    Attributes:
        answers: token ids of each answer, end token excluded, `(n rows, samples)`; empty where none was asked for.
        losses: negative log-likelihood of each reference response in nats, `(n rows,)`.
        tokens: tokens of each reference response, `(n rows,)`.
        loss_sum: the sum of `losses`.
    """

    answers: list[list[list[int]]]
    losses: list[float]
    tokens: list[int]
    loss_sum: float = 0.0


Items = TypeVar("Items", bound=Sequence[Any])


def by_halves(groups: Iterable[Items], work: Callable[[Items], None]) -> None:
    """Work on groups in turn, on the two halves of those that do not fit into memory. `work` may be repeated."""
    waiting = list(groups)[::-1]
    while waiting:
        group = waiting.pop()
        try:
            work(group)
        except Exception as error:
            if not is_exhausted(error) or len(group) == 1:
                raise
            error.__traceback__ = None  # its frames hold what did not fit
            middle = len(group) // 2
            waiting += [group[middle:], group[:middle]]  # type: ignore[list-item]


@torch.inference_mode()
def generate_and_score_loss(
    model: nn.Module,
    rows: Sequence[Row],
    *,
    pad_id: int,
    eos_ids: Sequence[int],
    sampling: Sampling,
    ended: Callable[[Sequence[int]], bool] | None = None,
    max_tokens: int = 8192,
    device: torch.device | str = "cpu",
) -> Decoded:
    """Answers to each prompt, and the loss of the reference responses.

    The prompt runs once: its keys and values serve the decoding, of all samples, and the teacher-forced pass over the
    reference response. Rows that do not fit into memory together are taken by halves.

    Args:
        ended: whether an answer is over, told from its tokens so far, apart from its end token.
        max_tokens: bound on the padded tokens of one batch; one row is always taken.
    """
    found = Decoded([[] for _ in rows], [0.0] * len(rows), [len(row["response_ids"]) for row in rows])
    reserve = sampling.max_new_tokens + max(found.tokens, default=0)

    def answer(group: list[int]) -> None:
        chosen = [rows[i] for i in group]
        inputs = {k: v.to(device) for k, v in pad_left([r["prompt_ids"] for r in chosen], pad_id).items()}
        last = last_positions(inputs["input_ids"], 1)
        out = model(**inputs, use_cache=True, logits_to_keep=last)
        first, cache, width = out.logits[:, -1], out.past_key_values, inputs["input_ids"].shape[1]
        total, losses = _reference_loss(model, chosen, first, cache, inputs, pad_id)
        if any(getattr(layer, "is_sliding", False) for layer in cache.layers):
            # A sliding window has dropped what a crop would need: run the prompt again.
            out = model(**inputs, use_cache=True, logits_to_keep=last)
            first, cache = out.logits[:, -1], out.past_key_values
        elif cache.get_seq_length() > width:
            cache.crop(width - cache.get_seq_length())
        if sampling.n > 1:
            cache.batch_repeat_interleave(sampling.n)
            first = first.repeat_interleave(sampling.n, dim=0)
            inputs = {name: tensor.repeat_interleave(sampling.n, dim=0) for name, tensor in inputs.items()}
        choose = chooser(sampling, chosen, device)
        answers = iter(_continue(model, first, cache, inputs, eos_ids, sampling.max_new_tokens, choose, ended))
        for i, loss in zip(group, losses, strict=True):
            found.losses[i] = loss
            found.answers[i] = [next(answers) for _ in range(sampling.n)]
        found.loss_sum += total

    by_halves(prompt_batches(rows, max_tokens // sampling.n, reserve), answer)
    return found


@torch.inference_mode()
def score_loss(
    model: nn.Module, rows: Sequence[Row], *, pad_id: int, max_tokens: int = 4096, device: torch.device | str = "cpu"
) -> Decoded:
    """The loss of the reference responses alone; nothing is generated."""
    found = Decoded([], [0.0] * len(rows), [len(row["response_ids"]) for row in rows])
    bare = [
        {"place": place, "prompt_ids": row["prompt_ids"], "response_ids": row["response_ids"]}
        for place, row in enumerate(rows)
    ]

    def score(group: Sequence[Row]) -> None:
        batch = collate(group, pad_id).to(device)
        logits = model(**batch.inputs, use_cache=False, logits_to_keep=batch.positions).logits.float()
        losses = F.cross_entropy(logits.transpose(1, 2), batch.labels, ignore_index=IGNORE, reduction="none").sum(1)
        for row, loss in zip(group, losses.tolist(), strict=True):
            found.losses[row["place"]] = loss

    by_halves(micro_batches(bare, max_tokens), score)
    found.loss_sum = math.fsum(found.losses)
    return found


def _reference_loss(
    model: nn.Module, rows: Sequence[Row], first: Tensor, cache: object, inputs: dict[str, Tensor], pad_id: int
) -> tuple[float, list[float]]:
    """Teacher-forced loss of the responses over the cached prompts, in all and of each row; the cache grows."""
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
    logits = logits.float()
    total = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE, reduction="sum")
    each = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORE, reduction="none").sum(1)
    return float(total), each.tolist()


def _continue(
    model: nn.Module,
    first: Tensor,
    cache: object,
    inputs: dict[str, Tensor],
    eos_ids: Sequence[int],
    max_new_tokens: int,
    choose: Choose,
    ended: Callable[[Sequence[int]], bool] | None,
) -> list[list[int]]:
    """Continue each row with the tokens that are chosen until an end token, the row's own end, or the limit."""
    device = first.device
    stops = torch.as_tensor(list(eos_ids), device=device)
    mask, position = inputs["attention_mask"], inputs["position_ids"][:, -1:]
    token = choose(first, 0)  # n x 1
    columns = [token]
    done = _over(torch.isin(token[:, 0], stops), columns, ended)
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
        token = choose(out.logits[:, -1], len(columns))
        columns.append(token)
        done = _over(done | torch.isin(token[:, 0], stops), columns, ended)
    stop_set = set(eos_ids)
    completions = []
    for ids in torch.cat(columns, dim=1).tolist():
        end = next((i for i, token_id in enumerate(ids) if token_id in stop_set), len(ids))
        completions.append(ids[:end])
    return completions


def _over(done: Tensor, columns: list[Tensor], ended: Callable[[Sequence[int]], bool] | None) -> Tensor:
    """`done`, `(n,)`, and the rows whose text so far says that they are."""
    if ended is None:
        return done
    so_far = torch.cat(columns[-TAIL:], dim=1).tolist()
    said = [over or ended(ids) for over, ids in zip(done.tolist(), so_far, strict=True)]
    return torch.as_tensor(said, device=done.device)


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
