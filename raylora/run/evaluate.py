"""Scores of any adapter or model, by the same rows, tokens, batches and metrics as the final stage's."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from raylora.build import build_data, build_task, check_rows, how_loaded, max_length, threads_per_host, train_settings
from raylora.cluster import connected
from raylora.data.build import Test, build_tests
from raylora.data.sources import FileSource, split_names
from raylora.data.split import TEST_SEED
from raylora.data.tokenise import model_positions, tokenizer_files
from raylora.data.tokens import Tokenising
from raylora.errors import UserError, user_error_of
from raylora.progress import Progress
from raylora.run.checks import check_engine, check_quantization
from raylora.run.engine.start import start_engine
from raylora.run.final import headline, is_figure, over_seeds, part_of, sample_rows
from raylora.run.folder import read_run
from raylora.run.heads import head_of_run
from raylora.run.keeper import Keeper
from raylora.run.prepare import host_options
from raylora.run.quantized import laid_over
from raylora.run.rehearsal import first_rows, rehearse
from raylora.run.subject import Subject, check_adapter, find_subject
from raylora.run.trouble import why
from raylora.spec import Spec, from_dict
from raylora.spec.text import put
from raylora.tasks import TASKS, Task
from raylora.tasks.labels import first_answers, make_head
from trainables.classifier import read_labels
from trainables.heads import Head
from trainables.protocols import TrialSetup
from trainables.rows import Rows

Figure = tuple[float | None, float | None]

_NAMED = re.compile(r"([A-Za-z0-9_][\w.-]*)=(.+)")


@dataclass(frozen=True)
class SetScores:
    """What a model's answers to one set of rows are worth.

    Attributes:
        rows: how many were scored; `dropped` were not: unusable, or too long a prompt.
        headline: the figure that counts there.
        figures: name -> value and its standard error (None where it has none).
    """

    rows: int
    dropped: int
    headline: str
    figures: Mapping[str, Figure]


@dataclass(frozen=True)
class Evaluation:
    """The answer of `raylora.evaluate`.

    Attributes:
        target: what was scored, as it was named: a `run`, an `adapter` or a `model` (`kind`).
        base: the base model of an adapter; the model itself where it is whole.
        metric, mode: the first of the metrics, or the run's objective, and its better end.
        sets: the sets of rows by name: `test`, the split that was asked for, or the names of several.
        seconds: loading and scoring, data included.
        answers: one entry per row: `set`, `row` (its number in the split), `prompt`, `answer`, `completion`, `scores`.

    Example:
        >>> scored = raylora.evaluate("runs/sums", quiet=True)
        >>> scored.metric, scored.sets["test"].rows, 0 <= scored.value <= 1
        ('accuracy', 12, True)
    """

    target: str
    kind: Literal["run", "adapter", "model"]
    base: str
    metric: str
    mode: str
    value: float
    error: float | None
    sets: Mapping[str, SetScores]
    seconds: float
    answers: Sequence[Mapping[str, object]] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain data without the answers, as `raylora evaluate --json` prints it.

        Example:
            >>> sorted(raylora.evaluate("runs/sums", quiet=True).to_dict()["sets"]["test"])
            ['dropped', 'figures', 'headline', 'rows']
        """
        return {name: value for name, value in asdict(replace(self, answers=())).items() if name != "answers"}


def evaluate(
    target: str,
    *,
    spec: Mapping[str, object] | None = None,
    data: Sequence[str] = (),
    changes: Mapping[str, object] | None = None,
    split: str | None = None,
    rows: int | None = None,
    base: str | None = None,
    quiet: bool = False,
) -> Evaluation:
    """Score a run's adapter, an adapter from anywhere, or a model; see `raylora.evaluate`.

    Args:
        target: a run's folder, an adapter's folder or hub id, or a model.
        spec: a spec's plain data, whose task says which rows and how; default: the run's, or one of defaults.
        data: sources to score on instead of the spec's: one, or several, each `PATH` or `NAME=PATH`.
        changes: fields of the spec by dotted key.
        split: of the rows; default: test, or all that there is.
        rows: at most so many, drawn by a constant seed.

    Raises:
        UserError: one line.
    """
    started = time.monotonic()
    subject = find_subject(target, base, quiet=quiet)
    asked, keeper = _spec(subject, spec, data, changes or {}, split, rows)
    check_adapter(subject, asked.task.head, asked.quantization)
    check_quantization(asked)
    check_engine(asked)
    task = build_task(asked)
    check_rows(asked, task, _splits_given(task) if data else _splits_read(task, split))
    progress = Progress(task.metric, quiet)
    over = f" over {subject.base}" if subject.adapter is not None else ""
    progress.say(f"evaluate: {subject.kind} {subject.name}{over}")
    with tempfile.TemporaryDirectory(prefix="raylora-evaluate-") as work, connected():
        if data:
            tests = _given_rows(asked, task, subject, progress)
        else:
            tests = _rows_of_spec(asked, task, subject, split, rows, keeper, progress)
        sets = {name: test[0] for name, test in tests.items()}
        task.head = _head(asked, task, subject, sets)
        found = _score(asked, task, subject, sets, work, progress)
    return _told(subject, task, tests, found, split if data else None, time.monotonic() - started)


# --- which rows ---


def _spec(
    subject: Subject,
    spec: Mapping[str, Any] | None,
    data: Sequence[str],
    changes: Mapping[str, Any],
    split: str | None,
    rows: int | None,
) -> tuple[Spec, Keeper | None]:
    """What says which rows and how; of a run as it is, also its plan, which may have bounded them."""
    told: dict[str, Any] = {"task": {}}
    keeper = None
    if spec is not None:
        told = dict(spec)
    elif subject.run is not None:
        own = read_run(subject.run)[1]
        keeper = Keeper.again(subject.run, own)
        told = (own if keeper is None or keeper.plan is None else keeper.plan.apply(own)).to_dict()
        told["quantization"] = laid_over(own, subject.run)
    elif not data and "task.name" not in changes:
        raise UserError.at("--data", "missing; give the rows to score on, or a spec, or a run with rows of its own")
    told = put(told, {"model": subject.base, **changes})
    if data:
        told = put(told, _sources(dict(told["task"]), data, split))
        if rows is not None:
            told = put(told, {"task.test_rows": rows})
    return from_dict(told), keeper


def _sources(task: Mapping[str, object], data: Sequence[str], split: str | None) -> dict[str, Any]:
    """The fields of a task that is to read these sources alone, as its test set or sets."""
    named = [_named(one) for one in data]
    names = [name or Path(path).name.partition(".")[0] or "test" for name, path in named]
    for name in names:
        if names.count(name) > 1:
            raise UserError.at("--data", f"two are called {name!r}; give each a name, such as {name}2=PATH", value=name)
    fields = dict.fromkeys(("train", "validation", "test"), None) | {"test_sets": {}, "path": named[0][1]}
    sources = [_source(path, split) for _, path in named]
    family = str(task.get("name") or "instruct").partition("/")[0]
    if len(named) > 1 or named[0][0] is not None:
        fields |= {"test_sets": dict(zip(names, sources, strict=True)), "train": sources[0]}
    elif family not in TASKS or not getattr(TASKS[family], "sets", None):
        fields |= {"test": sources[0], "train": sources[0]}
    elif split is not None:
        raise UserError(
            f"--split = {split!r}: {family} has test sets with names; give them with --data NAME=PATH",
            field="--split",
            value=split,
        )
    return {f"task.{name}": value for name, value in fields.items()}


def _named(text: str) -> tuple[str | None, str]:
    found = None if Path(text).expanduser().exists() or "://" in text else _NAMED.fullmatch(text)
    return (found.group(1), found.group(2)) if found else (None, text)


def _source(path: str, split: str | None) -> dict[str, object]:
    """A source with the split that is scored: the one asked for, its test split, or the only one."""
    if split is None:
        there = split_names(path)
        split = "test" if "test" in there else there[0] if len(there) == 1 else None
        if split is None:
            raise UserError.at(
                "--split",
                f"missing; {path} has no test split but {', '.join(there)}; name one of them",
                allowed=list(there),
            )
    return {"path": path, "split": split}


def _given_rows(spec: Spec, task: Task, subject: Subject, progress: Progress) -> dict[str, Test]:
    """The rows of sources that were given: nothing but them is read."""
    told = spec.task
    _list_as_trained(task, subject)
    how = Tokenising(
        told.system,
        told.chat_template,
        told.train_on,
        told.control_tokens,
        told.truncate,
        positions=model_positions(tokenizer_files(subject.folder)),
        texts=told.head != "language",
    )
    longest = max_length(spec, str(subject.folder))
    return build_tests(
        task,
        subject.tokenizer,
        _splits_given(task),
        how,
        max_length=longest,
        allow_broken=told.allow_broken,
        say=progress.say,
    )


def _splits_given(task: Task) -> list[str]:
    """The splits that sources which were given stand for."""
    return [name for name in task.splits() if name.partition(".")[0] == "test"] or ["train"]


def _splits_read(task: Task, split: str | None) -> list[str]:
    """The splits that are read of a spec's own sources."""
    asked = ("train", "validation", split)
    return [name for name in task.splits() if split is None or name in asked or name.partition(".")[2] in asked]


def _list_as_trained(task: Task, subject: Subject) -> None:
    """Has the prompts of labelled rows list the labels that the run was trained on, not those of the given rows."""
    if subject.run is None:
        return
    try:
        own = build_task(read_run(subject.run)[1]).splits()["train"]
        if not isinstance(own, FileSource) or not own.labels:
            return
    except UserError:  # what it was trained on is not there any more
        return
    for source in task.splits().values():
        if isinstance(source, FileSource) and source.labels_from is not None:
            source.labels_from = own


def _rows_of_spec(
    spec: Spec,
    task: Task,
    subject: Subject,
    split: str | None,
    rows: int | None,
    keeper: Keeper | None,
    progress: Progress,
) -> dict[str, Test]:
    """The rows that a run of the spec would score, or another part of its data."""
    longest = max_length(spec, str(subject.folder))
    spec = spec.model_copy(update={"task": spec.task.model_copy(update={"max_length": longest})})
    prepared = build_data(spec, task, str(subject.tokenizer), progress.say)
    for note in prepared.notes:
        progress.say(f"data: {note}")
    parts = {"train": prepared.train, "validation": prepared.validation}
    if split in parts:
        return {split: (sample_rows(parts[split], rows or len(parts[split]), TEST_SEED), {})}
    wanted = [name for name in prepared.tests if split in (None, name, name.partition(".")[2])]
    if not wanted:
        there = ", ".join([*parts, *(name.partition(".")[2] or name for name in prepared.tests)])
        raise UserError(f"--split = {split!r}: no such split; allowed: {there}", field="--split", value=split)
    read = {name: prepared.tests[name]() for name in wanted}
    leaked, count = (sum(counts[name] for _, counts in read.values()) for name in ("test_prompts_in_train", "test"))
    if leaked:
        progress.say(f"data: {leaked} of {count} test rows have a prompt that the spec trains on")
    most = rows if rows is not None else keeper.share.test_rows if keeper is not None and keeper.share else None
    tests: Mapping[str, Rows] = {name: part for name, (part, _) in read.items()}
    if most is not None and most < count:
        tests = part_of(tests, most)
    return {name: (tests[name], counts) for name, (_, counts) in read.items()}


# --- scores ---


def _head(spec: Spec, task: Task, subject: Subject, sets: Mapping[str, Rows]) -> Head:
    """What answers: of a run as it was trained, else with the labels of the task, of the model or of the rows."""
    if subject.run is not None:
        return head_of_run(subject.run, read_run(subject.run)[1])
    if spec.task.head == "language":
        return task.head
    labels = task.classes or read_labels(subject.folder / "config.json")
    answers = [answer for rows in sets.values() for answer in first_answers(rows)]
    return make_head(spec.task.head, answers, labels=labels, numeric=task.numeric, seed=spec.seed)


def _score(
    spec: Spec, task: Task, subject: Subject, sets: Mapping[str, Rows], work: str, progress: Progress
) -> Mapping[str, Any]:
    import ray
    from ray.exceptions import ActorDiedError, RayError

    from raylora import models
    from trainables.host import start_hosts

    own = subject.tokenizer
    setup = TrialSetup(
        model_folder=subject.base if not Path(subject.base).is_dir() else str(subject.folder),
        resolve_model=models.resolve,
        tokenizer_folder="" if own == subject.folder else str(own),
        scorer=task.scoring,
        settings=train_settings(spec, 1),
        train=Rows([]),
        validation=Rows([]),
        run_dir=work,
        **how_loaded(spec),
        threads=threads_per_host(spec),
        head=task.head,
    )
    hosts: list[Any] = []
    engine = None
    try:
        progress.say("evaluate: loading the model")
        engine = start_engine(
            spec,
            task.scoring,
            sets,
            model=setup.model_folder,
            folder=subject.folder,
            rank=0,
            run_dir=work,
            tokenizer=setup.tokenizer_folder,
        )
        hosts = start_hosts(replace(setup, engine=engine), 1, **host_options(spec))
        rehearse(task.scoring, first_rows(sets), hosts)
        told = ", ".join(f"{len(rows)} rows of {name}" for name, rows in sets.items())
        progress.say(f"evaluate: scoring {told}")
        return ray.get(hosts[0].score.remote(str(subject.adapter or ""), dict(sets)))
    except ActorDiedError:
        raise UserError.at(
            "MODEL",
            f"the process that held {subject.name} was ended, probably for want of memory; give fewer rows, or "
            "a machine with more",
            value=subject.name,
        ) from None
    except RayError as error:
        mistake = user_error_of(error)
        if mistake is not None:
            raise mistake from None
        what = f"over {subject.base} cannot be scored" if subject.adapter else "cannot be scored"
        raise UserError(f"MODEL: {subject.name} {what}: {why(error)}", field="MODEL", value=subject.name) from error
    finally:
        for actor in [*hosts, *([] if engine is None else [engine])]:
            ray.kill(actor)


def _told(
    subject: Subject, task: Task, tests: Mapping[str, Test], found: Mapping[str, Any], shown: str | None, seconds: float
) -> Evaluation:
    """The scores as the user names their sets."""
    from trainables.recipe import RecipeResult

    scoring = task.scoring
    result = [RecipeResult({}, {name: scored.metrics for name, scored in found.items()})]
    value, error = headline(result, list(found), scoring)
    sets, answers = {}, []
    for name, scored in found.items():
        rows, counts = tests[name]
        called = name.partition(".")[2] or shown or name
        figures = {
            figure: over_seeds(result, name, figure) for figure in scored.metrics if is_figure(figure, scored.metrics)
        }
        dropped = sum(n for what, n in counts.items() if "_dropped_" in what)
        sets[called] = SetScores(len(rows), dropped, scoring.headline(name), figures)
        answers += [_answer(called, one, scoring.headline(name)) for one in scored.answers]
    return Evaluation(
        subject.name, subject.kind, subject.base, task.metric, task.mode, value, error, sets, round(seconds, 1), answers
    )


def _answer(called: str, one: Mapping[str, object], headline: str) -> dict[str, object]:
    """A row's answer, its scores apart from the rest."""
    kept = ("row", "prompt", "answer", "completion", "completions")
    scores = {name: value for name, value in one.items() if name not in (*kept, "score")}
    return {
        "set": called,
        **{name: one[name] for name in kept if name in one},
        "scores": scores or {headline: one.get("score")},
    }
