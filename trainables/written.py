"""Answers that another process than the model's own writes: what it is asked, and what it gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainables.protocols import Row, Sampling

if TYPE_CHECKING:
    from ray import ObjectRef


@dataclass(frozen=True)
class Asked:
    """Prompts to be answered by an adapter over the base model.

    Attributes:
        adapter: its folder, as `Variant.save_adapter` writes it; "" for the base model itself.
        prompts: token ids, `(n,)`.
        ends: tokens that end an answer.
        dtype: of the base, as torch spells it.
        merge: an adapter that cannot be loaded is merged into the model, which takes long; else there are no answers.
        limits: longest answer to each prompt in tokens, `(n,)`, where they differ.
    """

    adapter: str
    prompts: Sequence[Sequence[int]]
    sampling: Sampling
    ends: Sequence[int]
    dtype: str
    merge: bool = False
    limits: Sequence[int] | None = None


@dataclass(frozen=True)
class Wrote:
    """Token ids of each answer, end token excluded, `(n rows, samples)`, and how many of a row's were cut off, `(n,)`.

    As `decode.Decoded` has them.
    """

    answers: list[list[list[int]]]
    cuts: list[int]


@dataclass(frozen=True)
class Writer:
    """An adapter's answers, by an engine.

    Attributes:
        engine: handle of an actor whose `write(Asked)` gives a `Wrote`, or None where it cannot have the adapter.
        adapter, merge: as in `Asked`.
    """

    engine: Any
    adapter: str = ""
    merge: bool = False

    def ask(self, rows: Sequence[Row], sampling: Sampling, ends: Sequence[int], dtype: str) -> ObjectRef[Wrote | None]:
        """Begins the answers to rows; `ray.get` waits for them."""
        prompts = [list(map(int, row["prompt_ids"])) for row in rows]
        found: ObjectRef[Wrote | None] = self.engine.write.remote(
            Asked(self.adapter, prompts, sampling, ends, dtype, self.merge)
        )
        return found
