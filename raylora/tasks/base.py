"""What a task is: rows to learn from, and a score for what the model then writes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from raylora.data.rows import Source
from raylora.errors import UserError
from raylora.metrics import Metric
from raylora.tasks.scoring import Entry, Scoring, make_scoring
from trainables.heads import LANGUAGE, Head
from trainables.protocols import Sampling


class Task(ABC):
    """One family of rows with its metric. Instances are small, pickle, and travel to the actors that score.

    The constructor declares the options, as keyword-only arguments: `path` where rows are read from somewhere, `seed`
    where they are generated, `train_rows`, `test_rows`, `max_new_tokens` and the family's own, or `**options` for all
    others. Those without a default must be given. Wrong values are a `UserError` that names the option.

    Attributes:
        name: of a class, its family; of an instance, what the reports call it, such as `reasoning_gym/chain_sum`.
        summary: one line for lists.
        part: what stands behind the slash of the family's names, such as `generator`, and is the constructor's one
            positional argument; empty where the family is one task.
        default_metrics: what is measured where a spec says nothing, in its form: `exact`, `{number: {mark: "####"}}`,
            `{test set: metric}`. Empty: `score` is the one metric.
        objective: the one of them that is optimised; empty for the first.
        test_sets: names of its test sets, where it has several.
        tested_only: names of metrics for which rows of train lack something, such as tests of a program.
        metric: the name under which a trial reports the objective, or the mean of `score`.
        mode: `max` or `min`, the better end of the objective.
        worst: finite value of the objective that a diverged trial is given.
        max_new_tokens: longest completion worth generating, in tokens.
        temperature, stop: of generated answers, where a spec says nothing; see `trainables.protocols.Sampling`.
        notes: what a person should be told before a run, in lines.
        train_rows, test_rows: bound on a split, or None for all of it; a longer split is sampled, by seed.
        classes: the words of its labels in their published order, where its answers are labels.
        numeric: whether its answers are numbers on a scale.
        head: what answers: a language model, or a classification head once its labels are known.
    """

    name: str = ""
    summary: ClassVar[str] = ""
    part: ClassVar[str] = ""
    default_metrics: Sequence[Entry] = ()
    objective: str = ""
    test_sets: tuple[str, ...] = ()
    tested_only: frozenset[str] = frozenset()
    metric: str = "accuracy"
    mode: str = "max"
    worst: float = 0.0
    max_new_tokens: int = 64
    temperature: float = 0.0
    stop: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    train_rows: int | None = None
    test_rows: int | None = None
    classes: tuple[str, ...] = ()
    numeric: bool = False
    head: Head = LANGUAGE

    @classmethod
    def offers(cls) -> list[str]:
        """The names of tasks that this family has on this machine."""
        return [cls.name]

    @abstractmethod
    def splits(self) -> dict[str, Source]:
        """Raw rows by split: `train` always, `validation` and `test` where the source has them.

        Several test sets are `test.<name>` each, instead of `test`.
        Nothing is read until a split's callable is called, so a test split that nobody asks for stays unread.
        A row holds `prompt`, `response` (what to train on), `answer` (what is scored against), all str, and
        `metadata` (a JSON string or a JSON-able mapping; whatever `score` needs besides).
        """

    def score(self, completions: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[float]:
        """One score in [0, 1] per completion: what a task does that has no `default_metrics`.

        Args:
            completions: decoded text after the prompt, without special tokens, `(n,)`.
            rows: the rows they answer, `(n,)`, with at least `response`, `answer` and `metadata` (JSON
                string).
        """
        raise NotImplementedError(f"{type(self).__name__} has neither default_metrics nor a score of its own")

    def prepared(self, metric: Metric) -> Metric:
        """A metric of this run, given what it takes from the task, such as how a program is made of an answer."""
        return metric

    @property
    def sampling(self) -> Sampling:
        """How answers are generated where a spec says nothing."""
        return Sampling(self.max_new_tokens, self.temperature, stop=self.stop)

    def aim(
        self,
        metrics: Sequence[Entry] | None = None,
        objective: str | Sequence[str] | None = None,
        sampling: Sampling | None = None,
    ) -> Scoring:
        """Take these metrics, this objective and this sampling; see `scoring.make_scoring`."""
        self.own = getattr(self, "own", (self.metric, self.mode, self.worst))
        self.scoring = make_scoring(self, metrics=metrics, objective=objective, sampling=sampling)
        self.metric, self.mode, self.worst = self.scoring.metric, self.scoring.mode, self.scoring.worst
        return self.scoring

    scoring: Scoring
    own: tuple[str, Any, float]


def check_lengths(completions: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Raise ValueError unless there is exactly one row per completion."""
    if len(completions) != len(rows):
        raise ValueError(f"completions: {len(completions)} for {len(rows)} rows; give one completion per row")


def check_positive(field: str, value: int | None) -> None:
    """Raise UserError unless `value` is None or a whole number of at least 1."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise UserError.at(f"task.{field}", f"{value!r} is not a positive whole number; give 1 or more", value=value)
