"""TrialRun: the one training loop. Attach an adapter, take optimizer steps, evaluate, detach."""

from __future__ import annotations

import gc
import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trainables.batching import Batch, count_steps, global_batches, length, micro_batches
from trainables.checkpointing import recompute_blocks
from trainables.compiling import as_written, compile_blocks, forget_compiled
from trainables.decode import mean_loss
from trainables.evaluation import evaluate_model
from trainables.exhausted import Crowded, NoRoom, is_exhausted
from trainables.heads import LANGUAGE, Head
from trainables.journal import Knobs, Metrics
from trainables.memory import peak_memory_gb, reset_peak_memory
from trainables.modes import evaluating
from trainables.parallel import Parallel
from trainables.protocols import Row, Scorer, TrainSettings
from trainables.rows import set_apart
from trainables.saved import replacing
from trainables.schedules import rate_factor
from trainables.sequences import check_apart, collate_packed, packed_micro_batches, packed_size
from trainables.variants import get_variant
from trainables.variants.core.config import AdapterConfig, Surroundings
from trainables.variants.core.matching import effective_rank
from trainables.written import Writer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Figures(TypedDict):
    """What a trial reports of its training, whatever its variant.

    Of the time since the last report: `loss` (mean over steps, nats per completion token), `step_time_s` (mean),
    `train_s`, `hypernetwork_s`. In all: `step`, `samples`, `tokens`, `attach_s`, `peak_memory_gb`, `optimizer_mb`.
    `effective_rank` is the rank that was trained, `diverged` whether the loss became non-finite.
    """

    loss: float
    step: int
    samples: int
    tokens: int
    step_time_s: float
    train_s: float
    attach_s: float
    peak_memory_gb: float
    trainable_parameters: int
    adapter_parameters: float
    hypernetwork_parameters: float
    hypernetwork_s: float
    optimizer_mb: float
    effective_rank: int
    diverged: bool


def adapter_config(
    knobs: Knobs, settings: TrainSettings, *, steps: int = 1, model: nn.Module | None = None
) -> AdapterConfig:
    """Knobs of a configuration -> what its variant needs. `alpha` wins over `alpha_ratio` (alpha / rank).

    Args:
        steps: optimizer steps that the run will take.
        model: the base. With it and `settings.match_parameters` the rank is the effective one on it, for
            `alpha_ratio` too.
    """
    rank, variant = int(knobs["rank"]), get_variant(str(knobs.get("variant", "lora")))
    placement = knobs.get("placement", settings.placement)
    # A space that mixes variants holds knobs of each: a variant reads its own.
    extra = {name: value for name, value in knobs.items() if name in variant.options}
    if model is not None:
        rank = effective_rank(model, variant, placement, rank, settings.match_parameters, extra)
    alpha = float(knobs["alpha"]) if "alpha" in knobs else float(knobs.get("alpha_ratio", 1.0)) * rank
    return AdapterConfig(
        rank=rank,
        alpha=alpha,
        dropout=float(knobs.get("dropout", 0.0)),
        learning_rate=float(knobs["learning_rate"]),
        weight_decay=settings.weight_decay,
        placement=placement if isinstance(placement, str) else tuple(placement),
        seed=settings.seed,
        steps=steps,
        dtype=getattr(torch, settings.adapter_dtype),
        extra=extra,
    )


class TrialRun:
    """One configuration on one base model.

    The optimizer is the variant's (AdamW unless it says otherwise) under the schedule of `settings`.
    The loss of a step is the mean over the completion tokens of its *global* batch, whatever the
    micro-batches and however many workers share it: worker `i` of `N` takes rows `i, i + N, ...`.

    Args:
        model: Base model; `close()` gives it back unchanged.
        knobs: The configuration (`variant`, `rank`, `alpha` or `alpha_ratio`, `learning_rate`,
            `batch_size`, `dropout`, extra knobs of the variant).
        train: Tokenised rows. All workers see all of them and pick theirs per global batch.
        surroundings: What else the run has to offer to variants; the rows that they validate on are drawn here, and
            kept out of the training.
        halvings: How often the micro-batch is halved before anything is tried.
        head: What the model answers with; what it has to train is trained beside the adapter, at the same rate.

    Where memory runs out, the micro-batch is halved and the step repeated, with the result that it would have had with
    the smaller one from the start.

    Raises:
        NoRoom: Not even one row at a time fits (when it is made, and in training).
        Crowded: Memory has run out at this worker of several, in training.
    """

    def __init__(
        self,
        model: nn.Module,
        knobs: Knobs,
        train: Sequence[Row],
        settings: TrainSettings,
        *,
        pad_id: int,
        parallel: Parallel | None = None,
        surroundings: Surroundings | None = None,
        halvings: int = 0,
        head: Head = LANGUAGE,
    ) -> None:
        self.micro_batch_tokens = max(1, settings.micro_batch_tokens >> halvings)
        self.model, self.knobs, self.settings = model, dict(knobs), settings
        self.pad_id, self.head = pad_id, head
        self.parallel = parallel or Parallel()
        self.device = self.parallel.device(model)
        self.batch_size = int(knobs["batch_size"])
        self.steps = count_steps(self.batch_size, settings.samples)
        self.step = 0
        self.samples = 0
        self.tokens = 0
        self.diverged = False
        self.last_loss: float | None = None
        self._loss_sum, self._loss_steps, self._train_s, self._generating_s = 0.0, 0, 0.0, 0.0
        reset_peak_memory(self.device)
        if settings.pack_sequences:
            check_apart(model)
        self.variant = get_variant(str(knobs.get("variant", "lora")))()
        self.train, self._apart = set_apart(train, self.variant.validation_rows, settings.seed)
        started = time.perf_counter()
        config = adapter_config(knobs, settings, steps=self.steps, model=model)
        self.effective_rank = config.rank
        base = set(model.parameters())
        self.adapted = self._attach(config, surroundings or Surroundings())
        self.attach_s = time.perf_counter() - started
        try:
            if settings.gradient_checkpointing:
                recompute_blocks(model)
            if settings.compile:
                compile_blocks(self.adapted)
            own = self.head.free(self.model, self.variant.snapshot)
            self.head_optimizer = _adamw(own, config) if own else None
            added = [parameter for parameter in self.adapted.parameters() if parameter not in base]
            self.module, self.optimizer = self.parallel.prepare(self.adapted, self.variant.make_optimizer(), added)
            for group in self._optimizer_groups():
                group["initial_lr"] = group["lr"]
            self.parameters = [*self.variant.trainable_parameters(), *own]
            self._seed(settings.seed * 1000 + self.parallel.rank)
            self._plan = self._batches()
        except BaseException:
            self.close()
            raise

    def _optimizer_groups(self) -> list[dict[str, Any]]:
        """The parameter groups of the adapter's optimizer and the head's."""
        return [*self.optimizer.param_groups, *(self.head_optimizer.param_groups if self.head_optimizer else ())]

    def _head(self) -> list[nn.Parameter]:
        """What is trained beside the adapter."""
        return [] if self.head_optimizer is None else self.head_optimizer.param_groups[0]["params"]

    def _head_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self._head())

    # ---- training -------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        return self.diverged or self.step >= self.steps

    def _batches(self) -> Iterator[list[int]]:
        return global_batches(len(self.train), self.batch_size, self.settings.samples, self.settings.seed)

    def _attach(self, config: AdapterConfig, surroundings: Surroundings) -> nn.Module:
        """The adapted model; with smaller micro-batches where the first ones do not fit."""
        first = [self.train[i] for i in next(self._batches())]
        while True:
            try:
                validation = self._labelled_rows(self._apart) if self._apart else []
                around = replace(surroundings, validation=validation)
                return self.variant.attach(self.model, config, self._attach_batches(), around)
            except Exception as error:
                if not is_exhausted(error):
                    raise
                self._halve(first, error)

    def _halve(self, rows: Sequence[Row], error: Exception) -> None:
        """Make the micro-batches of these rows half as large. Raises NoRoom where each is one row already."""
        sizes = [self.size(group) for group in self._micro_batches(rows)]
        if all(count == 1 for count, _ in sizes):
            longest = max(length(row) for row in rows)
            told = " ".join(str(error).split())[:200]
            raise NoRoom(f"one row of {longest} tokens does not fit into memory ({told})") from error
        # The groups as they are may be far below the limit.
        self.micro_batch_tokens = max(count * width for count, width in sizes if count > 1) // 2
        error.__traceback__ = None  # its frames hold what did not fit
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _attach_batches(self) -> list[dict[str, Tensor]]:
        """The first global batch, for variants whose initialisation looks at data; see `labelled_batches`."""
        return self._labelled(next(self._batches()))

    def _labelled(self, indices: Sequence[int]) -> list[dict[str, Tensor]]:
        return self._labelled_rows([self.train[i] for i in indices])

    def _labelled_rows(self, rows: Sequence[Row]) -> list[dict[str, Tensor]]:
        return self.head.labelled(rows, self.pad_id, self.micro_batch_tokens, self.device)

    def advance(self, samples: int) -> None:
        """Train until `samples` of the budget are used, or to its end, or until the loss is not finite."""
        self.module.train()
        while not self.done and self.samples < samples:
            self.train_step()

    def train_step(self) -> float:
        """One optimizer step on the next global batch; returns its loss (nats per completion token)."""
        started = time.perf_counter()
        rows = self._begin_step()
        loss = self._backward_that_fits(rows)
        self._end_step(rows, loss)
        self._train_s += time.perf_counter() - started
        return loss

    def _begin_step(self) -> list[Row]:
        """The rows of the next global batch, with rate and variant ready for it."""
        rows = [self.train[i] for i in next(self._plan)]
        factor = rate_factor(self.step, self.steps, self.settings.warmup_ratio, self.settings.schedule)
        for group in self._optimizer_groups():
            group["lr"] = group["initial_lr"] * factor
        self.variant.before_step(self.step)
        return rows

    def _end_step(self, rows: Sequence[Row], loss: float) -> None:
        """Move by the gradients of these rows, unless loss or gradient is not finite, and book the step."""
        self.variant.after_backward(self.step)
        if math.isfinite(loss) and self.parallel.step(self.optimizer, self.parameters, self.settings.max_grad_norm):
            if self.head_optimizer is not None:
                self.head_optimizer.step()
            self.variant.after_step(self.step)
        else:
            self.diverged = True
        self.parallel.zero_grad(self.optimizer)
        if self.head_optimizer is not None:
            self.head_optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.samples += len(rows)
        self.tokens += sum(length(row) for row in rows)
        self.last_loss = loss
        self._loss_sum += loss
        self._loss_steps += 1

    def _backward_that_fits(self, rows: Sequence[Row]) -> float:
        """`_backward`, again from the same random numbers and with smaller micro-batches where memory runs out.

        Workers of a group cannot repeat a step alone: all are to begin again, see `Crowded`.
        """
        before = random_state(self.device)
        while True:
            try:
                return self._backward(rows)
            except Exception as error:
                if not is_exhausted(error):
                    raise
                self._halve(self._mine(rows), error)
                if self.parallel.world > 1:
                    raise Crowded(self.micro_batch_tokens) from error
            set_random_state(self.device, before)
            self._forget_gradients()

    def _forget_gradients(self) -> None:
        """The step's passes are made once more, from the first."""
        for parameter in self.adapted.parameters():
            if parameter.grad is not None:
                parameter.grad.zero_()
        self.variant.restart_step()

    def _backward(self, rows: Sequence[Row]) -> float:
        """Accumulate gradients of the mean loss over the global batch's trained tokens."""
        total = sum(self.head.count(row) for row in rows)
        # A worker without a row in this batch still joins the gradient exchange, with weight zero.
        groups, weight = self._micro_batches(self._mine(rows)), float(self.parallel.rank < len(rows))
        loss_sum = 0.0
        for i, group in enumerate(groups):
            last = i == len(groups) - 1
            with self.parallel.accumulating(self.module, last):
                batch = self.collate(group).to(self.device)
                loss = weight * self.head.loss(self.module, batch) / total
                loss_sum += float(loss.detach())
                # Data parallel averages gradients over workers; the loss is a sum over them.
                loss = loss * self.parallel.world
                extra = self.variant.extra_loss() if last else None
                if extra is not None:
                    loss = loss + extra
                self.parallel.backward(self.module, loss)
        return self.parallel.sum([loss_sum])[0]

    def _mine(self, rows: Sequence[Row]) -> Sequence[Row]:
        """This worker's share of a global batch; where there is none left for it, one row of another."""
        return rows[self.parallel.rank :: self.parallel.world] or rows[:1]

    def _micro_batches(self, rows: Sequence[Row]) -> list[list[Row]]:
        """The rows in groups that go through the model one after the other, the longest row of each first."""
        grouped = packed_micro_batches if self.settings.pack_sequences else micro_batches
        return grouped(rows, self.micro_batch_tokens)

    def size(self, group: Sequence[Row]) -> tuple[int, int]:
        """Sequences of a micro-batch and their length."""
        return packed_size(group) if self.settings.pack_sequences else (len(group), length(group[0]))

    def collate(self, group: Sequence[Row]) -> Batch:
        """A micro-batch as tensors."""
        if self.settings.pack_sequences:
            return collate_packed(group, self.pad_id)
        return self.head.collate(group, self.pad_id)

    # ---- evaluation -----------------------------------------------------------------------------------

    def evaluate(
        self, rows: Sequence[Row], scorer: Scorer, tokenizer: PreTrainedTokenizerBase, writer: Writer | None = None
    ) -> Metrics:
        """The figures of the scorer on validation; see `evaluate_model`. Workers share the rows."""
        with self._as_written(), evaluating(self.adapted), self.parallel.serving(self.adapted):
            return evaluate_model(
                self.adapted,
                rows,
                scorer,
                tokenizer,
                device=self.device,
                parallel=self.parallel,
                head=self.head,
                writer=writer,
            )

    def validation_loss(self, rows: Sequence[Row]) -> float:
        """Nats per completion token of the reference answers, as `evaluate` has it, without generating any."""
        with self._as_written():
            return mean_loss(self.adapted, self._labelled_rows(rows))

    def _as_written(self) -> AbstractContextManager[object]:
        return as_written() if self.settings.compile else nullcontext()

    def metrics(self) -> dict[str, float]:
        """Training figures since the last call of this method, and totals: `Figures` and those of the variant."""
        steps = max(1, self._loss_steps)
        costs = self.variant.costs()
        figures: Figures = {
            "loss": self._loss_sum / steps,
            "step": self.step,
            "samples": self.samples,
            "tokens": self.tokens,
            "step_time_s": self._train_s / steps,
            "train_s": self._train_s,
            "attach_s": self.attach_s,
            "peak_memory_gb": self._peak_gb(),
            "trainable_parameters": self.variant.parameter_count() + self._head_parameters(),
            "adapter_parameters": costs.adapter_parameters,
            "hypernetwork_parameters": costs.hypernetwork_parameters,
            "hypernetwork_s": costs.hypernetwork_s - self._generating_s,
            "optimizer_mb": self._optimizer_mb() + costs.moment_mb,
            "effective_rank": self.effective_rank,
            "diverged": self.diverged,
        }
        self._loss_sum, self._loss_steps, self._train_s = 0.0, 0, 0.0
        self._generating_s = costs.hypernetwork_s
        return {**cast(dict[str, float], figures), **self.variant.figures()}

    def _peak_gb(self) -> float:
        return peak_memory_gb(self.device)

    def _optimizer_mb(self) -> float:
        """Size of the optimizer's state, in MB."""
        optimizers = [self.optimizer, *filter(None, [self.head_optimizer])]
        states = [state for optimizer in optimizers for state in optimizer.state.values()]
        tensors = [tensor for state in states for tensor in state.values() if isinstance(tensor, Tensor)]
        return sum(t.numel() * t.element_size() for t in tensors) / 1e6

    def save_adapter(self, folder: Path, base_model: str) -> Path:
        """Write what was trained as a folder that others read; see `Variant.save_adapter`. The first worker writes."""
        with self.parallel.whole(self.adapted):
            if self.parallel.rank == 0:
                self.variant.save_adapter(folder, base_model)
                self.head.write(self.model, folder)
        self.parallel.sum([0.0])  # the others wait until the folder is there
        return folder

    # ---- state ----------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write adapter, optimizer and position to `folder`; killed at any time it leaves a whole one.

        All workers have to call it; the first one writes. What is written does not depend on their number.
        """
        with self.parallel.whole(self.adapted):
            state = {name: tensor.contiguous() for name, tensor in self.variant.state().items()}
        optimizer = self.parallel.optimizer_state(self.optimizer)
        if self.parallel.rank == 0:
            self._write(Path(folder), state, optimizer)

    def _write(self, folder: Path, state: dict[str, Tensor], optimizer: dict[str, Any]) -> None:
        with replacing(folder) as fresh:
            save_file(state, fresh / "adapter.safetensors")
            torch.save(optimizer, fresh / "optimizer.pt")
            if self.head_optimizer is not None:
                values = [parameter.detach().cpu() for parameter in self._head()]
                torch.save({"values": values, "optimizer": self.head_optimizer.state_dict()}, fresh / "head.pt")
            self._save_random(fresh)
            position = {
                "knobs": self.knobs,
                "step": self.step,
                "samples": self.samples,
                "tokens": self.tokens,
                "loss_sum": self._loss_sum,
                "loss_steps": self._loss_steps,
            }
            (fresh / "position.json").write_text(json.dumps(position))

    def load(self, folder: str | Path) -> None:
        """Go on from `folder` as if never interrupted; with dropout, only by one worker as by one."""
        folder = Path(folder)
        position = json.loads((folder / "position.json").read_text())
        optimizer = torch.load(folder / "optimizer.pt", weights_only=True)
        state = load_file(folder / "adapter.safetensors")
        self.parallel.load_state(self.optimizer, optimizer, lambda: self.variant.load_state(state))
        if self.head_optimizer is not None:
            kept = torch.load(folder / "head.pt", weights_only=True)
            self.head_optimizer.load_state_dict(kept["optimizer"])
            for parameter, value in zip(self._head(), kept["values"], strict=True):
                parameter.data.copy_(value)
        if self.parallel.world == 1:
            self._load_random(folder)
        else:
            # The states of the other workers were never kept, and there may be more of them now.
            self._seed((self.settings.seed * 1000 + self.parallel.rank) * 1_000_003 + position["step"])
        self.step, self.samples, self.tokens = position["step"], position["samples"], position["tokens"]
        self._loss_sum, self._loss_steps = position["loss_sum"], position["loss_steps"]
        self._plan = self._batches()
        for _ in range(self.step):
            next(self._plan)

    def _seed(self, seed: int) -> None:
        """Dropout draws from the global generator: it is seeded so that a trial depends on its seed alone."""
        torch.manual_seed(seed)

    def _save_random(self, folder: Path) -> None:
        torch.save(torch.get_rng_state(), folder / "rng.pt")

    def _load_random(self, folder: Path) -> None:
        torch.set_rng_state(torch.load(folder / "rng.pt", weights_only=True))

    def close(self) -> None:
        """Detach the adapter; the base model is as it was before, and whole."""
        self.parallel.release()
        self.optimizer = self.head_optimizer = None
        self.module = None
        self.adapted = None
        self.parameters = []
        self.variant.detach()
        if self.settings.compile:
            forget_compiled()


def _adamw(parameters: list[nn.Parameter], config: AdapterConfig) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)


def random_state(device: torch.device) -> list[Tensor]:
    """Of the generators that dropout draws from."""
    cuda = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *cuda]


def set_random_state(device: torch.device, state: list[Tensor]) -> None:
    """Put them back to what `random_state` gave."""
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)
