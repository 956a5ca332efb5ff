"""TrialSession: begin, advance, checkpoint and conclude trials on one loaded base model.

Shared by the ModelHost actor and by Ray Train workers, so that a trial means the same in both.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trainables.attention import pick_attention
from trainables.compiling import check_compiler
from trainables.errors import OptionError
from trainables.evaluation import pad_token
from trainables.exhausted import is_exhausted
from trainables.heads import LANGUAGE, Head
from trainables.journal import Ending, Journal, Knobs, Metrics, log_traceback, trial_key
from trainables.liger import Wanted, apply_liger
from trainables.live import FOLDER as LIVE
from trainables.live import Beacon, Phase
from trainables.parallel import Parallel
from trainables.protocols import TrialSetup
from trainables.quantization import load_quantized
from trainables.rows import as_rows
from trainables.run import TrialRun
from trainables.saved import CHECKPOINTS, saved
from trainables.stops import asked_to_stop
from trainables.store import store_of
from trainables.variants.core.config import Surroundings
from trainables.variants.core.matrices import head_modules
from trainables.written import Writer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STRATEGIES = "strategies"


def native_bf16() -> bool:
    """Whether this CPU has bf16 matrix units (AMX). With AVX-512's bf16 alone, training is slower than in fp32."""
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text().split("flags", 1)[-1].split("\n", 1)[0]
        return "amx_bf16" in flags
    return False


def pick_device(device: str) -> torch.device:
    """The device of that name; `auto` is the GPU where there is one."""
    return torch.device("cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu"))


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The type of that name; `auto` is bfloat16 where the device computes in it, else float32."""
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" or native_bf16() else torch.float32
    return {"bfloat16": torch.bfloat16, "float32": torch.float32, "float16": torch.float16}[dtype]


def load_base(setup: TrialSetup, where: str | None = None) -> tuple[torch.nn.Module, PreTrainedTokenizerBase]:
    """The base model in evaluation mode, on its device or `where`, and its tokenizer."""
    if setup.threads:
        torch.set_num_threads(setup.threads)
    if setup.settings.compile:
        check_compiler(pick_device(setup.device))
    folder = str(setup.resolve_model(setup.model_folder) if setup.resolve_model else setup.model_folder)
    return load_model(
        folder,
        setup.dtype,
        setup.device,
        setup.tokenizer_folder,
        setup.head,
        attention=setup.attention,
        quantization=setup.quantization,
        liger=setup.liger,
        where=where,
    )


def load_model(
    folder: str | Path,
    dtype: str = "auto",
    device: str = "auto",
    tokenizer_folder: str | Path = "",
    head: Head = LANGUAGE,
    *,
    attention: str = "auto",
    quantization: str = "none",
    liger: Wanted = False,
    where: str | None = None,
) -> tuple[torch.nn.Module, PreTrainedTokenizerBase]:
    """A model in evaluation mode on its device, and its tokenizer, by default of the same folder.

    Args:
        dtype, device, attention: names, as `pick_dtype`, `pick_device` and `pick_attention` take them.
        head: what the model answers with.
        quantization: of the base's matrices; `none` leaves them as they are.
        liger: as `apply_liger` takes it.
        where: the weights lie there, though they are to be used on the device.

    Raises:
        ValueError: attention of a kind, or kernels, that this machine or this model does not have; no compiler.
    """
    from transformers import AutoTokenizer

    place = pick_device(device)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder or folder)
    load = partial(head.load, folder, pick_dtype(dtype, place), pad_token(tokenizer))
    model: Any
    if quantization == "none":
        model = load()
    else:
        model = load_quantized(load, folder, quantization, place, head_modules(head.empty(folder)))
    chosen = pick_attention(attention, place, model.dtype)
    if chosen is not None:
        try:
            model.set_attn_implementation(chosen)
        except (ValueError, ImportError):
            if attention != "auto":
                kind = type(model).__name__
                raise ValueError(f"train.attention = {attention!r}: {kind} does not have it; choose auto") from None
    apply_liger(model, liger, place)
    return model.to(where or place).eval(), tokenizer


def surroundings(setup: TrialSetup, knobs: Knobs, trial: str, folder: Path) -> Surroundings:
    """What a trial's variant may use beside the model; it writes below `folder`."""
    actor = setup.actors.get(str(knobs.get("variant", "lora")))
    return Surroundings(actor=actor, trial=trial, log_folder=folder / STRATEGIES)


class TrialSession:
    """One trial at a time on one base model.

    Args:
        setup: What all trials share.
        parallel: How gradients and scores are shared when several workers train one trial.
    """

    def __init__(
        self,
        setup: TrialSetup,
        model: torch.nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        parallel: Parallel | None = None,
        where: str = "",
    ) -> None:
        self.setup, self.model, self.tokenizer = setup, model, tokenizer
        self.parallel = parallel or Parallel()
        self.where = where
        self.journal = Journal(setup.run_dir)
        self.store = store_of(setup.run_dir)
        self.beacon = Beacon(setup.run_dir, where)
        self.train = as_rows(setup.train)
        self.validation = as_rows(setup.validation)
        self.run: TrialRun | None = None
        self.key = ""
        self._checkpointed = 0.0
        # The step at which the running trial was saved last.
        self._kept_at = -1

    @property
    def leader(self) -> bool:
        """Only one worker writes."""
        return self.parallel.rank == 0

    def checkpoint_folder(self, key: str) -> Path:
        return Path(self.setup.run_dir) / CHECKPOINTS / key

    def begin(self, knobs: Knobs, trial_id: str = "", halvings: int = 0) -> Ending | None:
        """Start a configuration, go on from its checkpoint, or answer with its ending if it is over.

        Args:
            halvings: how often its micro-batch is halved from the start: its host has died for want of memory.
        """
        self.leave()
        key = trial_key(knobs)
        over = self.journal.concluded().get(key)
        if over is not None:
            return over
        known = key in self.journal.started()
        if self.leader and not known:
            self.journal.append("start", key, config=dict(knobs), trial_id=trial_id, host=self.where)
        try:
            self.run = self._made(knobs, key, halvings)
            self._load(key)
        except Exception as error:
            return self.abandon(knobs, error)
        if self.leader and known:
            self.journal.append("continue", key, trial_id=trial_id, host=self.where, from_step=self.run.step)
        self.key = key
        self._checkpointed, self._kept_at = time.monotonic(), -1
        self.beacon.begin(self.run.samples)
        self._show("training")
        return None

    def _load(self, key: str) -> None:
        """Go on from the trial's last checkpoint: of a run in a store, that one, which is the same for all workers."""
        run, folder = self._require(), self.checkpoint_folder(key)
        if self.store is None:
            state = saved(folder)
            if state is not None:
                run.load(state)
            return
        fetched = folder.with_name(f".{key}.{os.getpid()}.fetched")
        if self.store.get_state(f"{CHECKPOINTS}/{key}", fetched):
            run.load(fetched)
            shutil.rmtree(fetched, ignore_errors=True)

    def _made(self, knobs: Knobs, key: str, halvings: int) -> TrialRun:
        return TrialRun(
            self.model,
            knobs,
            self.train,
            self.setup.settings,
            pad_id=pad_token(self.tokenizer),
            parallel=self.parallel,
            surroundings=surroundings(self.setup, knobs, key, Path(self.setup.run_dir)),
            halvings=halvings,
            head=self.setup.head,
        )

    def _show(self, phase: Phase) -> None:
        run = self._require()
        if self.leader:
            self.beacon.show(
                phase, run.samples, self.setup.settings.samples, loss=run.last_loss, key=self.key, knobs=run.knobs
            )

    def abandon(self, knobs: Knobs, error: Exception) -> Ending:
        """Record that a trial failed, so that it is not tried again, and drop its adapter.

        One line in the journal, the traceback in the run's ERRORS file. Every worker of a group may be the first. One
        that has lost another raises the error again: the trial is not over, its group is.
        """
        if self.parallel.lost(error):
            raise error
        key = trial_key(knobs)
        known = self.journal.concluded().get(key)
        told = str(error) if isinstance(error, OptionError) else f"{type(error).__name__}: {error}"
        message = " ".join(told.split())
        # Attaching refuses by ValueError what the model cannot have.
        kind = "infeasible" if is_exhausted(error) or (self.run is None and isinstance(error, ValueError)) else "failed"
        if known is None:
            log_traceback(self.setup.run_dir, f"{key}  {dict(knobs)}", error)
        self._close()
        return self.journal.fail(key, knobs, message, kind) if known is None else known

    def advance(self) -> Metrics:
        """Train up to the next report, evaluate, journal and return the metrics; the last one has `done: true`.

        A trial that is past the run's deadline, or that somebody has asked to stop, ends at its next step: it is scored
        as it stands.
        """
        run, target, late = self._require(), self.next_report(), False
        while not (run.done or late) and run.samples < target:
            run.advance(run.samples + 1)
            late = self.stepped(target)
        self._show("scoring")
        scores: Metrics = self.setup.scorer.worst_figures("validation")
        if not run.diverged:
            scores = self._scored(run, late)
        return self.report(scores, late)

    def _scored(self, run: TrialRun, late: bool) -> Metrics:
        """The trial's scores; where an engine writes the answers, of the adapter as it would be exported now."""
        rows, scorer, engine = self.validation, self.setup.scorer, self.setup.engine
        if self.setup.settings.doubling and not (run.done or late):
            started = time.perf_counter()
            loss = run.validation_loss(rows)
            return {"validation_loss": loss, "eval_s": time.perf_counter() - started}
        apart = run.variant.saves != "peft"  # whole matrices, which no engine loads over the base
        if engine is None or apart or "texts" not in scorer.needs("validation"):
            return run.evaluate(rows, scorer, self.tokenizer)
        # Below the run's folder, which the engine's node sees too.
        folder = Path(self.setup.run_dir) / LIVE / f"written-{self.key}"
        try:
            run.save_adapter(folder, self.setup.model_folder)
            return run.evaluate(rows, scorer, self.tokenizer, Writer(engine, str(folder)))
        finally:
            if self.leader:
                shutil.rmtree(folder, ignore_errors=True)

    def next_report(self) -> int:
        """Samples of the budget after which the next report is due."""
        return self.setup.settings.due(self._require().samples)

    def stepped(self, due: int) -> bool:
        """After an optimizer step: say so, and keep it. Returns whether it was the last one: see `advance`.

        Args:
            due: samples after which the next report is due. A state that is kept between that step and its report would
                go on without the report: it is kept after it.
        """
        self._show("training")
        if self._require().samples < due:
            self._maybe_checkpoint()
        return self.parallel.any(time.time() >= self.setup.deadline or asked_to_stop(self.setup.run_dir, self.key))

    def report(self, scores: Metrics, late: bool) -> Metrics:
        """Journal and return the metrics of a report, and conclude the trial where it is the last one.

        Args:
            late: whether the trial ends here, before its budget is used.
        """
        run = self._require()
        metrics: Metrics = {**run.metrics(), **scores, "done": run.done or late}
        if metrics["done"]:
            self.conclude(metrics, stopped=not run.done)
        else:
            if self.leader:
                self.journal.report(self.key, metrics)
            # Those that a scheduler may pause are kept at each report: nobody may come back to them in this process.
            self._maybe_checkpoint(always=self.setup.settings.doubling)
        return metrics

    def conclude(self, metrics: Metrics, *, stopped: bool = False) -> None:
        """Write the trial's last line, then drop its checkpoint and its adapter."""
        run, key = self._require(), self.key
        if self.leader:
            self.journal.finish(key, run.knobs, metrics, stopped=stopped)
            shutil.rmtree(self.checkpoint_folder(key), ignore_errors=True)
        self._close()
        if self.leader and self.store is not None:
            self.store.remove(f"{CHECKPOINTS}/{key}")
            log = Path(self.setup.run_dir) / STRATEGIES / f"{key}.parquet"
            if log.is_file():
                self.store.put(f"{STRATEGIES}/{log.name}", log.read_bytes())

    def leave(self) -> None:
        """Put the running trial aside; a later `begin` goes on from here."""
        if self.run is not None:
            whole = self.setup.settings.doubling and self._kept_at == self.run.step
            if not (whole and saved(self.checkpoint_folder(self.key))):
                self.checkpoint()
            self._close()

    def checkpoint(self) -> None:
        folder = self.checkpoint_folder(self.key)
        self._require().save(folder)
        if self.leader and self.store is not None:
            self.store.put_state(folder, f"{CHECKPOINTS}/{self.key}")
        self._checkpointed, self._kept_at = time.monotonic(), self._require().step

    def _maybe_checkpoint(self, always: bool = False) -> None:
        # All workers save together: their clocks differ.
        late = time.monotonic() - self._checkpointed >= self.setup.settings.checkpoint_every_s
        if self.parallel.any(always or late):
            try:
                self.checkpoint()
            except OSError as error:
                # What was saved before holds, and the trial needs no disk to go on.
                log_traceback(self.setup.run_dir, f"{self.key}  its state could not be saved", error)
                self._checkpointed = time.monotonic()

    def _close(self) -> None:
        run, self.run, self.key = self.run, None, ""
        if run is not None:
            run.close()
            self.beacon.end()

    def _require(self) -> TrialRun:
        if self.run is None:
            raise RuntimeError("no trial is running here: call begin() first")
        return self.run
