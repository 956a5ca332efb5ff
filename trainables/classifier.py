"""A classification head: transformers' AutoModelForSequenceClassification, over decoders and encoders."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.protocols import Row, Scorer

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from trainables.batching import Batch
    from trainables.decode import Decoded
    from trainables.variants.core.snapshot import Snapshot

_WHOLE = re.compile(r"([-+]?\d+)\.0+")


def label_of(answer: str) -> str:
    """A label as it is told apart from others: without the spaces around it; a whole number without its zeros."""
    text = answer.strip()
    whole = _WHOLE.fullmatch(text)
    return whole.group(1) if whole else text


def number_of(answer: str) -> float:
    """The number that a row of a regression has as its answer. Raises ValueError where it is none, or not finite."""
    value = float(answer)
    if not math.isfinite(value):
        raise ValueError(f"{answer!r} is not finite")
    return value


def label_order(label: str) -> tuple[bool, float, str]:
    """A key to sort labels by: numbers by their size, before words."""
    try:
        return False, number_of(label), label
    except ValueError:
        return True, 0.0, label


@dataclass(frozen=True)
class ClassifierHead:
    """A linear (or small) head over one vector of each row, new where the checkpoint has none of this size.

    It is trained with the adapter, as PEFT's task type SEQ_CLS has it: same rate, AdamW, in fp32 whatever the base's
    type. The loss of a row is its cross-entropy in nats, or the squared error of a regression.

    Attributes:
        labels: the classes in the order of the logits; empty for a regression.
        seed: of a new head's values.
    """

    labels: tuple[str, ...] = ()
    seed: int = 0

    @property
    def regression(self) -> bool:
        return not self.labels

    # ---- the model ------------------------------------------------------------------------------------

    def _config(self, folder: str | Path) -> PretrainedConfig:
        from transformers import AutoConfig

        names = self.labels or ("LABEL_0",)
        config = AutoConfig.from_pretrained(folder)
        config.id2label = dict(enumerate(names))
        config.label2id = {name: place for place, name in enumerate(names)}
        config.problem_type = "regression" if self.regression else "single_label_classification"
        return config

    def load(self, folder: str | Path, dtype: torch.dtype, pad_id: int, **how: Any) -> PreTrainedModel:
        from transformers import AutoModelForSequenceClassification

        from trainables.variants.core.matrices import head_modules
        from trainables.variants.core.snapshot import seeded

        config = self._config(folder)
        # Decoders answer at the last token that is no padding.
        text = config.get_text_config()
        text.pad_token_id, text.use_cache = pad_id, False
        with seeded(self.seed):
            model = AutoModelForSequenceClassification.from_pretrained(
                folder, config=config, dtype=dtype, ignore_mismatched_sizes=True, **how
            )
        for name in head_modules(model):
            _in_full_precision(model.get_submodule(name))
        return model

    def empty(self, folder: str | Path) -> PreTrainedModel:
        import torch
        from transformers import AutoModelForSequenceClassification

        with torch.device("meta"):
            return AutoModelForSequenceClassification.from_config(self._config(folder))

    def free(self, model: nn.Module, snapshot: Snapshot) -> list[nn.Parameter]:
        from trainables.variants.core.matrices import head_modules

        found = []
        for name in head_modules(model):
            for parameter in model.get_submodule(name).parameters():
                snapshot.rewrite(parameter, parameter.data.clone())
                found.append(parameter.requires_grad_(True))
        return found

    def write(self, model: nn.Module, folder: Path) -> None:
        from trainables.variants.core.export import add_modules
        from trainables.variants.core.matrices import head_modules

        add_modules(folder, model, head_modules(model), "SEQ_CLS")

    # ---- rows -----------------------------------------------------------------------------------------

    def target(self, row: Row) -> float | int:
        """What the head should say: a class, -100 for one that it does not have, or a number."""
        from trainables.batching import IGNORE

        if self.regression:
            return number_of(row["answer"])
        label = label_of(row["answer"])
        return self.labels.index(label) if label in self.labels else IGNORE

    def count(self, row: Row) -> int:
        return 1

    def collate(self, rows: Sequence[Row], pad_id: int) -> Batch:
        """Padded on the right: encoders read the first token of a row, and count its places from there."""
        import torch

        from trainables.batching import Batch

        ids = [torch.tensor(list(row["prompt_ids"]), dtype=torch.long) for row in rows]
        width = max(map(len, ids))
        inputs = {"input_ids": torch.full((len(rows), width), pad_id, dtype=torch.long)}
        inputs["attention_mask"] = torch.zeros_like(inputs["input_ids"])
        kinds = torch.zeros_like(inputs["input_ids"])
        for place, (row, own) in enumerate(zip(rows, ids, strict=True)):
            inputs["input_ids"][place, : len(own)] = own
            inputs["attention_mask"][place, : len(own)] = 1
            spans = row.get("prompt_trained")
            second = [] if spans is None else list(spans)
            if second:
                kinds[place, second[0] : second[1]] = 1
        if bool(kinds.any()):
            inputs["token_type_ids"] = kinds
        targets = [self.target(row) for row in rows]
        kind = torch.float32 if self.regression else torch.long
        return Batch(inputs, torch.tensor(targets, dtype=kind), len(rows))

    def labelled(
        self, rows: Sequence[Row], pad_id: int, max_tokens: int, device: torch.device
    ) -> list[dict[str, Tensor]]:
        from trainables.batching import micro_batches

        batches = [self.collate(group, pad_id).to(device) for group in micro_batches(rows, max_tokens)]
        return [{**batch.inputs, "labels": batch.labels} for batch in batches]

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        return self._losses(self._logits(module, batch), batch.labels).sum()

    def _logits(self, module: nn.Module, batch: Batch) -> Tensor:
        """`(n, classes)`, fp32; one column for a regression."""
        return module(**batch.inputs).logits.float()

    def _losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Of each row, `(n,)`; 0 for a row of a class that the head does not have."""
        from torch.nn import functional as F

        if self.regression:
            return (logits[:, 0] - targets).square()
        return F.cross_entropy(logits, targets, reduction="none")

    def decode(
        self,
        module: nn.Module,
        rows: Sequence[Row],
        scorer: Scorer,
        tokenizer: PreTrainedTokenizerBase,
        split: str,
        device: torch.device | str,
    ) -> Decoded:
        """The loss of each row, and its likeliest label as text, or the number."""
        import torch

        from trainables.batching import IGNORE, micro_batches
        from trainables.decode import Decoded, by_halves
        from trainables.evaluation import pad_token

        texts, losses, counts = [""] * len(rows), [0.0] * len(rows), [0] * len(rows)
        given = [{**row, "place": place} for place, row in enumerate(rows)]

        def classify(group: Sequence[Row]) -> None:
            batch = self.collate(group, pad_token(tokenizer)).to(device)
            with torch.inference_mode():
                logits = self._logits(module, batch)
                found = self._losses(logits, batch.labels).tolist()
            for row, loss, target, one in zip(group, found, batch.labels.tolist(), logits.tolist(), strict=True):
                place = row["place"]
                known = self.regression or target != IGNORE
                losses[place], counts[place] = (loss, 1) if known else (0.0, 0)
                texts[place] = self.text(one, row["answer"])

        by_halves(micro_batches(given, 8192), classify)
        return Decoded([], losses, counts, math.fsum(losses), texts=texts)

    def text(self, logits: Sequence[float], answer: str = "") -> str:
        """What logits `(classes,)` say; a right label in the spelling of its answer, for metrics compare texts."""
        if self.regression:
            return f"{logits[0]:.6f}"
        label = self.labels[max(range(len(logits)), key=lambda place: logits[place])]
        return answer if label_of(answer) == label else label


def _in_full_precision(module: nn.Module) -> None:
    """The module in fp32, whatever the type of what it is given."""
    module.float()
    for part in module.modules():
        if any(True for _ in part.parameters(recurse=False)):
            part.register_forward_pre_hook(_widened)


def _widened(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.float() if getattr(value, "is_floating_point", bool)() else value for value in inputs)


def read_labels(config: Path) -> tuple[str, ...]:
    """The classes that a model's configuration names; empty where it names none of its own."""
    told = json.loads(config.read_text(encoding="utf-8")).get("id2label") or {}
    names = tuple(str(told[place]) for place in sorted(told, key=int))
    return () if any(re.fullmatch(r"LABEL_\d+", name) for name in names) else names
