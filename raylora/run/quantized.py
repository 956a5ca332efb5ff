"""A run whose base was quantised, and the full-precision base that its adapter is for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylora.run.summary import read_summary
from raylora.spec import Spec
from trainables.variants import declared

if TYPE_CHECKING:
    import torch

# Of the rows that the final stage answered; tokens of each.
ROWS, TOKENS = 8, 128


def laid_over(spec: Spec, run: Path) -> str:
    """What the base of a run's adapter is quantised by where the adapter is scored or served: as it was trained.

    A start that made good what quantising had cost (`loftq`) was trained over a base of its own making, to which the
    full-precision one is nearer than one that is quantised anew.
    """
    if spec.quantization == "none":
        return "none"
    summary = read_summary(run)
    variant = summary["best"]["config"].get("variant", "lora") if summary else "lora"
    return "none" if declared(str(variant)).quantized == "only" else spec.quantization


@dataclass(frozen=True)
class Difference:
    """The adapter over its full-precision base, and over the quantised one that it was trained on.

    Attributes:
        loss, quantized_loss: nats per token of rows that the final stage answered, prompt and reference.
        logits: root mean square of the differences of logits, each position's less their mean.
        agreed: part of the positions at which the likeliest token is the same.
        rows, tokens: what was looked at.
    """

    quantization: str
    loss: float
    quantized_loss: float
    logits: float
    agreed: float
    rows: int
    tokens: int

    def told(self) -> str:
        """In a line."""
        return (
            f"loss {self.loss:.4f} over the full-precision base, {self.quantized_loss:.4f} over the "
            f"{self.quantization} one that the adapter was trained on; logits differ by {self.logits:.3g} (root mean "
            f"square), the likeliest token is the same at {100 * self.agreed:.1f} % of {self.tokens} positions in "
            f"{self.rows} rows"
        )


def difference(run: Path, spec: Spec, adapter: Path, device: str = "auto") -> Difference | None:
    """Loads both bases, one after the other, and compares what the adapter makes of them.

    None where the base was not quantised, where it is not there again (see `laid_over`), where the run has a
    classification head, or where the final stage left no rows.
    """
    rows = _rows(run) if spec.task.head == "language" and laid_over(spec, run) != "none" else []
    if not rows:
        return None
    held = list(_logits(spec, adapter, rows, "none", device))
    sums = [0.0, 0.0, 0.0, 0.0]
    tokens = 0
    for (full, ids), (quantized, _) in zip(held, _logits(spec, adapter, rows, spec.quantization, device), strict=True):
        tokens += len(ids)
        for place, value in enumerate(_compared(full, quantized, ids)):
            sums[place] += value
    loss, other, square, agreed = (value / tokens for value in sums)
    return Difference(spec.quantization, loss, other, square**0.5, agreed, len(rows), tokens)


def _compared(full: torch.Tensor, quantized: torch.Tensor, ids: torch.Tensor) -> Iterator[float]:
    """Of logits `(t, vocabulary)` and the ids `(t,)` that follow: both losses, square difference, agreement; sums."""
    from torch.nn import functional as F

    for logits in (full, quantized):
        yield float(F.cross_entropy(logits, ids, reduction="sum"))
    apart = full - quantized
    yield float((apart - apart.mean(dim=1, keepdim=True)).square().mean(dim=1).sum())
    yield float((full.argmax(dim=1) == quantized.argmax(dim=1)).sum())


def _rows(run: Path) -> list[str]:
    """Prompts with their references, as text."""
    import pyarrow.parquet as pq

    found: list[str] = []
    for file in sorted((run / "final" / "best-0").glob("*.parquet")):
        table = pq.read_table(file, columns=["prompt", "answer"])
        found += [f"{row['prompt']}{row['answer']}" for row in table.to_pylist()]
    return found[:ROWS]


def _logits(
    spec: Spec, adapter: Path, rows: list[str], quantization: str, device: str
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Of each row logits `(t, vocabulary)` in float32 and the ids `(t,)` that follow, on the CPU."""
    import torch

    from raylora.models import resolve
    from trainables.scored import over_base
    from trainables.session import load_model

    loaded, tokenizer = load_model(resolve(spec.model, quiet=True), spec.dtype, device, quantization=quantization)
    model: Any = loaded
    place = next(model.parameters()).device
    with over_base(model, tokenizer, str(adapter)) as module, torch.inference_mode():
        for row in rows:
            ids = tokenizer(row, add_special_tokens=False, return_tensors="pt")["input_ids"][:, :TOKENS]
            if ids.shape[1] > 1:
                logits = module(input_ids=ids.to(place)).logits[0, :-1].float().cpu()
                yield logits, ids[0, 1:]
