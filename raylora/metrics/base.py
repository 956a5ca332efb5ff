"""What a metric is: what an answer is worth, and what the answers to many rows are worth together."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from raylora.errors import UserError
from raylora.metrics.statistics import bootstrap_error, standard_error

MetricRow = Mapping[str, Any]
Needs = Literal["text", "samples", "loss", "options"]
Value = float | tuple[float | str, ...]


@dataclass(frozen=True)
class RowLoss:
    """How well a model foresees the reference completion of one row.

    Attributes:
        nll: sum of the negative log-likelihoods of its tokens, in nats.
        tokens: how many these are.
    """

    nll: float
    tokens: int


@dataclass(frozen=True)
class OptionScores:
    """How likely a model holds each option of one row, given its prompt.

    Attributes:
        log_likelihoods: log-likelihood of each option's tokens, summed, in nats, `(options,)`.
        tokens: tokens of each option, `(options,)`.
        greedy: whether each option's tokens are the most likely ones, `(options,)`.
    """

    log_likelihoods: tuple[float, ...]
    tokens: tuple[int, ...]
    greedy: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Estimate:
    """A metric over all rows.

    Attributes:
        value: what is reported, and optimised where the metric is the objective; NaN where there are no rows.
        error: its standard error; None for fewer than two rows.
        parts: further figures that come with it, by name, such as `rouge1` beside `rougeL`.
    """

    value: float
    error: float | None
    parts: Mapping[str, Estimate] = field(default_factory=dict)


class Metric(ABC):
    """One way to mark a model's answers. Instances are small, pickle, and travel to the actors that score.

    Options are the keyword arguments of the class, and checked by it: see `make_metric`.

    Attributes:
        name: what the registry and a spec call it; the module of a built-in metric has that name.
        summary: one line for `raylora metrics`.
        key: the name under which a trial reports the value; `name` where it is empty.
        mode: `max` or `min`, the better end.
        worst: finite value that a diverged trial is given; no answers are worth less.
        needs: what `score` is given for each row: `text`, a generated completion (str); `samples`, `samples`
            completions (a sequence of str); `loss`, a `RowLoss`; `options`, an `OptionScores`.
        samples: completions per row, where `needs` is `samples`.
        part: the option that stands behind the slash of the metric's name in a spec, such as `task`; mostly empty.
        main: the option that a text in place of the options is, such as `function`; mostly empty.
        of_rows: whether it is a figure of the run's rows, and so of groups of them too.
        costly: whether a mark costs more than a moment: a program is run, a service or a function of the user's asked.
        marks: what it makes sense of beside text, as a classification head gives it: `classes` (a label), `numbers`.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    key: str = ""
    mode: Literal["max", "min"] = "max"
    worst: float = 0.0
    needs: Needs = "text"
    samples: int = 1
    part: ClassVar[str] = ""
    main: ClassVar[str] = ""
    of_rows: ClassVar[bool] = True
    costly: ClassVar[bool] = False
    marks: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def score(self, outputs: Sequence[Any], rows: Sequence[MetricRow]) -> Sequence[Value]:
        """What each row's output is worth: a finite number, or what `summarise` needs to know of the row.

        Args:
            outputs: what `needs` names, one per row, `(n,)`. A completion is decoded text after the prompt,
                without special tokens; it may be empty.
            rows: the rows they answer, `(n,)`, with `prompt`, `response`, `answer` (str) and `metadata` (JSON
                text).

        Returns:
            One value per row, `(n,)`. They can be scored in parts and put together in any order.

        Raises:
            ValueError: not one output per row.
            UserError: a row lacks what this metric needs of it.
        """

    def check_task(self) -> None:  # noqa: B027 -- most metrics take nothing from a task
        """Raises UserError where the task has not given what this metric takes from one (see `Task.prepared`)."""

    def summarise(self, values: Sequence[Value]) -> Estimate:
        """The values of all rows as one: here their mean and its standard error."""
        return mean_estimate([_number(value) for value in values])

    @property
    def reported(self) -> str:
        """The name under which a trial reports the value; its standard error is `<reported>_se`."""
        return self.key or self.name


class CorpusMetric(Metric):
    """A metric that is no mean of rows: a function of all of them, with a bootstrapped standard error."""

    def summarise(self, values: Sequence[Value]) -> Estimate:
        if not values:
            return Estimate(math.nan, None)
        # Sorted: the error must not depend on how many workers scored the rows, and in which order they came.
        rows = sorted(tuple(value) if isinstance(value, Sequence) else (value,) for value in values)
        table, value = self.estimator(rows)
        return Estimate(value(table), bootstrap_error(table, value))

    @abstractmethod
    def estimator(self, rows: Sequence[tuple[object, ...]]) -> tuple[np.ndarray, Callable[[np.ndarray], float]]:
        """The values of at least one row as a table `(n, k)`, and what the metric of any rows of it is, finite."""


def mean_estimate(values: Sequence[float]) -> Estimate:
    """Mean of the values and its standard error; NaN without any, no error for one."""
    if not values:
        return Estimate(math.nan, None)
    return Estimate(math.fsum(values) / len(values), standard_error(values) if len(values) > 1 else None)


def parts_estimate(values: Sequence[Value], names: Sequence[str], chosen: str) -> Estimate:
    """Mean and error of each of several figures per row; `chosen` is the value, and all are its parts.

    Args:
        values: the figures of each row, `(n, len(names))`.
        names: what the figures are called.
        chosen: one of `names`.
    """
    rows = [value if isinstance(value, Sequence) else (value,) for value in values]
    parts = {name: mean_estimate([float(row[place]) for row in rows]) for place, name in enumerate(names)}
    return Estimate(parts[chosen].value, parts[chosen].error, parts)


def check_lengths(outputs: Sequence[object], rows: Sequence[MetricRow]) -> None:
    """Raise ValueError unless there is exactly one row per output."""
    if len(outputs) != len(rows):
        raise ValueError(f"completions: {len(outputs)} for {len(rows)} rows; give one completion per row")


def options_of(cls: type[Metric]) -> dict[str, inspect.Parameter]:
    """The options that a metric's class takes, by name."""
    parameters = inspect.signature(cls).parameters.values()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {parameter.name: parameter for parameter in parameters if parameter.kind in named}


def build(cls: type[Metric], options: Mapping[str, object], where: str) -> Metric:
    """An instance of `cls` with these options.

    Args:
        where: the field that names the metric, for errors, such as `task.metrics`.

    Raises:
        UserError: an unknown option, one that is missing, or a value that the metric refuses.
    """
    known = options_of(cls)
    allowed = f"it takes {', '.join(known)}" if known else "it takes none"
    for option, value in options.items():
        if option not in known:
            raise UserError(
                f"{where}.{option}: {value!r}, but {cls.name} has no such option; {allowed}",
                field=f"{where}.{cls.name}.{option}",
                value=value,
                allowed=list(known),
            )
    for parameter in known.values():
        if parameter.default is parameter.empty and parameter.name not in options:
            raise UserError(
                f"{where}.{parameter.name}: missing; {cls.name} needs it", field=f"{where}.{cls.name}.{parameter.name}"
            )
    try:
        return cls(**options)
    except UserError as error:
        # The metric knows its option; the spec's key for it is known here.
        error.field = f"{where}.{error.field}" if error.field.startswith(f"{cls.name}.") else error.field
        raise


def check_choice(metric: str, option: str, value: object, allowed: Sequence[str]) -> None:
    """Raise UserError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise UserError.at(
            f"{metric}.{option}", f"unknown {value!r}; choose one of {', '.join(allowed)}", value=value, allowed=allowed
        )


def check_count(metric: str, option: str, value: object, least: int = 1) -> None:
    """Raise UserError unless `value` is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError.at(
            f"{metric}.{option}", f"{value!r} is not allowed; give a whole number of {least} or more", value=value
        )


def check_flag(metric: str, option: str, value: object) -> None:
    """Raise UserError unless `value` is true or false."""
    if not isinstance(value, bool):
        raise UserError.at(
            f"{metric}.{option}", f"{value!r} is not allowed; give true or false", value=value, allowed=(True, False)
        )


def _number(value: Value) -> float:
    if not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number: a metric with such values has its own `summarise`")
    return float(value)
