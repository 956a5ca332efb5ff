"""What a report knows of a run: its files, read once, whatever state it is in."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylora.errors import UserError
from raylora.progress import ORDER
from raylora.run.folder import CURVATURE, DATA, RUN_MARK, read_run
from raylora.run.state import State, run_state
from raylora.run.summary import read_summary
from raylora.run.trials import trial_status, with_both_alphas
from trainables.journal import Journal

if TYPE_CHECKING:
    from raylora.spec import Spec

# Beside the metric: of every trial's figures, what ends in _se and is an error of no metric.
_NO_METRIC = frozenset({"validation_loss"})


@dataclass(frozen=True)
class Stretch:
    """A time during which a trial was on a host: seconds since 1970."""

    host: str
    begin: float
    end: float


@dataclass(frozen=True)
class Point:
    """A report of a trial: when, after how many samples, with which figures."""

    time: float
    samples: float | None
    figures: Mapping[str, Any]


@dataclass
class Trial:
    """A trial as the journal tells it.

    Attributes:
        number: in order of start, from 1. status: as in `trials.csv`.
        points: its reports, the last one included. resumed: times at which it went on, with the step.
    """

    number: int
    key: str
    config: Mapping[str, Any]
    status: str = "unfinished"
    message: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)
    stretches: list[Stretch] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    resumed: list[tuple[float, int]] = field(default_factory=list)

    @property
    def begin(self) -> float:
        return self.stretches[0].begin

    @property
    def end(self) -> float:
        return self.stretches[-1].end

    @property
    def seconds(self) -> float:
        """Training, scoring and attaching: figures of a report are of the time since the one before it."""
        spent = [number(point.figures.get(name)) for point in self.points for name in ("train_s", "eval_s")]
        return sum(one for one in [*spent, number(self.figures.get("attach_s"))] if one is not None)

    def total(self, name: str) -> float:
        """A figure that counts from report to report, over all of them."""
        return sum(number(point.figures.get(name)) or 0.0 for point in self.points)

    @property
    def over(self) -> bool:
        return self.status != "unfinished"


@dataclass
class RunFacts:
    """A run as its folder tells it.

    Attributes:
        metric, mode: of the task; "" and "max" where neither files nor the task, which may be elsewhere, tell.
        summary: None of an unfinished run. rows: the journal's lines.
        data: counts and notes of the rows, as the run wrote them. plan, curvature: where the run has them.
    """

    name: str
    folder: Path
    spec: Spec
    state: State
    metric: str
    mode: str
    release: str
    summary: Mapping[str, Any] | None
    trials: list[Trial]
    rows: Sequence[Mapping[str, Any]]
    data: Mapping[str, Any]
    plan: Mapping[str, object]
    curvature: Mapping[str, Any]

    @property
    def sign(self) -> float:
        return 1.0 if self.mode == "max" else -1.0

    def value(self, trial: Trial) -> float | None:
        """The metric of a trial that has one and did not diverge."""
        return None if trial.status in ("diverged", "failed") else number(trial.figures.get(self.metric))

    def knobs(self) -> list[str]:
        """Names of what varies in the space, as trials have them."""
        names = dict.fromkeys(name for trial in self.trials for name in trial.config)
        if "alpha_ratio" in names and "alpha" in names:
            # Both are always there; the space has one of them.
            names.pop("alpha" if self.spec.space.alpha is None else "alpha_ratio")
        known = {name: place for place, name in enumerate(ORDER)}
        return sorted(names, key=lambda name: known.get(name, len(known)))


def number(value: object) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(float(value)) < float("inf") else None


def read_facts(run_dir: str | Path) -> RunFacts:
    """Everything of one run. Reads its folder alone, at any moment.

    Raises:
        UserError: It is no run folder.
    """
    folder, spec = read_run(run_dir)
    rows = Journal(folder).rows()
    trials = _trials(folder, rows)
    summary = read_summary(folder)
    metric, mode = _aim(folder, summary, trials)
    return RunFacts(
        name=folder.name,
        folder=folder,
        spec=spec,
        state=run_state(folder),
        metric=metric,
        mode=mode,
        release=(folder / RUN_MARK).read_text(errors="replace").strip(),
        summary=summary,
        trials=trials,
        rows=rows,
        data=_json(folder / DATA),
        plan=_json(folder / "plan.json"),
        curvature=_json(folder / CURVATURE),
    )


def _json(path: Path) -> Mapping[str, object]:
    """What a file of the run holds; nothing where it is not there, torn, or no mapping."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _trials(folder: Path, rows: Sequence[Mapping[str, Any]]) -> list[Trial]:
    concluded = Journal(folder).concluded()
    found: dict[str, Trial] = {}
    for row in rows:
        key, event, when = row["key"], row["event"], float(row.get("time") or 0)
        if event == "start" and key not in found:
            found[key] = Trial(len(found) + 1, key, with_both_alphas(row.get("config") or {}))
        trial = found.get(key)
        if trial is None or event == "final" or (trial.over and event != "start"):
            continue
        if event in ("start", "continue"):
            if event == "continue":
                trial.resumed.append((when, int(row.get("from_step") or 0)))
            trial.stretches.append(Stretch(str(row.get("host") or "host"), when, when))
            continue
        if trial.stretches:
            last = trial.stretches[-1]
            trial.stretches[-1] = Stretch(last.host, last.begin, max(when, last.end))
        if event in ("report", "finish") and number(row.get("samples")) is not None:
            trial.points.append(Point(when, number(row.get("samples")), row))
        if event in ("finish", "error"):
            end = concluded[key]
            trial.status, trial.message, trial.figures = trial_status(end), end.message or "", end.metrics
    return list(found.values())


def _aim(folder: Path, summary: Mapping[str, object] | None, trials: Sequence[Trial]) -> tuple[str, str]:
    """The metric and its direction: of the summary, else of the trials' figures, else of the task itself."""
    if summary is not None:
        return str(summary["metric"]), str(summary["mode"])
    figures = dict.fromkeys(name for trial in trials for name in trial.figures)
    told = [name for name in figures if f"{name}_se" in figures and name not in _NO_METRIC]
    if len(told) == 1:
        from raylora.metrics import METRICS

        with contextlib.suppress(Exception):  # a plug-in of its own that is not here
            return told[0], METRICS[told[0]].mode if told[0] in METRICS else "max"
    from raylora.run.state import run_aim

    with contextlib.suppress(UserError):
        metric, mode = run_aim(folder)
        if metric is not None and mode is not None:
            return metric, mode
    return (told[0] if told else ""), "max"


def clock(seconds: float) -> str:
    """A moment as people write it."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def span(seconds: float) -> str:
    """A duration in two units at most."""
    seconds = max(0.0, seconds)
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    if seconds < 86400:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
    return f"{seconds // 86400:.0f} d {seconds % 86400 // 3600:.0f} h"
