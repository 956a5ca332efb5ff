"""What the training side needs from outside, as types.

`trainables` imports neither `raylora` nor `searchers`; whoever calls it hands in objects of these shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from trainables.heads import LANGUAGE, Head
from trainables.home import lent_folder
from trainables.schedules import Schedule
from trainables.store import mark, told

Row = Mapping[str, Any]
"""One tokenised example: `prompt_ids` and `response_ids` (token ids in lists or arrays, the response ends with the
end-of-sequence token) and whatever the scorer reads (`response`, `answer`, `metadata`)."""


@dataclass(frozen=True)
class Sampling:
    """How answers are generated.

    Attributes:
        max_new_tokens: longest answer, in tokens.
        temperature: 0 takes the most likely token each time; else the logits are divided by it and a token is drawn.
        top_p: draws are from the fewest most likely tokens that have this much of the probability together.
        n: answers per row; more than one takes a temperature.
        stop: an answer ends before the first of these texts.
        seed: of the draws. A row's draws depend on it and on the row, not on the batch that the row is in.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    n: int = 1
    stop: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Outputs:
    """What a model made of some rows, as far as its scorer needs it; a part that is not needed is empty.

    Attributes:
        texts: decoded answers without special tokens, `(n rows, samples)`.
        losses: negative log-likelihood of each row's reference response in nats, and its tokens, `(n rows, 2)`.
        options: what `Scorer.measure` found, `(n rows,)`.
    """

    texts: Sequence[Sequence[str]] = ()
    losses: Sequence[tuple[float, int]] = ()
    options: Sequence[Any] = ()


Mark = Mapping[str, Any]
"""What the answer to one row is worth, by metric; see `Scorer.marks`."""


@runtime_checkable
class Scorer(Protocol):
    """The metrics of a run. Must pickle: it travels to the actors.

    `split` is `validation`, `test`, or `test.<name>` where a run has several test sets: each may have its own metrics.
    `metric` is the objective's name among the figures of validation, `mode` its better end (`max` or `min`).
    """

    @property
    def metric(self) -> str: ...

    @property
    def mode(self) -> str: ...

    @property
    def sampling(self) -> Sampling: ...

    def needs(self, split: str) -> frozenset[str]:
        """Which parts of `Outputs` the metrics read: of `texts`, `losses` and `options`."""
        ...

    def measure(self, split: str, model: object, tokenizer: object, rows: Sequence[Row]) -> Sequence[Any]:
        """The likelihoods that `options` asks for, `(n,)`; called where it is needed."""
        ...

    def marks(self, split: str, outputs: Outputs, rows: Sequence[Row]) -> list[Mark]:
        """What each row's answer is worth, `(n,)`. Rows may be marked in parts, by several workers."""
        ...

    def figures(self, split: str, marks: Sequence[Mark]) -> dict[str, float | None]:
        """All rows' marks as figures: for each metric `<name>` and `<name>_se`, its standard error."""
        ...

    def worst_figures(self, split: str) -> dict[str, float | None]:
        """The figures of a trial that diverged."""
        ...


@dataclass(frozen=True)
class TrainSettings:
    """How one configuration is trained; the same for every trial of a search.

    Args:
        samples: Budget of one trial, counted in training samples (each visit of a row counts).
        reports: Validation reports per trial; the last one is at its end.
        doubling: Reports are due where the samples double, the last at the budget (1/16, 1/8, .., 1 where there are
            five), and all but the last tell the validation loss alone; otherwise they are evenly spaced and whole.
        micro_batch_tokens: Padded tokens that go through the model at once. A larger global batch is
            accumulated from micro-batches, so it fits any device.
        warmup_ratio: Share of the optimizer steps over which the rate rises linearly.
        schedule: What the rate does after that (`trainables.schedules`).
        max_grad_norm: Gradients are clipped to this norm; 0 leaves them alone.
        match_parameters: `lora` trains each variant at the rank where it has about as many parameters as LoRA
            at the configuration's rank; None at that rank itself.
        checkpoint_every_s: Seconds between checkpoints within a trial.
        gradient_checkpointing: Blocks are computed again in the backward pass (`trainables.checkpointing`).
        pack_sequences: Rows of a micro-batch share sequences (`trainables.sequences`).
        compile: Blocks are compiled for training (`trainables.compiling`).
        adapter_dtype: Of the trained weights and of the optimizer's state.
    """

    samples: int
    reports: int = 1
    micro_batch_tokens: int = 4096
    weight_decay: float = 0.0
    warmup_ratio: float = 0.03
    schedule: Schedule = "cosine"
    max_grad_norm: float = 1.0
    placement: str | tuple[str, ...] = "all-linear"
    match_parameters: str | None = None
    seed: int = 0
    checkpoint_every_s: float = 30.0
    gradient_checkpointing: bool = False
    pack_sequences: bool = False
    adapter_dtype: str = "float32"
    compile: bool = False
    doubling: bool = False

    def due(self, seen: int) -> int:
        """Samples of the budget after which the next report is due, for a trial that has seen so many."""
        if self.doubling:
            points = [max(1, round(self.samples * 2.0**-k)) for k in range(self.reports)]
            return min((point for point in points if point > seen), default=self.samples)
        interval = self.samples / max(1, self.reports)
        # A tolerance keeps float division from asking for one more report at the very end.
        return min(self.samples, round(interval * (int((seen + 1e-6) / interval) + 1)))


@dataclass(frozen=True)
class TrialSetup:
    """Everything that a host (or a Ray Train worker) needs to run trials, except the configuration.

    Args:
        model_folder: Local folder of the base model, or any name that `resolve_model` understands.
        resolve_model: Called with `model_folder` on the node that needs it; None takes the name as a folder.
        tokenizer_folder: Local folder of a tokenizer other than the model's own.
        dtype: `auto`, `bfloat16` or `float32`. `auto` takes bf16 on CUDA and on CPUs with AMX.
        device: `auto`, `cpu` or `cuda`.
        attention: `auto`, `sdpa`, `flash` or `eager`; see `trainables.attention`.
        quantization: `none`, `nf4` or `int8`; see `trainables.quantization`.
        liger: whether Liger's kernels are used, or `auto`; see `trainables.liger`.
        threads: Torch threads of the process; 0 leaves torch's default.
        train: `Rows` to train on (the proxy subset), or object references of Arrow tables.
        validation: `Rows` that score a trial, or object references of Arrow tables.
        actors: Handles of the actors that variants declare, by variant.
        run_dir: Where `trials.jsonl` and `checkpoints/` live. Shared storage on a cluster, unless there is a store.
        store: Address of the run in an object store; `run_dir` is then its working folder on the driver's machine.
        deadline: When a trial stops training and is scored as it is, in seconds since the epoch.
        pack: Trials that a host trains together (`trainables.packed`); 1 for one after the other.
        head: What the model answers with.
        engine: Handle of an actor that writes the answers (`trainables.written.Writer`); None where the model does.
    """

    model_folder: str
    scorer: Scorer
    settings: TrainSettings
    train: Sequence[object]
    validation: Sequence[Any]
    run_dir: str
    resolve_model: Callable[[str], str | Path] | None = None
    tokenizer_folder: str = ""
    dtype: str = "auto"
    device: str = "auto"
    attention: str = "auto"
    quantization: str = "none"
    liger: bool | Literal["auto"] = False
    threads: int = 0
    actors: Mapping[str, object] = field(default_factory=dict)
    deadline: float = math.inf
    pack: int = 1
    head: Head = LANGUAGE
    engine: object = None
    store: str = ""

    def here(self) -> TrialSetup:
        """The setup on this node: of a run in a store with a working folder of its own, unless the driver's is here."""
        if not self.store or told(self.run_dir) == self.store:
            return self
        folder = lent_folder(self.store)
        mark(folder, self.store)
        return replace(self, run_dir=str(folder))
