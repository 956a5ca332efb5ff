"""Answers and the loss of the reference completion, from one shared run of the prompt; or that loss alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.batching import IGNORE, collate, micro_batches, pad_left
from trainables.exhausted import is_exhausted
from trainables.generation import Ends, Prompted, continue_all, read_prompts
from trainables.modes import evaluating
from trainables.protocols import Row, Sampling
from trainables.sampling import chooser

# Bounds on what is continued together: bytes of keys and values, and rows, each of which has a row of logits.
CACHE_BYTES, ROWS = 2 << 30, 512


def prompt_batches(rows: Sequence[Row], max_tokens: int, reserve: int, most: int = 1 << 30) -> list[list[int]]:
    """Indices of rows grouped by prompt length: at most `max_tokens` padded tokens with the reserve, and `most` rows.

    One row is always taken.
    """
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["prompt_ids"]), reverse=True)
    groups: list[list[int]] = []
    for i in order:
        width = 0 if not groups else len(rows[groups[-1][0]]["prompt_ids"]) + reserve
        if groups and (len(groups[-1]) + 1) * width <= max_tokens and len(groups[-1]) < most:
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
        cuts: how many answers of each row were cut off at the limit of their length, without an end of their own.
        texts: the answers of a model that writes none, such as labels, `(n rows,)`.
    """

    answers: list[list[list[int]]]
    losses: list[float]
    tokens: list[int]
    loss_sum: float = 0.0
    cuts: list[int] = field(default_factory=list)
    texts: list[str] | None = None

    @property
    def cut(self) -> int:
        """How many answers were cut off in all."""
        return sum(self.cuts)

    def part(self, rows: slice) -> Decoded:
        """Of some of the rows."""
        losses = self.losses[rows]
        return Decoded(self.answers[rows], losses, self.tokens[rows], math.fsum(losses), self.cuts[rows])


Told = Callable[[Sequence[int]], None]
"""Called before each call of a model with which of all rows its batch holds, in the order of the batch, `(n,)`."""

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


@torch.no_grad()  # what inference mode makes of partitioned weights could not be trained with
def generate_and_score_loss(
    model: nn.Module,
    rows: Sequence[Row],
    *,
    pad_id: int,
    eos_ids: Sequence[int],
    sampling: Sampling,
    ended: Callable[[Sequence[int]], bool] | None = None,
    limits: Sequence[int] | None = None,
    max_tokens: int = 8192,
    device: torch.device | str = "cpu",
    told: Told | None = None,
) -> Decoded:
    """Answers to each prompt, and the loss of the reference responses.

    The prompt runs once: its keys and values serve the decoding, of all samples, and the teacher-forced pass over the
    reference response. Prompts run in batches of like length; as many rows as their keys and values leave room for are
    then continued together, and leave as their answers end. Rows that do not fit into memory are taken by halves.

    Args:
        ended: whether an answer is over, told from its last tokens, apart from its end token.
        limits: longest answer to each row in tokens, `(n,)`, where they differ; none above that of `sampling`.
        max_tokens: bound on the padded tokens of one pass over prompts and references; one row is always taken.
        told: for a model that treats each row in its own way; rows that run together stand in order as far as they can.
    """
    found = Decoded([[] for _ in rows], [0.0] * len(rows), [len(row["response_ids"]) for row in rows])
    found.cuts = [0] * len(rows)
    held = max(max_tokens, CACHE_BYTES // cache_bytes(model)) // sampling.n
    stops = frozenset(map(int, eos_ids))

    def answer(group: list[int]) -> None:
        chosen = [rows[i] for i in group]
        parts = []
        for places in prompt_batches(chosen, max_tokens, max(found.tokens[i] for i in group)):
            if told is not None:
                places.sort(key=group.__getitem__)
                told([group[place] for place in places])
            part, total, losses = _prompted(model, [chosen[place] for place in places], pad_id, device)
            found.loss_sum += total
            for place, loss in zip(places, losses, strict=True):
                found.losses[group[place]] = loss
            parts.append((places, part))
        joined = [parts] if all(part.joinable for _, part in parts) else [[one] for one in parts]
        while joined:
            together = joined.pop()
            order = [group[place] for places, _ in together for place in places]
            own = None if limits is None else [limits[i] for i in order for _ in range(sampling.n)]
            ends = Ends(stops, sampling.max_new_tokens, ended, own)
            choose = chooser(sampling, [rows[i] for i in order], device)
            of_rows = None if told is None else _of_prompts(told, order, sampling.n)
            parted = [part for _, part in together]
            answers = iter(continue_all(model, parted, ends, choose, sampling.n, told=of_rows))
            for i in order:
                found.answers[i] = [next(answers) for _ in range(sampling.n)]

    by_halves(prompt_batches(rows, held, sampling.max_new_tokens, most=ROWS // sampling.n), answer)
    whole = Ends(stops, sampling.max_new_tokens + 1, ended)
    full = [(row, ids) for row, each in enumerate(found.answers) for ids in each if len(ids) == sampling.max_new_tokens]
    for row, ids in full:
        found.cuts[row] += not whole.reached(0, ids)
    return found


def _of_prompts(told: Told, order: Sequence[int], repeats: int) -> Told:
    """To be told of answers, of which each row in the order has `repeats` that stand next to each other."""
    return lambda answers: told([order[answer // repeats] for answer in answers])


def cache_bytes(model: nn.Module) -> int:
    """About what the keys and values of one token take, in bytes."""
    base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = base.config.get_text_config(decoder=True)
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = getattr(config, "num_key_value_heads", None) or heads
    return int(2 * config.num_hidden_layers * kept * size * next(model.parameters()).element_size())


@torch.no_grad()  # what inference mode makes of partitioned weights could not be trained with
def score_loss(
    model: nn.Module,
    rows: Sequence[Row],
    *,
    pad_id: int,
    max_tokens: int = 4096,
    device: torch.device | str = "cpu",
    told: Told | None = None,
) -> Decoded:
    """The loss of the reference responses alone; nothing is generated. `told`: as in `generate_and_score_loss`."""
    found = Decoded([], [0.0] * len(rows), [len(row["response_ids"]) for row in rows])
    bare = [
        {"place": place, "prompt_ids": row["prompt_ids"], "response_ids": row["response_ids"]}
        for place, row in enumerate(rows)
    ]

    def score(group: Sequence[Row]) -> None:
        if told is not None:
            group = sorted(group, key=lambda row: row["place"])
            told([row["place"] for row in group])
        batch = collate(group, pad_id).to(device)
        logits = model(**batch.inputs, use_cache=False, logits_to_keep=batch.positions).logits.float()
        losses = F.cross_entropy(logits.transpose(1, 2), batch.labels, ignore_index=IGNORE, reduction="none").sum(1)
        for row, loss in zip(group, losses.tolist(), strict=True):
            found.losses[row["place"]] = loss

    by_halves(micro_batches(bare, max_tokens), score)
    found.loss_sum = math.fsum(found.losses)
    return found


def _prompted(
    model: nn.Module, rows: Sequence[Row], pad_id: int, device: torch.device | str
) -> tuple[Prompted, float, list[float]]:
    """The prompts as the model has read them, and the loss of their references, in all and of each, from one run."""
    inputs = {k: v.to(device) for k, v in pad_left([r["prompt_ids"] for r in rows], pad_id).items()}
    read, width = read_prompts(model, inputs), inputs["input_ids"].shape[1]
    total, losses = _reference_loss(model, rows, read.logits, read.cache, inputs, pad_id)
    if any(getattr(layer, "is_sliding", False) for layer in read.cache.layers):
        # A sliding window has dropped what a crop would need: run the prompt again.
        read = read_prompts(model, inputs)
    elif read.cache.get_seq_length() > width:
        read.cache.crop(width - read.cache.get_seq_length())
    return read, total, losses


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


@torch.no_grad()
def mean_loss(module: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> float:
    """Cross-entropy per completion token in evaluation mode, nats; NaN without batches.

    Args:
        batches: as `heads.Head.labelled` makes them; of a classification head, the mean is over rows.
    """
    total, count = torch.zeros(()), 0
    with evaluating(module):
        for loss, size in _summed_losses(module, batches):
            total, count = total.to(loss.device) + loss, count + size
    return float(total) / count if count else math.nan


def mean_loss_and_gradients(
    module: nn.Module, batches: Iterable[Mapping[str, Tensor]], parameters: Sequence[Tensor]
) -> tuple[float, list[Tensor]]:
    """`mean_loss` and its gradients; what parameters have collected in `grad` is left alone.

    Returns:
        The loss, and a gradient of the shape of each parameter, zero where the loss does not depend on it.
    """
    total, count = torch.zeros(()), 0
    gradients = [torch.zeros_like(parameter, requires_grad=False) for parameter in parameters]
    with evaluating(module), torch.enable_grad():
        for loss, size in _summed_losses(module, batches):
            found = torch.autograd.grad(loss, parameters, allow_unused=True)
            for gradient, one in zip(gradients, found, strict=True):
                if one is not None:
                    gradient += one
            total, count = total.to(loss.device) + loss.detach(), count + size
    if not count:
        return math.nan, gradients
    return float(total) / count, [gradient.div_(count) for gradient in gradients]


def _summed_losses(module: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> Iterator[tuple[Tensor, int]]:
    """Cross-entropy over each batch's completion tokens (of a classification head, its rows), and their number."""
    for batch in batches:
        labels = batch["labels"]  # (rows, length), or (rows,) of a classification head
        if labels.ndim == 1:
            yield module(**batch).loss.float() * len(labels), len(labels)
            continue
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        wanted = labels != IGNORE
        first = max(1, int(wanted.any(dim=0).nonzero()[0]))
        keep = torch.arange(first - 1, labels.shape[1] - 1, device=labels.device)
        logits = module(**inputs, use_cache=False, logits_to_keep=keep).logits.float()
        targets = labels[:, first:].flatten()
        loss = F.cross_entropy(logits.flatten(0, 1), targets, ignore_index=IGNORE, reduction="sum")
        yield loss, int(wanted[:, first:].sum())
