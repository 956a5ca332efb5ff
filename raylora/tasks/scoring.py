"""The metrics of a run: which count where, what they need of a model, and what of them is optimised."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from raylora.errors import UserError
from raylora.metrics import Metric, OptionScores, RowLoss, is_metric, main_option, make_metric
from raylora.metrics.base import Estimate, MetricRow, Value, mean_estimate
from raylora.metrics.choice import Choice
from raylora.metrics.core.references import metadata_of
from trainables.protocols import Mark, Outputs, Sampling

Entry = str | Mapping[str, Any]
"""A metric as a spec names it: its name, `{name: options}`, or `{test set: metric}`."""

TEST = "test"
MEAN = "objective"
# What a trial and an evaluation report besides the metrics, and the fields of a line of the journal.
_TAKEN = frozenset("""
    loss step samples tokens done worst diverged stopped failed kind config time key event message objective
    step_time_s train_s attach_s peak_memory_gb trainable_parameters adapter_parameters hypernetwork_parameters
    hypernetwork_s optimizer_mb effective_rank eval_s eval_rows_per_s eval_tokens_per_s answers_cut
""".split())  # fmt: skip  # noqa: SIM905
_NAME = re.compile(r"[A-Za-z][\w@/.-]*(?<!_se)")
# More than one: a function of the user's own has to give a value for each.
_REHEARSED = 2
_PARTS = {"text": "texts", "samples": "texts", "loss": "losses", "options": "options"}


class Aimed(Protocol):
    """Of a task: what `raylora.tasks.base.Task` says of these names.

    `own`: name, better end and worst value of its `score`.
    """

    default_metrics: Sequence[Entry]
    objective: str
    test_sets: tuple[str, ...]
    tested_only: frozenset[str]
    own: tuple[str, Any, float]

    @property
    def sampling(self) -> Sampling: ...

    def prepared(self, metric: Metric) -> Metric: ...

    def score(self, completions: Sequence[str], rows: Sequence[MetricRow]) -> list[float]: ...


class OwnScore(Metric):
    """A task's own `score`, as a metric."""

    def __init__(self, task: Aimed) -> None:
        self.task = task
        self.key, self.mode, self.worst = task.own

    def score(self, outputs: Sequence[Any], rows: Sequence[MetricRow]) -> list[Value]:
        return [float(value) for value in self.task.score(outputs, rows)]


@dataclass(frozen=True)
class Measured:
    """A metric within a run.

    Attributes:
        key: the name under which it is reported.
        sets: the test sets that it counts on; empty for all. On validation every metric counts that can.
        validates: whether rows of validation have what it needs.
    """

    metric: Metric
    key: str
    sets: frozenset[str] = frozenset()
    validates: bool = True

    def counts_on(self, split: str) -> bool:
        if split == "validation":
            return self.validates
        return not self.sets or split.partition(".")[2] in self.sets


@dataclass(frozen=True)
class Scoring:
    """All metrics of a run and its objective (a `trainables.protocols.Scorer`).

    Attributes:
        metric: the objective's name among the figures of validation.
        mode, worst: of the objective.
        measured: every metric, in the order of the spec.
        sampling: how answers are generated.
        parts: the names whose mean is the objective, where it is several.
    """

    metric: str
    mode: str
    worst: float
    measured: tuple[Measured, ...]
    sampling: Sampling = field(default_factory=Sampling)
    parts: tuple[str, ...] = ()

    def on(self, split: str) -> list[Measured]:
        """The metrics that count there."""
        return [one for one in self.measured if one.counts_on(split)]

    def headline(self, split: str) -> str:
        """The one figure of a split: the objective where it counts there, else the first metric that does."""
        keys = [one.key for one in self.on(split)]
        return self.metric if self.metric in keys or self._has_mean(keys) else keys[0]

    def _has_mean(self, keys: Sequence[str]) -> bool:
        return bool(self.parts) and set(self.parts) <= set(keys)

    # --- what trainables asks for ---

    def needs(self, split: str) -> frozenset[str]:
        return frozenset(_PARTS[one.metric.needs] for one in self.on(split))

    def measure(self, split: str, model: object, tokenizer: object, rows: Sequence[MetricRow]) -> list[Any]:
        """What each metric that weighs options finds, by its name, for each row."""
        found: list[dict[str, Any]] = [{} for _ in rows]
        for one in self.on(split):
            if one.metric.needs == "options":
                scores = one.metric.measure(model, tokenizer, rows)  # type: ignore[attr-defined]
                for row, value in zip(found, scores, strict=True):
                    row[one.key] = value
        return found

    def marks(self, split: str, outputs: Outputs, rows: Sequence[MetricRow]) -> list[Mark]:
        values = {one.key: one.metric.score(_given(one, outputs), rows) for one in self.on(split)}
        marks: list[Mark] = [{"values": {key: each[at] for key, each in values.items()}} for at in range(len(rows))]
        if split == "validation":
            return marks
        return [{**mark, "groups": metadata_of(row).get("groups") or {}} for mark, row in zip(marks, rows, strict=True)]

    def figures(self, split: str, marks: Sequence[Mark]) -> dict[str, float | None]:
        """`<name>`, `<name>_se`, and what a metric has beside its value, for each metric.

        On a test set whose rows name groups (`{"level": "Level 1"}`), also `<name>[level=Level 1]`, its error, and
        `rows[level=Level 1]`.
        """
        found: dict[str, float | None] = {}
        for one in self.on(split):
            estimate = one.metric.summarise([mark["values"][one.key] for mark in marks])
            found |= _told(one.key, estimate)
            for name, part in estimate.parts.items():
                if name != one.key:
                    found |= _told(name if name.startswith(one.key.rstrip("0123456789")) else f"{one.key}.{name}", part)
        if self._has_mean(list(found)):
            found |= _told(self.metric, self._mean(found, marks))
        return found | self._by_group(split, marks)

    def _mean(self, found: Mapping[str, float | None], marks: Sequence[Mark]) -> Estimate:
        rows = [[mark["values"][key] for key in self.parts] for mark in marks]
        if all(isinstance(value, float | int) for row in rows for value in row):
            return mean_estimate([sum(row) / len(row) for row in rows])
        values = [found[key] for key in self.parts]
        errors = [found[f"{key}_se"] for key in self.parts]
        value = sum(one for one in values if one is not None) / len(values)
        # As large as it can be: the metrics mark the same rows.
        known = [error for error in errors if error is not None]
        return Estimate(value, sum(known) / len(errors) if len(known) == len(errors) else None)

    def _by_group(self, split: str, marks: Sequence[Mark]) -> dict[str, float | None]:
        groups: dict[str, list[Mark]] = {}
        for mark in marks:
            for name, value in mark.get("groups", {}).items():
                groups.setdefault(f"{name}={value}", []).append(mark)
        found: dict[str, float | None] = {}
        for group in sorted(groups):
            for one in (one for one in self.on(split) if one.metric.of_rows):
                estimate = one.metric.summarise([mark["values"][one.key] for mark in groups[group]])
                found[f"{one.key}[{group}]"], found[f"{one.key}_se[{group}]"] = estimate.value, estimate.error
            found[f"rows[{group}]"] = len(groups[group])
        return found

    def rehearse(self, rows: Sequence[MetricRow], split: str = "validation") -> None:
        """Has every metric of the split mark the references of these rows, before a model has answered any.

        Raises:
            UserError: what a metric lacks of the rows, or does wrong.
        """
        for one in self.on(split):
            tried = rows[:_REHEARSED] if one.metric.costly else rows
            texts = [[row["response"]] * self.sampling.n for row in tried]
            if isinstance(one.metric, Choice) and one.metric.needs == "options":
                counts = [len(one.metric.options(row)) for row in tried]
                one.metric.score([OptionScores((0.0,) * count, (1,) * count) for count in counts], tried)
            elif one.metric.needs != "options":
                values = one.metric.score(_given(one, Outputs(texts, [(1.0, 1)] * len(tried))), tried)
                # Few, for the errors of some come from a thousand resamples.
                one.metric.summarise(values[:_REHEARSED])

    def worst_figures(self, split: str) -> dict[str, float | None]:
        found: dict[str, float | None] = {one.key: one.metric.worst for one in self.on(split)}
        return {**found, self.metric: self.worst} if self._has_mean(list(found)) else found


def _given(one: Measured, outputs: Outputs) -> list[object]:
    """What a metric's `score` is called with."""
    if one.metric.needs == "samples":
        return [list(texts) for texts in outputs.texts]
    if one.metric.needs == "loss":
        return [RowLoss(nll, tokens) for nll, tokens in outputs.losses]
    if one.metric.needs == "options":
        return [found[one.key] for found in outputs.options]
    return [texts[0] for texts in outputs.texts]


def _told(name: str, estimate: Estimate) -> dict[str, float | None]:
    return {name: estimate.value, f"{name}_se": estimate.error}


# --- from a spec ---


@dataclass(frozen=True)
class _Named:
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    shown: str | None = None
    sets: frozenset[str] = frozenset()


def make_scoring(
    task: Aimed,
    *,
    metrics: Sequence[Entry] | None = None,
    objective: str | Sequence[str] | None = None,
    sampling: Sampling | None = None,
) -> Scoring:
    """The metrics of a task, or those that a spec names instead, and the objective among them.

    Args:
        metrics: `task.metrics`; None for the task's own.
        objective: `search.objective`: the name of a metric, names whose mean counts, or None for the task's own. A
            metric that is not among `metrics` is added.
        sampling: `task.sampling`; None for the task's own.

    Raises:
        UserError: an unknown metric or test set, options that it refuses, two metrics of one name, an objective that
            is none of them, or sampling that a metric cannot do with.
    """
    chosen = task.default_metrics if metrics is None else metrics
    measured = _measured(task, [_named(entry, task.test_sets) for entry in chosen])
    names = [objective] if isinstance(objective, str) else list(objective or [])
    if objective is None and metrics is None and task.objective:
        names = [task.objective]
    keys: list[str] = []
    for name in names:
        if not any(_is_called(one, name) for one in measured) and is_metric(name):
            added = _prepared(task, make_metric(name, where="search.objective"))
            measured.append(Measured(added, _key(added), validates=added.name not in task.tested_only))
        keys.append(_chosen(name, measured).key)
    aims = [_chosen(key, measured) for key in keys] or measured[:1]
    for one in aims:
        if not one.validates:
            raise UserError.at(
                "search.objective",
                f"{one.key!r} cannot be had on validation rows, which have no tests; choose loss",
                value=one.key,
            )
    modes = {one.metric.mode for one in aims}
    if len(modes) > 1:
        told = ", ".join(f"{one.key}: {one.metric.mode}" for one in aims)
        raise UserError.at(
            "search.objective",
            f"a mean needs metrics with the same better end; given {told}",
            value=[one.key for one in aims],
        )
    several = len(aims) > 1
    return Scoring(
        metric=MEAN if several else aims[0].key,
        mode=aims[0].metric.mode,
        worst=sum(one.metric.worst for one in aims) / len(aims),
        measured=tuple(measured),
        sampling=_sampling(sampling or task.sampling, measured),
        parts=tuple(one.key for one in aims) if several else (),
    )


def _is_called(one: Measured, name: str) -> bool:
    return name in (one.key, one.metric.name) or name.replace("@", "_at_") == one.metric.name


def _chosen(name: str, measured: Sequence[Measured]) -> Measured:
    for one in measured:
        if _is_called(one, name):
            return one
    known = ", ".join(one.key for one in measured)
    raise UserError.at(
        "search.objective",
        f"{name!r} is no metric of this run; allowed: {known}, loss, or a list of them",
        value=name,
        allowed=[one.key for one in measured],
    )


def _named(entry: Entry, sets: Sequence[str]) -> _Named:
    if isinstance(entry, str):
        return _Named(entry)
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise UserError.at(
            "task.metrics",
            f"{entry!r} is not allowed; give a name, {{name: options}} or {{test set: metric}}",
            value=entry,
        )
    [(key, value)] = entry.items()
    if isinstance(value, str) or (key in sets and _names_a_metric(value)):
        if key not in sets and (option := main_option(str(key))):
            return _Named(str(key), {option: value})
        if key not in sets and is_metric(str(key)):
            raise UserError.at(
                f"task.metrics.{key}", f"{value!r} is not allowed; give options as a mapping", value=value
            )
        if key not in sets:
            known = ", ".join(sets) or "one without a name; name several under task.test_sets"
            raise UserError.at(
                "task.metrics", f"{key!r} is no test set of this task; it has {known}", value=key, allowed=list(sets)
            )
        inner = _named(value, ())
        return _Named(inner.name, inner.options, inner.shown, frozenset({key}))
    options = dict(value or {}) if isinstance(value, Mapping) or value is None else None
    if options is None:
        raise UserError.at(f"task.metrics.{key}", f"{value!r} is not allowed; give options as a mapping", value=value)
    shown = options.pop("as", None)
    if shown is not None and not (isinstance(shown, str) and _NAME.fullmatch(shown)):
        raise UserError.at(
            f"task.metrics.{key}.as", f"{shown!r} is no name of a figure; give letters, not ending in _se", value=shown
        )
    return _Named(str(key), options, shown)


def _names_a_metric(value: Any) -> bool:
    return isinstance(value, Mapping) and len(value) == 1 and is_metric(str(next(iter(value))))


def _measured(task: Aimed, named: Sequence[_Named]) -> list[Measured]:
    if not named:
        return [Measured(OwnScore(task), task.own[0])]
    same: dict[str, list[_Named]] = {}
    for one in named:
        same.setdefault(json.dumps([one.name, one.options, one.shown], sort_keys=True, default=str), []).append(one)
    made = []
    for group in same.values():
        first = group[0]
        sets = frozenset[str]() if any(not one.sets for one in group) else frozenset().union(*(o.sets for o in group))
        metric = _prepared(task, make_metric(first.name, first.options))
        validates = metric.name not in task.tested_only
        made.append(Measured(metric, first.shown or _key(metric), sets, validates))
    keys = [one.key for one in made]
    # Several that all report `accuracy` go by their own names.
    found = [replace(one, key=one.metric.name) if keys.count(one.key) > 1 and one.metric.name else one for one in made]
    taken: set[str] = set()
    for each in found:
        of_another = each.key in _TAKEN or each.key.endswith("_se")
        of_another |= each.key == "validation_loss" and each.metric.name != "loss"
        if of_another or each.key in taken:
            raise UserError.at(
                "task.metrics",
                f"{each.key!r} is the name of another figure; give this one a name of its own, such as "
                f"{{{each.metric.name}: {{as: NAME}}}}",
                value=each.key,
            )
        taken.add(each.key)
    return found


def _prepared(task: Aimed, metric: Metric) -> Metric:
    """The metric with what it takes from the task. Raises UserError where the task has nothing for it."""
    prepared = task.prepared(metric)
    prepared.check_task()
    return prepared


def _key(metric: Metric) -> str:
    # The loss of the reference completions is reported anyway, and under this name.
    return "validation_loss" if metric.name == "loss" else metric.reported


def _sampling(sampling: Sampling, measured: Sequence[Measured]) -> Sampling:
    wanted = max((one.metric.samples for one in measured if one.metric.needs == "samples"), default=1)
    count = max(sampling.n, wanted)
    if count > 1 and sampling.temperature == 0:
        raise UserError.at(
            "task.sampling.temperature",
            f"0 gives the same answer {count} times; give a number above 0, such as 0.8",
            value=sampling.temperature,
        )
    return Sampling(sampling.max_new_tokens, sampling.temperature, sampling.top_p, count, sampling.stop, sampling.seed)
