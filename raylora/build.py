"""From a spec to its parts: task, data, settings, resources.

What trains or measures apart from an experiment (benchmarks, curvature, reports) builds its parts here too, so that
all mean the same by a spec.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

from raylora.data.sources import FileSource
from raylora.errors import UserError
from raylora.spec import Spec
from trainables.distributed import WorkerGroup
from trainables.protocols import Sampling, TrainSettings

if TYPE_CHECKING:
    from raylora.data.build import Prepared
    from raylora.tasks import Task

MAX_LENGTH = 1024


class LoadedAs(TypedDict):
    """See `how_loaded`."""

    dtype: str
    attention: str
    quantization: str
    liger: bool | Literal["auto"]


def build_task(spec: Spec) -> Task:
    """The spec's task, with its rows and the length of its answers.

    A task that generates its rows draws them with the spec's seed unless its options have one of their own.

    Raises:
        UserError: an unknown name or option, an option given twice, or a value that the task refuses.
    """
    from raylora.tasks import make_task

    told = spec.task
    seed = {} if "seed" in told.options else {"seed": spec.seed}
    rows = {
        name: getattr(told, name)
        for name in ("path", "train", "validation", "test", "columns", "list_labels", "train_rows", "test_rows")
    }
    task = make_task(told.name, told.options, test_sets=told.test_sets or None, **rows, **seed)
    longest = told.max_new_tokens or told.sampling.max_new_tokens
    if longest:
        task.max_new_tokens = longest
    sampling = replace(task.sampling, n=told.sampling.n, top_p=told.sampling.top_p, seed=spec.seed)
    if told.sampling.temperature is not None:
        sampling = replace(sampling, temperature=told.sampling.temperature)
    if told.sampling.stop is not None:
        sampling = replace(sampling, stop=tuple(told.sampling.stop))
    if told.head == "language":
        task.aim(told.metrics, spec.search.objective, sampling)
        return task
    return _with_labels(spec, task)


def _with_labels(spec: Spec, task: Task) -> Task:
    """The task as one of labels; the head itself is made when its rows are known (`build_data`)."""
    from raylora.tasks.labels import check_metrics, default_metrics, is_regression

    told, regression = spec.task, is_regression(spec.task.head, task.numeric)
    if task.tested_only:
        raise UserError.at(
            "task.head",
            f"{told.head}, but {task.name} is measured on what a language model writes; choose language, or a task "
            "with labels",
            value=told.head,
        )
    for field, value in (("max_new_tokens", told.max_new_tokens), ("sampling", told.sampling)):
        if value not in (None, type(told.sampling)()):
            raise UserError.at(
                f"task.{field}", f"set, but task.head = {told.head} generates nothing; leave it out", value=told.head
            )
    if spec.resources.strategy != "ddp" or spec.resources.pack != 1:
        field = "strategy" if spec.resources.strategy != "ddp" else "pack"
        value = getattr(spec.resources, field)
        raise UserError.at(
            f"resources.{field}",
            f"{value}: not with task.head = {told.head}; allowed: {'ddp' if field == 'strategy' else 1}",
            value=value,
        )
    if spec.train.pack_sequences:
        raise UserError.at(
            "train.pack_sequences", f"true: not with task.head = {told.head}, which reads a row each; set it to false"
        )
    if spec.search.knowledge.curvature:
        raise UserError.at(
            "search.knowledge.curvature",
            f"true: curvature is measured on language models; leave it out with task.head = {told.head}",
            value=True,
        )
    task.max_new_tokens = 0
    metrics = told.metrics or default_metrics(task.default_metrics, regression)
    scoring = task.aim(metrics, spec.search.objective, Sampling(max_new_tokens=0, seed=spec.seed))
    check_metrics((one.metric for one in scoring.measured), regression)
    return task


def check_rows(spec: Spec, task: Task, splits: Iterable[str]) -> None:
    """Holds the first rows of the local files of these splits against how they are to be read; starts no Ray.

    Raises:
        UserError: a column that is not there, a file without rows, or words that a regression has to answer with.
    """
    from raylora.tasks.labels import check_numbers, is_regression

    numbers = spec.task.head != "language" and is_regression(spec.task.head, task.numeric)
    sources = task.splits()
    for split in splits:
        source = sources[split]
        if isinstance(source, FileSource):
            rows = source.check()
            if numbers:
                check_numbers(split, (row["answer"] for row in rows), spec.task.head)


def lists_labels(spec: Spec) -> bool:
    """Whether prompts of the spec's rows list the labels of train; looks at its files, and for labels at their rows.

    Raises:
        UserError: as `build_task`, or rows that cannot be read.
    """
    sources = build_task(spec).splits().values()
    return any(form.listed for source in sources if isinstance(source, FileSource) for form in source.forms.values())


def build_data(
    spec: Spec, task: Task, tokenizer_folder: str, say: Callable[[str], None] = lambda text: None
) -> Prepared:
    """The task's rows, tokenised and split as the spec says; see `data.build`. A task of labels gets its `head`.

    Raises:
        UserError: what the rows lack, or a `task.max_length` beyond the model's positions.
    """
    from raylora.data import build as data

    prepared = data.build(
        task,
        tokenizer_folder,
        proxy=spec.task.proxy,
        seed=spec.seed,
        validation_rows=spec.task.validation_rows,
        max_length=max_length(spec, tokenizer_folder),
        system=spec.task.system,
        chat_template=spec.task.chat_template,
        train_on=spec.task.train_on,
        truncate=spec.task.truncate,
        control_tokens=spec.task.control_tokens,
        texts=spec.task.head != "language",
        allow_broken=spec.task.allow_broken,
        quiet=True,
        say=say,
    )
    if spec.task.head != "language":
        from raylora.tasks.labels import check_numbers, check_positive_label, first_answers, make_head

        answers = first_answers(prepared.train)
        head = make_head(spec.task.head, answers, labels=task.classes, numeric=task.numeric, seed=spec.seed)
        if head.regression:
            check_numbers("validation", first_answers(prepared.validation), spec.task.head)
        else:
            check_positive_label((one.metric for one in task.scoring.measured), head.labels)
        task.head = head
    return prepared


def inspect_data(spec: Spec, *, rows: int | None = None) -> dict[str, object]:
    """What is in the rows of the spec's task and what its model will see of them; see `data.inspect`.

    Args:
        rows: look at no more than the first so many rows of a split.
    """
    from transformers import AutoTokenizer

    from raylora import models
    from raylora.data.inspect import inspect_rows
    from raylora.data.tokenise import make_encoder
    from raylora.data.tokens import Tokenising

    task, folder = build_task(spec), str(models.resolve(spec.model, quiet=True))
    longest = max_length(spec, folder)
    how = Tokenising(
        system=spec.task.system,
        chat_template=spec.task.chat_template,
        train_on=spec.task.train_on,
        control_tokens=spec.task.control_tokens,
        truncate=spec.task.truncate,
        max_length=longest,
        max_new_tokens=task.max_new_tokens,
        texts=spec.task.head != "language",
    )
    encoder = make_encoder(AutoTokenizer.from_pretrained(folder), how)
    return inspect_rows(task.splits(), encoder, max_length=longest, max_new_tokens=task.max_new_tokens, rows=rows)


def max_length(spec: Spec, model_folder: str) -> int:
    """Longest row in tokens: what the spec says, or else 1,024 or as many as the model has positions.

    Raises:
        UserError: the spec asks for more than the model has positions.
    """
    from raylora.data.tokenise import model_positions, tokenizer_files

    positions = model_positions(tokenizer_files(Path(model_folder)))
    asked = spec.task.max_length
    if asked is not None and positions is not None and asked > positions:
        raise UserError(
            f"task.max_length = {asked}: the model has {positions} positions; allowed: at most {positions}",
            field="task.max_length",
            value=asked,
            allowed=positions,
        )
    return asked if asked is not None else min(MAX_LENGTH, positions or MAX_LENGTH)


def train_settings(spec: Spec, rows: int) -> TrainSettings:
    """How trials are trained, on a proxy subset of that many rows."""
    return TrainSettings(
        samples=spec.train.budget(rows),
        reports=spec.reports,
        doubling=spec.search.scheduler == "curve",
        micro_batch_tokens=spec.train.micro_batch_tokens,
        weight_decay=spec.train.weight_decay,
        warmup_ratio=spec.train.warmup_ratio,
        schedule=spec.train.schedule,
        max_grad_norm=spec.train.max_grad_norm,
        placement=spec.space.placement if isinstance(spec.space.placement, str) else tuple(spec.space.placement),
        match_parameters=spec.train.match_parameters,
        seed=spec.seed,
        checkpoint_every_s=spec.train.checkpoint_every_s,
        gradient_checkpointing=spec.train.gradient_checkpointing,
        pack_sequences=spec.train.pack_sequences,
        adapter_dtype=spec.train.adapter_dtype,
        compile=spec.train.compile,
    )


def how_loaded(spec: Spec) -> LoadedAs:
    """How the base model is loaded, as keyword arguments of a `TrialSetup` or of `trainables.session.load_model`."""
    return {
        "dtype": spec.dtype,
        "attention": spec.train.attention,
        "quantization": spec.quantization,
        "liger": spec.train.liger,
    }


def threads_per_host(spec: Spec) -> int:
    """Torch threads of a host or worker: as told, or an even share of this machine's cores."""
    if spec.resources.cpus_per_host:
        return spec.resources.cpus_per_host
    side_by_side = spec.resources.at_a_time * (spec.resources.workers if spec.mode == "train" else 1)
    return max(1, (os.cpu_count() or 1) // side_by_side)


def worker_group(spec: Spec) -> WorkerGroup | None:
    """The Ray Train worker group of each trial, or None where trials run on ModelHosts."""
    if spec.mode == "hosted":
        return None
    resources = spec.resources
    config = resources.deepspeed_config
    if resources.strategy == "deepspeed":
        from clusters import deepspeed_config

        config = str(deepspeed_config(config or "zero2"))
    return WorkerGroup(
        workers=resources.workers,
        gpus=resources.gpus_per_host,
        # A CPU each would leave none for Ray Data on a small machine.
        cpus=resources.cpus_per_host or (1 if resources.gpus_per_host else 0.1),
        accelerator_type=resources.accelerator_type,
        strategy=resources.strategy,
        deepspeed_config=config,
    )


def refuse_head(spec: Spec, what: str) -> None:
    """Refuses runs with a classification head where `what` is for language models.

    Raises:
        UserError: one line.
    """
    if spec.task.head != "language":
        raise UserError.at(
            "task.head", f"{spec.task.head}: {what}; choose a run with task.head = language", value=spec.task.head
        )
