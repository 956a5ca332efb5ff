"""A model, or an adapter over it from anywhere, scored as the final stage scores."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from trainables.evaluation import evaluate_model
from trainables.journal import Metrics
from trainables.modes import evaluating
from trainables.protocols import TrialSetup
from trainables.rows import as_rows
from trainables.variants.core.export import exported_adapter
from trainables.written import Writer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Scored:
    """What a model's answers to a set of rows are worth.

    Attributes:
        metrics: as `evaluate_model` gives them.
        answers: one entry per row: `row`, `prompt`, `answer`, `completion` and its scores.
    """

    metrics: Metrics = field(default_factory=dict)
    answers: Sequence[Mapping[str, object]] = ()


def score(
    adapter: str, sets: Mapping[str, Sequence[Any]], setup: TrialSetup, model: PreTrainedModel, tokenizer: Any
) -> dict[str, Scored]:
    """Score the adapter of a folder over `model`, or `model` itself where there is none.

    Args:
        adapter: what PEFT saved, or whole matrices as `save_tuned_weights` writes them; "" for none.
        sets: split of the scorer -> its `Rows`, or object references of its tables.

    Raises:
        ValueError, RuntimeError: the adapter does not belong to this model.
    """
    with over_base(model, tokenizer, adapter) as module, evaluating(module):
        writer = None if setup.engine is None else Writer(setup.engine, adapter, merge=True)
        return {split: _scored(module, split, as_rows(rows), setup, tokenizer, writer) for split, rows in sets.items()}


def over_base(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, adapter: str
) -> contextlib.AbstractContextManager[nn.Module]:
    """The adapter of a folder over `model` for the duration, with room for the tokenizer's tokens; "" for none.

    Raises:
        ValueError, RuntimeError: on entering; the adapter does not belong to this model.
    """
    make_room(model, tokenizer)
    return exported_adapter(model, Path(adapter)) if adapter else contextlib.nullcontext(model)


def make_room(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Embeddings for the tokens that a tokenizer of the adapter's own has added, as PEFT makes them."""
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer))


def _scored(
    module: nn.Module, split: str, rows: Sequence[Any], setup: TrialSetup, tokenizer: Any, writer: Writer | None
) -> Scored:
    answers: list[dict[str, Any]] = []
    metrics = evaluate_model(
        module,
        rows,
        setup.scorer,
        tokenizer,
        split=split,
        device=next(module.parameters()).device,
        predictions=answers,
        head=setup.head,
        writer=writer,
    )
    return Scored(metrics, answers)
