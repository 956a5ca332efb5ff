"""What a model answers with: its language model's head, or a classification head that is trained with the adapter.

Imports no torch: heads are part of a `TrialSetup`, which is made where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from trainables.batching import Batch
    from trainables.decode import Decoded
    from trainables.protocols import Row, Scorer
    from trainables.variants.core.snapshot import Snapshot


class Head(Protocol):
    """How a model is loaded, what its loss is, how it answers, and what of it is trained beside an adapter."""

    def load(self, folder: str | Path, dtype: torch.dtype, pad_id: int, **how: Any) -> PreTrainedModel:
        """The model of a folder with this head, on the CPU unless `how` (of `from_pretrained`) says otherwise."""
        ...

    def empty(self, folder: str | Path) -> PreTrainedModel:
        """The same without weights, on the meta device, from the folder's configuration."""
        ...

    def count(self, row: Row) -> int:
        """How many times the loss of a row counts in a mean: its trained tokens, or 1."""
        ...

    def collate(self, rows: Sequence[Row], pad_id: int) -> Batch:
        """The rows as one padded batch."""
        ...

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """The summed loss of a batch, a scalar."""
        ...

    def labelled(
        self, rows: Sequence[Row], pad_id: int, max_tokens: int, device: torch.device
    ) -> list[dict[str, Tensor]]:
        """The rows in micro-batches, as keyword arguments of the model with `labels`."""
        ...

    def decode(
        self,
        module: nn.Module,
        rows: Sequence[Row],
        scorer: Scorer,
        tokenizer: PreTrainedTokenizerBase,
        split: str,
        device: torch.device | str,
    ) -> Decoded:
        """The losses of the rows, and the model's answers where the scorer reads them."""
        ...

    def free(self, model: nn.Module, snapshot: Snapshot) -> list[nn.Parameter]:
        """Sets free what is trained beside any adapter; taking the adapter off puts its values back."""
        ...

    def write(self, model: nn.Module, folder: Path) -> None:
        """Adds that to an adapter's folder."""
        ...


class LanguageHead:
    """A causal language model's own: nothing of it is trained beside the adapter."""

    def load(self, folder: str | Path, dtype: torch.dtype, pad_id: int, **how: Any) -> PreTrainedModel:
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **how)

    def empty(self, folder: str | Path) -> PreTrainedModel:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))

    def count(self, row: Row) -> int:
        from trainables.batching import trained_tokens

        return trained_tokens(row)

    def collate(self, rows: Sequence[Row], pad_id: int) -> Batch:
        from trainables.batching import collate

        return collate(rows, pad_id)

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """Summed cross-entropy over the completion tokens."""
        from torch.nn import functional as F

        from trainables.batching import IGNORE

        out = module(**batch.inputs, use_cache=False, logits_to_keep=batch.positions)
        logits = out.logits.float()  # n x k x vocabulary
        return F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORE, reduction="sum")

    def labelled(
        self, rows: Sequence[Row], pad_id: int, max_tokens: int, device: torch.device
    ) -> list[dict[str, Tensor]]:
        from trainables.batching import labelled_batches

        return labelled_batches(rows, pad_id, max_tokens, device)

    def decode(
        self,
        module: nn.Module,
        rows: Sequence[Row],
        scorer: Scorer,
        tokenizer: PreTrainedTokenizerBase,
        split: str,
        device: torch.device | str,
    ) -> Decoded:
        from trainables.evaluation import decode

        return decode(module, rows, scorer, tokenizer, split=split, device=device)

    def free(self, model: nn.Module, snapshot: Snapshot) -> list[nn.Parameter]:
        return []

    def write(self, model: nn.Module, folder: Path) -> None:
        """Nothing: the folder is whole."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LanguageHead)

    def __hash__(self) -> int:
        return hash(LanguageHead)


LANGUAGE = LanguageHead()


def forward_only(model: Any) -> dict[str, bool]:
    """Keyword arguments of a pass whose keys and values nobody reads: models without a cache take none."""
    return {"use_cache": False} if hasattr(model, "prepare_inputs_for_generation") else {}
