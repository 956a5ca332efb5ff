"""One recipe, trained to the end and scored as exported: the work of the final stage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from torch import nn

from trainables.evaluation import evaluate_model, pad_token
from trainables.journal import Knobs, Metrics
from trainables.live import Beacon, Phase
from trainables.modes import evaluating
from trainables.parallel import Parallel
from trainables.protocols import TrialSetup
from trainables.rows import as_rows
from trainables.run import TrialRun
from trainables.session import surroundings
from trainables.store import store_of
from trainables.variants.core.export import exported_adapter
from trainables.written import Writer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FINAL = "final"
"""Folder of a run with one for each job of its final stage."""


@dataclass(frozen=True)
class RecipeJob:
    """A recipe to train and score, or the untouched base model to score where `knobs` is None.

    Args:
        train: `Rows` to train on, or object references of Arrow tables.
        evaluate_on: Split name -> its `Rows`, or object references of its tables.
        samples: Training budget in samples.
        folder: Gets `adapter/` (a PEFT folder) and one Parquet of predictions per split.
        base_name: What the adapter's configuration names as its base model.
        deadline: When training stops and the recipe is scored as it is, in seconds since the epoch.
        halvings: How often its micro-batch is halved from the start: its host has died for want of memory.
    """

    folder: str
    evaluate_on: Mapping[str, Sequence[object]]
    knobs: Knobs | None = None
    train: Sequence[object] = ()
    samples: int = 1
    seed: int = 0
    base_name: str = ""
    deadline: float = math.inf
    halvings: int = 0

    def within(self, setup: TrialSetup) -> RecipeJob:
        """The job with its folder in the run's folder on this node."""
        return replace(self, folder=str(Path(setup.run_dir) / FINAL / Path(self.folder).name)) if setup.store else self

    def keep(self, setup: TrialSetup) -> None:
        """Put what the job wrote into the run's store, where there is one."""
        if (store := store_of(setup.run_dir)) is not None:
            store.put_folder(Path(self.folder), f"{FINAL}/{Path(self.folder).name}")

    def fetch(self, setup: TrialSetup) -> None:
        """Get what the job wrote on another node."""
        if (store := store_of(setup.run_dir)) is not None:
            store.get_folder(f"{FINAL}/{Path(self.folder).name}", Path(self.folder))


@dataclass(frozen=True)
class RecipeResult:
    """What came of a `RecipeJob`.

    Attributes:
        metrics: of training; empty for the untouched base model.
        scores: split -> what `evaluate_model` found there.
    """

    metrics: Metrics = field(default_factory=dict)
    scores: Mapping[str, Metrics] = field(default_factory=dict)

    def to_row(self) -> dict[str, Any]:
        """As the journal and result files hold it: the training metrics, and under each split's name its scores."""
        return {**self.metrics, **self.scores}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> RecipeResult:
        """Back from `to_row`."""
        scores = {name: dict(value) for name, value in row.items() if isinstance(value, Mapping)}
        return cls({name: value for name, value in row.items() if name not in scores}, scores)


def run_recipe(
    job: RecipeJob,
    setup: TrialSetup,
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    parallel: Parallel | None = None,
) -> RecipeResult:
    """Train `job`'s recipe, write its adapter, score what was written.

    The scores belong to the adapter *as exported*, loaded by PEFT over the untouched base model, so they
    are what a user of the folder gets.
    """
    parallel = parallel or Parallel()
    folder = Path(job.folder)
    if parallel.rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
    if job.knobs is None:
        with evaluating(model), parallel.serving(model):
            return RecipeResult(scores=_scores(job, setup, model, tokenizer, parallel, adapter=""))
    settings = replace(setup.settings, samples=job.samples, seed=job.seed)
    run = TrialRun(
        model,
        job.knobs,
        as_rows(job.train),
        settings,
        pad_id=pad_token(tokenizer),
        parallel=parallel,
        halvings=job.halvings,
        head=setup.head,
        surroundings=surroundings(setup, job.knobs, f"final-{folder.name}", folder),
    )
    beacon = Beacon(setup.run_dir, f"final-{folder.name}" if parallel.rank == 0 else "")
    beacon.begin()
    try:
        while not run.done and run.samples < job.samples and not parallel.late(job.deadline):
            run.advance(run.samples + 1)
            _show(beacon, "training", run, job)
        metrics = run.metrics()
        run.save_adapter(folder / "adapter", job.base_name)
    finally:
        run.close()
    _show(beacon, "scoring", run, job)
    try:
        return _scored(job, setup, model, tokenizer, parallel, metrics)
    finally:
        beacon.end()


def _show(beacon: Beacon, phase: Phase, run: TrialRun, job: RecipeJob) -> None:
    name = Path(job.folder).name
    beacon.show(phase, run.samples, job.samples, loss=run.last_loss, key=name, knobs=run.knobs, name=name)


def _scored(
    job: RecipeJob,
    setup: TrialSetup,
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    parallel: Parallel,
    metrics: Metrics,
) -> RecipeResult:
    """The trained adapter's scores, as it was exported; the worst ones where it diverged."""
    folder = Path(job.folder)
    if metrics["diverged"]:
        return RecipeResult(metrics, {split: setup.scorer.worst_figures(split) for split in job.evaluate_on})
    with exported_adapter(model, folder / "adapter") as adapted, evaluating(adapted), parallel.serving(adapted):
        scores = _scores(job, setup, adapted, tokenizer, parallel, adapter=str(folder / "adapter"))
        return RecipeResult(metrics, scores)


def _scores(
    job: RecipeJob,
    setup: TrialSetup,
    module: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    parallel: Parallel,
    *,
    adapter: str,
) -> dict[str, Metrics]:
    """Scores per split; the first worker's predictions go to `<split>.parquet`."""
    scores: dict[str, Metrics] = {}
    device = parallel.device(module)
    writer = None if setup.engine is None else Writer(setup.engine, adapter, merge=True)
    for split, refs in job.evaluate_on.items():
        predictions: list[dict[str, Any]] = []
        scores[split] = evaluate_model(
            module,
            as_rows(refs),
            setup.scorer,
            tokenizer,
            split=split,
            device=device,
            parallel=parallel,
            predictions=predictions,
            head=setup.head,
            writer=writer,
        )
        suffix = "" if parallel.world == 1 else f"-{parallel.rank}"
        if predictions:
            pq.write_table(pa.Table.from_pylist(predictions), Path(job.folder) / f"{split}{suffix}.parquet")
    return scores
