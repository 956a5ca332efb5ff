"""A model's answers to rows, and what they are worth."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from trainables.decode import Decoded, Told, generate_and_score_loss, score_loss
from trainables.heads import LANGUAGE, Head
from trainables.journal import Metrics
from trainables.protocols import Mark, Outputs, Row, Scorer
from trainables.sampling import cut, stopping
from trainables.written import Writer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Sharing(Protocol):
    """How workers share rows and put their marks together; see `parallel.Parallel`."""

    rank: int
    world: int

    def sum(self, values: Sequence[float]) -> list[float]: ...

    def gather(self, value: object) -> list[Any]: ...


def evaluate_model(
    module: nn.Module,
    rows: Sequence[Row],
    scorer: Scorer,
    tokenizer: PreTrainedTokenizerBase,
    *,
    split: str = "validation",
    device: torch.device | str = "cpu",
    parallel: Sharing | None = None,
    predictions: list[dict[str, Any]] | None = None,
    head: Head = LANGUAGE,
    writer: Writer | None = None,
) -> Metrics:
    """What the model's answers are worth, by each metric that the scorer has for this split.

    What the metrics need is what is done: answers are generated only where one of them reads text, and the options of
    a row are weighed only where one asks for it. The loss of the reference completions is always there.

    Args:
        split: which of the scorer's metrics count.
        parallel: the workers that share the rows; None for one alone.
        predictions: Where given, gets one entry per row (of this worker): prompt, answer, completion, marks.
        head: what the model answers with.
        writer: what writes the answers in the model's place; the likelihoods are the model's all the same.

    Returns:
        The scorer's figures (`<name>` and `<name>_se` of each metric), `validation_loss` (nats per completion token)
        and `eval_s` (seconds), `eval_rows_per_s`. Where answers were generated, `eval_tokens_per_s` (generated ones,
        over all workers) and `answers_cut`: the share of answers that were cut off at the limit of their length.
    """
    started = time.perf_counter()
    mine = list(rows) if parallel is None else list(rows[parallel.rank :: parallel.world])
    if writer is not None and "texts" in scorer.needs(split):
        decoded = _decode_elsewhere(writer, module, mine, scorer, tokenizer, split, device)
    else:
        decoded = head.decode(module, mine, scorer, tokenizer, split, device)
    return judge(
        decoded,
        module,
        mine,
        scorer,
        tokenizer,
        split=split,
        decoding_s=time.perf_counter() - started,
        parallel=parallel,
        predictions=predictions,
    )


def decode(
    module: nn.Module,
    rows: Sequence[Row],
    scorer: Scorer,
    tokenizer: PreTrainedTokenizerBase,
    *,
    split: str = "validation",
    device: torch.device | str = "cpu",
    told: Told | None = None,
) -> Decoded:
    """The losses of the references, and answers where a metric of the scorer reads them.

    Args:
        told: see `generate_and_score_loss`.
    """
    pad = pad_token(tokenizer)
    if "texts" not in scorer.needs(split):
        return score_loss(module, rows, pad_id=pad, device=device, told=told)
    return generate_and_score_loss(
        module,
        rows,
        pad_id=pad,
        eos_ids=_ends(module, rows, tokenizer),
        sampling=scorer.sampling,
        ended=stopping(tokenizer, scorer.sampling.stop),
        device=device,
        told=told,
    )


def _decode_elsewhere(
    writer: Writer,
    module: nn.Module,
    rows: Sequence[Row],
    scorer: Scorer,
    tokenizer: PreTrainedTokenizerBase,
    split: str,
    device: torch.device | str,
) -> Decoded:
    """As `decode`, with the answers of the writer: while it is at them, the model scores the references."""
    import ray

    dtype = str(next(module.parameters()).dtype).removeprefix("torch.")
    waiting = writer.ask(rows, scorer.sampling, _ends(module, rows, tokenizer), dtype)
    found = score_loss(module, rows, pad_id=pad_token(tokenizer), device=device)
    wrote = ray.get(waiting)
    if wrote is None:
        return decode(module, rows, scorer, tokenizer, split=split, device=device)
    return replace(found, answers=wrote.answers, cuts=wrote.cuts)


def _ends(module: nn.Module, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end an answer to one of these rows."""
    return sorted({*end_tokens(module, tokenizer), *turn_ends(rows, tokenizer)})


def judge(
    decoded: Decoded,
    module: nn.Module,
    rows: Sequence[Row],
    scorer: Scorer,
    tokenizer: PreTrainedTokenizerBase,
    *,
    decoding_s: float,
    split: str = "validation",
    parallel: Sharing | None = None,
    predictions: list[dict[str, Any]] | None = None,
) -> Metrics:
    """What was decoded is worth, as `evaluate_model` gives it; options are weighed here.

    Args:
        rows: those that were decoded. decoding_s: seconds that it took.
    """
    started = time.perf_counter()
    outputs = _outputs(decoded, module, rows, scorer, tokenizer, split)
    marks = scorer.marks(split, outputs, rows) if rows else []
    if predictions is not None:
        texts = outputs.texts or [[""]] * len(rows)
        predictions.extend(_prediction(*item) for item in zip(rows, texts, marks, strict=True))
    written = [ids for answers in decoded.answers for ids in answers]
    counts = (sum(decoded.tokens), len(rows), len(written), sum(map(len, written)), decoded.cut)
    sums = [decoded.loss_sum, *map(float, counts)]
    loss_sum, tokens, count, answers, words, cut_off = sums if parallel is None else parallel.sum(sums)
    figures = scorer.figures(split, marks if parallel is None else _in_order(parallel.gather(marks)))
    seconds = decoding_s + time.perf_counter() - started
    generated = {"eval_tokens_per_s": words / seconds, "answers_cut": cut_off / answers} if answers else {}
    return {
        **figures,
        "validation_loss": figures.get("validation_loss", loss_sum / max(1.0, tokens)),
        "eval_s": seconds,
        "eval_rows_per_s": count / seconds,
        **generated,
    }


def _outputs(
    decoded: Decoded,
    module: nn.Module,
    rows: Sequence[Row],
    scorer: Scorer,
    tokenizer: PreTrainedTokenizerBase,
    split: str,
) -> Outputs:
    needs, stop = scorer.needs(split), scorer.sampling.stop
    flat = [ids for answers in decoded.answers for ids in answers]
    written = iter(tokenizer.batch_decode(flat, skip_special_tokens=True) if flat else [])
    texts = [[cut(next(written), stop) for _ in answers] for answers in decoded.answers]
    if decoded.texts is not None:
        texts = [[text] for text in decoded.texts]
    options = scorer.measure(split, module, tokenizer, rows) if "options" in needs else ()
    losses = list(zip(decoded.losses, decoded.tokens, strict=True)) if "losses" in needs else ()
    return Outputs(texts, losses, options)


def _in_order(parts: Sequence[Sequence[Mark]]) -> list[Mark]:
    """The marks of all workers in the order of the rows, of which worker `i` of `N` had `i, i + N, ...`."""
    marks: list[Mark] = []
    for place in range(max(map(len, parts), default=0)):
        marks += [part[place] for part in parts if place < len(part)]
    return marks


def _prediction(row: Row, texts: Sequence[str], mark: Mark) -> dict[str, Any]:
    """A line of the predictions file."""
    kept = {name: row.get(name) for name in ("row", "prompt", "answer")}
    more = {} if len(texts) < 2 else {"completions": list(texts)}
    return {**kept, "completion": texts[0], **more, **_columns(mark)}


def _columns(mark: Mark) -> dict[str, object]:
    """The marks as columns: `score` where there is one metric, else one of each metric's name."""
    values = {name: _number(value) for name, value in mark["values"].items()}
    return {"score": next(iter(values.values()), None), **(values if len(values) > 1 else {})}


def _number(value: object) -> float | None:
    first = value[0] if isinstance(value, tuple | list) and value else value
    return float(first) if isinstance(first, int | float) else None


def pad_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that fills a batch: the tokenizer's own, else the one that ends a text."""
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id


def turn_ends(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The control tokens that the rows' responses end with: a chat template may end a turn with one of its own."""
    control = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return {int(row["response_ids"][-1]) for row in rows if len(row["response_ids"])} & control


def end_tokens(module: nn.Module, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token that ends a completion: the tokenizer's and those of the generation config."""
    config = getattr(module, "generation_config", None)
    ids = getattr(config, "eos_token_id", None)
    listed = [] if ids is None else ids if isinstance(ids, list) else [ids]
    return sorted({*listed, tokenizer.eos_token_id})
