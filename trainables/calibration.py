"""What a few optimizer steps and one evaluation cost here: the measured points of a model of costs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypedDict

import torch

from trainables.evaluation import evaluate_model, pad_token
from trainables.memory import available_bytes, peak_memory_gb, reset_peak_memory
from trainables.modes import evaluating
from trainables.protocols import Scorer, TrialSetup
from trainables.rows import Rows, as_rows
from trainables.run import TrialRun
from trainables.variants.core.matrices import find_matrices, select_matrices
from trainables.written import Writer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Rows of the evaluation: a GPU scores many in the time of a few.
_FEW_ROWS, _FEW_TOKENS, _ROWS = 2, 8, {"cuda": 64, "cpu": 8}


class MeasuredStep(TypedDict):
    """An optimizer step of LoRA on `batch_size` rows with `tokens` in all: seconds, and the peak memory in GB."""

    rank: int
    batch_size: int
    tokens: float
    seconds: float
    peak_gb: float


class Calibration(TypedDict):
    """What was measured.

    `parameters`, `layers`, `hidden`, `vocabulary`, `weight_bytes`: of the model. `adapter_per_rank`: weights that one
    rank of LoRA adds over the adapted matrices. `tokens_per_row`: mean over the steps. `evaluation_row_s`: seconds to
    score a row. `attach_s`: seconds to attach an adapter. `resident_gb`: of the host before it trained. `available_gb`:
    what its device could still give then. `spent_s`: seconds that all this took.
    """

    parameters: int
    layers: int
    hidden: int
    vocabulary: int
    weight_bytes: int
    adapter_per_rank: int
    tokens_per_row: float
    evaluation_row_s: float
    attach_s: float
    resident_gb: float
    available_gb: float
    steps: list[MeasuredStep]
    spent_s: float


def calibrate(
    setup: TrialSetup,
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    *,
    ranks: Sequence[int],
    batch_sizes: Sequence[int],
    limit_s: float,
) -> Calibration:
    """Take two steps of LoRA at each rank and batch size, score a few rows, and leave the model as it was.

    The cheapest point comes first, then the evaluation; the others follow for as long as `limit_s` seconds would not be
    exceeded by them.
    """
    started = time.monotonic()
    train, validation = as_rows(setup.train), as_rows(setup.validation)
    device = next(model.parameters()).device
    reset_peak_memory(device)
    resident, available = peak_memory_gb(device), available_bytes(device) / 1e9
    steps: list[MeasuredStep] = []
    attached: list[float] = []
    scored = 0.0
    for rank, batch_size in _points(ranks, batch_sizes, len(train)):
        if steps:
            longest = max(step["seconds"] / step["batch_size"] for step in steps)
            if time.monotonic() - started + 2 * batch_size * longest > limit_s:
                break
        step, attach_s = _measure(setup, model, tokenizer, rank, batch_size)
        steps.append(step)
        attached.append(attach_s)
        if len(steps) == 1:
            scored = _score(setup, model, tokenizer, validation, started + limit_s)
    config = model.config
    return {
        "parameters": sum(p.numel() for p in model.parameters())
        + sum(matrix.rows * matrix.columns for matrix in find_matrices(model) if matrix.quantized is not None),
        "layers": int(config.num_hidden_layers),
        "hidden": int(config.hidden_size),
        "vocabulary": int(config.vocab_size),
        "weight_bytes": next(model.parameters()).element_size(),
        "adapter_per_rank": sum(m.rows + m.columns for m in select_matrices(model, setup.settings.placement)),
        "tokens_per_row": sum(s["tokens"] for s in steps) / sum(s["batch_size"] for s in steps),
        "evaluation_row_s": scored,
        "attach_s": sum(attached) / len(attached),
        "resident_gb": resident,
        "available_gb": available,
        "steps": steps,
        "spent_s": time.monotonic() - started,
    }


class _Brief:
    """A scorer whose answers are cut short: what it thinks of them does not matter here."""

    def __init__(self, scorer: Scorer, tokens: int) -> None:
        self._scorer = scorer
        self.sampling = replace(scorer.sampling, max_new_tokens=tokens)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scorer, name)


def _score(
    setup: TrialSetup, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, validation: Rows, until: float
) -> float:
    """Seconds to score a row: from short answers to a few rows, and where there is time, from whole answers to more."""
    device, scorer = next(model.parameters()).device, setup.scorer
    writer = None if setup.engine is None else Writer(setup.engine)
    whole = scorer.sampling.max_new_tokens if "texts" in scorer.needs("validation") else 0
    brief = min(whole, _FEW_TOKENS)

    def seconds(rows: Rows, judge: Any) -> float:
        with evaluating(model):
            found = evaluate_model(model, rows, judge, tokenizer, device=device, head=setup.head, writer=writer)
        return float(found["eval_s"] or 0.0)

    few, more = validation[:_FEW_ROWS], validation[: _ROWS.get(device.type, _ROWS["cpu"])]
    # A token of all answers comes after the other: twice as many take twice as long.
    guess = seconds(few, _Brief(scorer, brief) if brief < whole else scorer) * (whole / brief if brief else 1.0)
    if time.monotonic() + 2 * guess > until:
        # Rows that are scored together share most of the time of a token.
        return guess / max(1, len(more) if whole else len(few))
    return seconds(more, scorer) / max(1, len(more))


def _points(ranks: Sequence[int], batch_sizes: Sequence[int], rows: int) -> list[tuple[int, int]]:
    """Ranks and batch sizes to measure, the cheapest first; the second is the largest batch at the smallest rank."""
    batches = sorted({max(1, min(batch, rows)) for batch in batch_sizes})
    return [(rank, batch) for rank in sorted(set(ranks)) for batch in batches]


def _measure(
    setup: TrialSetup, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, rank: int, batch_size: int
) -> tuple[MeasuredStep, float]:
    """The second of two steps (the first allocates), and the seconds to attach."""
    knobs = {"variant": "lora", "rank": rank, "alpha_ratio": 1.0, "learning_rate": 1e-6, "batch_size": batch_size}
    settings = replace(setup.settings, samples=2 * batch_size, match_parameters=None)
    run = TrialRun(model, knobs, as_rows(setup.train), settings, pad_id=pad_token(tokenizer), head=setup.head)
    try:
        run.train_step()
        before = run.tokens
        _wait(run.device)
        started = time.perf_counter()
        run.train_step()
        _wait(run.device)
        seconds = time.perf_counter() - started
        peak = peak_memory_gb(run.device)
        tokens = float(run.tokens - before)
        return {
            "rank": rank,
            "batch_size": batch_size,
            "tokens": tokens,
            "seconds": seconds,
            "peak_gb": peak,
        }, run.attach_s
    finally:
        run.close()


def _wait(device: torch.device) -> None:
    """A GPU computes behind the clock's back."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
