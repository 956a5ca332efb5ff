"""The answer of a run in words and small tables."""

from __future__ import annotations

import hashlib
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylora import __version__
from raylora.errors import UserError
from raylora.progress import describe
from raylora.reports.page.facts import RunFacts, clock, number, span
from raylora.run.better import Difference
from raylora.run.state import STATUSES
from raylora.run.trials import best_trial, with_both_alphas

if TYPE_CHECKING:
    import pandas as pd

NAMES = {"base": "base model, untouched", "default": "default recipe", "best": "found recipe"}
# Files beyond this size are named without a hash: a report is written in seconds.
_HASHED = 200 * 1024**2

Table = dict[str, Any]


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], caption: str = "") -> Table:
    """Columns and rows of text."""
    return {
        "columns": list(columns),
        "rows": [["" if v is None else str(v) for v in row] for row in rows],
        "caption": caption,
    }


def figure(value: object, error: object = None) -> str:
    """A number with its standard error."""
    known = number(value)
    if known is None:
        return ""
    spread = number(error)
    return f"{known:.4f}" + (f" ± {spread:.4f}" if spread is not None else "")


def recipe(config: Mapping[str, object]) -> str:
    """A configuration in one line, alpha spelled out."""
    return describe({k: v for k, v in config.items() if k != "alpha_ratio" or "alpha" not in config})


def headline(run: RunFacts) -> str:
    """The answer in a sentence."""
    summary = run.summary
    ended = sum(trial.over for trial in run.trials)
    if summary is None:
        best = best_so_far(run)
        so_far = (
            "no trial has a result yet"
            if best is None
            else f"the best so far is {best[0]} with {run.metric} {best[1]:.4f}"
        )
        return f"{ended} of {run.spec.search.trials} trials have ended; {so_far} on validation."
    found = summary["best"]
    if number(found.get("test")) is None:
        score = f"{run.metric} {figure(found.get('validation'))} on validation"
        return f"Found: {recipe(found['config'])}, {score}, after {ended} trials."
    told = {"default": "the default recipe", "base": "the untouched base"}
    others = " and ".join(f"{figure(summary[k].get('test'))} for {what}" for k, what in told.items() if k in summary)
    score = f"{run.metric} {figure(found['test'], found.get('test_se'))} on test"
    return f"Found: {recipe(found['config'])}. It reaches {score}" + (f", against {others}." if others else ".")


def best_so_far(run: RunFacts) -> tuple[str, float] | None:
    """The best trial's recipe and value; trials stopped early count where nothing ran to its end."""
    try:
        best = best_trial(run.folder, run.metric, run.mode)
    except UserError:
        return None
    value = best.metrics[run.metric]
    return None if value is None else (recipe(with_both_alphas(best.config)), value)


def answer_table(run: RunFacts) -> Table | None:
    """Base, default and found recipe on validation and test."""
    if run.summary is None:
        return None
    rows = []
    for label, name in NAMES.items():
        entry = run.summary.get(label)
        if entry:
            scores = [figure(entry.get(split), entry.get(f"{split}_se")) for split in ("test", "validation")]
            rows.append([name, *scores, recipe(entry.get("config", {}))])
    return table(["model", f"{run.metric} on test", f"{run.metric} on validation", "recipe"], rows)


def comparison(runs: Sequence[RunFacts], answers: Sequence[Mapping[str, pd.DataFrame]]) -> Table | None:
    """Several runs' scores on test, a row each, and whether they may be compared.

    Args:
        answers: of each run, its test sets' rows, see `answers.read_answers`.
    """
    if len(runs) < 2:
        return None
    rows = []
    for run in runs:
        summary = run.summary or {}
        scores = [figure(summary.get(k, {}).get("test"), summary.get(k, {}).get("test_se")) for k in reversed(NAMES)]
        best = best_so_far(run)
        found = recipe(summary["best"]["config"]) if summary else f"so far {best[0]}" if best else ""
        rows.append([run.name, run.metric, *scores, sum(trial.over for trial in run.trials), _duration(run), found])
    columns = ["run", "metric", *(f"{NAMES[k]}, test" for k in reversed(NAMES)), "trials", "time", "recipe"]
    return table(columns, rows, _comparable(runs, answers))


def _comparable(runs: Sequence[RunFacts], answers: Sequence[Mapping[str, pd.DataFrame]]) -> str:
    if len({run.metric for run in runs}) > 1:
        return "Each run has a metric of its own: their figures cannot be compared."
    hashes = [test_hash(found) for found in answers]
    if not all(hashes):
        return "Not all runs have been tested."
    if any(one != hashes[0] for one in hashes):
        return "The runs were not tested on the same rows, which tells their figures apart as well as the recipes do."
    return "All runs were tested on the same rows."


def more_metrics(run: RunFacts) -> Table | None:
    """Every metric on every split, where the summary has more than the headline."""
    summary = run.summary or {}
    shown = [label for label in NAMES if isinstance(summary.get(label, {}).get("metrics"), dict)]
    keys = dict.fromkeys((s, m) for label in shown for s, of in summary[label]["metrics"].items() for m in of)
    if not keys:
        return None
    rows = []
    for split, metric in keys:
        pairs = [summary[label]["metrics"].get(split, {}).get(metric, [None, None]) for label in shown]
        rows.append([split, metric, *(figure(*pair[:2]) for pair in pairs)])
    return table(["rows", "metric", *(NAMES[label] for label in shown)], rows)


def sureness(run: RunFacts, found: Sequence[Difference]) -> list[str]:
    """How sure it is that the found recipe is better, a line against each."""
    lines = []
    for one in found:
        told = f"Against the {NAMES[one.against]}: {one.value:+.4f}"
        if one.error is None or one.chance is None:
            lines.append(f"{told}; its error is not known, so nothing can be said of how sure it is.")
            continue
        how = "paired over the rows of test" if one.paired else "from the two standard errors"
        lines.append(f"{told} ± {one.error:.4f} ({how}); better with a probability of {_chance(one.chance)}.")
    lead = number(((run.summary or {}).get("better") or {}).get("runner_up"))
    if lead is not None:
        lines.append(f"Against the second-best trial, on validation: better with a probability of {_chance(lead)}.")
    return lines


def _chance(value: float) -> str:
    return "over 99.9 %" if value > 0.999 else "below 0.1 %" if value < 0.001 else f"{100 * value:.1f} %"


def warnings(run: RunFacts, found: Sequence[Difference]) -> list[str]:
    """What a reader should know before believing the answer."""
    lines = []
    for one in found:
        if one.error is not None and abs(one.value) < 2 * one.error:
            lines.append(
                f"The difference to the {NAMES[one.against]} ({one.value:+.4f}) is smaller than twice its standard "
                f"error ({one.error:.4f}): it may be chance. More rows of test or more seeds (final.seeds) would tell."
            )
        elif one.value < 0:
            lines.append(f"The found recipe is worse on test than the {NAMES[one.against]}.")
    if run.summary is not None and not found:
        lines.append("There was no final stage with a test set, so the found recipe was compared with nothing.")
    if run.state == "interrupted":
        lines.append(f"The run was interrupted: `raylora resume {run.folder}` goes on.")
    if run.state == "running":
        lines.append("The run goes on: all of this may change.")
    lines += [str(note) for note in run.data.get("notes", [])]
    for name, count in run.data.get("counts", {}).items():
        if isinstance(count, int) and count:
            if name == "test_prompts_in_train":
                lines.append(f"{count:,} rows of test have a prompt that is trained on as well: a leak.")
            elif "_dropped_" in name or "_cut_" in name:
                lines.append(f"{count:,} rows: {name.replace('_', ' ')}.")
    counts = Counter(trial.status for trial in run.trials)
    for status, remedy in (
        ("diverged", "lower learning rates avoid that"),
        ("failed", "the messages are in the table of trials"),
    ):
        if counts[status]:
            lines.append(f"{counts[status]} of {len(run.trials)} trials {status}; {remedy}.")
    lines += _edges(run)
    return lines


def _edges(run: RunFacts) -> list[str]:
    """Where the best value of a numeric knob lies at an end of those searched."""
    config = (run.summary or {}).get("best", {}).get("config", {})
    space: dict[str, Sequence[float]] = {"learning_rate": run.spec.space.learning_rate, "rank": run.spec.space.rank}
    lines = []
    for name, values in space.items():
        if len(values) > 2 and config.get(name) in (min(values), max(values)):
            lines.append(
                f"The found {name} ({config[name]:g}) is at an end of the values searched: a better one may lie beyond."
            )
    return lines


def cost(run: RunFacts) -> Table:
    """What the run took."""
    done = [trial for trial in run.trials if trial.figures]
    trained = sum(trial.total("train_s") for trial in run.trials)
    scored = sum(trial.total("eval_s") for trial in run.trials)
    finals = [row.get("result") or {} for row in run.rows if row["event"] == "final"]
    counts = Counter(trial.status for trial in run.trials)
    peak = [number(f.get("peak_memory_gb")) for f in [*(t.figures for t in done), *finals]]
    rows = [
        ["from the first to the last event", _duration(run)],
        ["trials", ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])],
        ["training of trials", span(trained)],
        ["scoring of trials", span(scored)],
        ["training of the final stage", span(sum(number(f.get("train_s")) or 0 for f in finals)) if finals else ""],
        ["samples trained in trials", f"{sum(number(t.figures.get('samples')) or 0 for t in done):,.0f}"],
        ["tokens trained in trials", f"{sum(number(t.figures.get('tokens')) or 0 for t in done):,.0f}"],
        ["most memory", f"{max(p for p in peak if p is not None):.2f} GB" if any(peak) else ""],
        ["trials at a time", str(run.spec.resources.hosts)],
    ]
    for name, value in ((run.summary or {}).get("search") or {}).items():
        rows.append([f"searcher: {name.replace('_', ' ')}", f"{value:.3g}"])
    return table([], [row for row in rows if row[1]])


def _duration(run: RunFacts) -> str:
    times = [float(row["time"]) for row in run.rows if row.get("time")]
    return span(max(times) - min(times)) if times else ""


def about(run: RunFacts) -> Table:
    """Versions, seeds, hashes and where the data came from."""
    spec = run.spec
    times = [float(row["time"]) for row in run.rows if row.get("time")]
    rows = [
        ["run made with", run.release],
        ["report made with", f"raylora {__version__}"],
        ["model", spec.model],
        ["task", spec.task.name],
        ["searcher", spec.search.searcher],
        ["seed", str(spec.seed)],
        ["seeds of the final stage", str(spec.final.seeds)],
        ["begun", clock(min(times)) if times else ""],
        ["last event", clock(max(times)) if times else ""],
        ["sha256 of spec.yaml", _sha256(run.folder / "spec.yaml")],
        ["sha256 of trials.jsonl", _sha256(run.folder / "trials.jsonl")],
    ]
    rows += [[f"rows: {name.replace('_', ' ')}", f"{count:,}"] for name, count in run.data.get("counts", {}).items()]
    rows += [[f"sha256 of {path}", _sha256(path)] for path in _data_files(run)]
    rows += [[f"plan: {name}", value] for name, value in _flat(run.plan)]
    return table([], [row for row in rows if row[1]])


def _flat(values: Mapping[str, object], before: str = "") -> list[tuple[str, str]]:
    """Names and values of nested mappings; lists of mappings are left out."""
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{before}{name}.")
        elif isinstance(value, float):
            found.append((before + name, f"{value:.6g}"))
        elif isinstance(value, str | int):
            found.append((before + name, str(value)))
    return found


def test_hash(answers: Mapping[str, pd.DataFrame]) -> list[list[str]]:
    """SHA-256 of the rows of each test set, prompts and right answers in order."""
    rows = []
    for split, found in answers.items():
        digest = hashlib.sha256()
        for prompt, right in zip(found["prompt"], found["answer"], strict=True):
            digest.update(f"{prompt}\0{right}\0".encode())
        rows.append([f"sha256 of the rows of {split}", digest.hexdigest()])
    return rows


def _data_files(run: RunFacts) -> list[Path]:
    named = [run.spec.task.path, run.spec.task.train, run.spec.task.validation, run.spec.task.test]
    texts = [source for source in named if isinstance(source, str)]
    paths = [Path(text.partition("[")[0]) for text in texts]
    return [path for path in dict.fromkeys(paths) if path.is_file()]


def _sha256(path: Path) -> str:
    try:
        if path.stat().st_size > _HASHED:
            return "not hashed: over 200 MB"
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def commands(run: RunFacts) -> list[str]:
    """The run again, and what can be done with it."""
    folder = shlex.quote(str(run.folder))
    lines = ["raylora tune spec.yaml   # the same search: the spec is below"]
    if run.summary is not None:
        lines += [
            f"raylora tune {shlex.quote(str(run.folder / 'best.yaml'))}   # the found recipe alone",
            f"raylora export {folder} --to DIR   # its adapter",
        ]
    else:
        lines.append(f"raylora resume {folder}   # goes on with this run")
    return [*lines, f"raylora report {folder} --to report.html   # this page"]
