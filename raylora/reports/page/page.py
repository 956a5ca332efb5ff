"""From runs' folders to the page: what is shown, and the file."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import time
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from raylora import __version__
from raylora.errors import UserError
from raylora.reports.page import answers, belief, charts, datasets, knob_charts, space_map, words
from raylora.reports.page import tables as short
from raylora.reports.page.facts import RunFacts, clock, number, read_facts
from raylora.reports.page.importance import METHODS, importances
from raylora.run.folder import read_run
from raylora.run.state import STATUSES
from raylora.run.stored import fetch_results, is_stored
from raylora.run.trials import with_both_alphas
from trainables.files import replace_text
from trainables.store import told

PAGE = "report.html"
_SCRIPTS = ("vega.min.js", "vega-lite.min.js", "vega-embed.min.js", "page.js")
_NOTICES = ("vega.LICENSE", "vega-lite.LICENSE", "vega-embed.LICENSE")


def write_page(runs: Sequence[str | Path], to: str | Path, *, rows: bool = True) -> Path:
    """Writes the page of these runs; a run may be finished, interrupted or going on.

    Args:
        rows: whether rows of test, which are people's data, are shown.

    Raises:
        UserError: one is no run, or nothing can be written there.
    """
    for run in runs:
        if is_stored(told(run)):
            fetch_results(read_run(run)[0])
    text = render(runs, rows=rows)
    path = Path(to).expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, text)
    except OSError as error:
        raise UserError(
            f"--to {to}: {error.strerror or error}; give a file that can be written", field="--to", value=str(to)
        ) from None
    return path


def render(runs: Sequence[str | Path], *, rows: bool = True, live: str = "") -> str:
    """The page as text.

    Args:
        live: version of the page, where it asks who serves it for a newer one.
    """
    facts = _apart([read_facts(run) for run in runs])
    knobs = datasets.find_knobs(facts)
    tables = _tables(facts, knobs)
    found = {run.name: answers.read_answers(run) for run in facts}
    figures = _figures(facts, knobs, tables)
    drawn = {figure["id"]: figure["views"] for section in figures.values() for figure in section}
    template = _environment().get_template("page.html")
    return template.render(
        title=_title(facts),
        runs=[_run_part(run, found[run.name], rows) for run in facts],
        several=len(facts) > 1,
        comparison=words.comparison(facts, list(found.values())),
        figures=figures,
        knob_table=short.knob_table(facts, tables["trials"], knobs),
        trials=short.trial_table(facts, tables["trials"], knobs),
        variants=sorted({row["variant"] for row in tables["trials"]}),
        statuses=[s for s in STATUSES if any(row["status"] == s for row in tables["trials"])],
        data=_script_safe({name: rows for name, rows in tables.items() if rows}),
        charts=_script_safe(drawn),
        style=_asset("page.css"),
        scripts=[_inlined(name) for name in _SCRIPTS],
        notices="\n\n".join(f"{name}\n\n{_asset(name)}" for name in _NOTICES),
        live=live,
        release=__version__,
        written=clock(time.time()),
        rows_left_out=not rows,
    )


def _title(facts: Sequence[RunFacts]) -> str:
    return " and ".join(run.name for run in facts) if len(facts) < 4 else f"{len(facts)} runs"


def _apart(facts: list[RunFacts]) -> list[RunFacts]:
    """Runs of the same name get their folder's, or a number, so that a name means one of them."""
    seen: dict[str, int] = {}
    for run in facts:
        seen[run.name] = seen.get(run.name, 0) + 1
        if seen[run.name] > 1:
            run.name = f"{run.name} ({seen[run.name]})"
    return facts


@functools.cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("raylora.reports.page", "assets")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _asset(name: str) -> str:
    return (files("raylora.reports.page") / "assets" / name).read_text(encoding="utf-8")


def _inlined(name: str) -> str:
    """A script without the name of its map, which a browser's tools would ask for."""
    return re.sub(r"(?m)^//# sourceMappingURL=.*$", "", _asset(name)).replace("</script", "<\\/script")


def _script_safe(value: object) -> str:
    """JSON that neither ends the script around it nor begins a comment, whatever its texts are."""
    text = json.dumps(_rounded(value), separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e").replace("\u2028", "\\u2028")


def _rounded(value: object) -> object:
    """Six digits are more than a plot shows; a figure that is no finite number is none."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if abs(value) < float("inf") else None
    if isinstance(value, Mapping):
        return {str(k): _rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    return value.item() if hasattr(value, "item") else value


# ---- what is in the tables -----------------------------------------------------------------------------------------


def _tables(facts: Sequence[RunFacts], knobs: Sequence[datasets.Knob]) -> dict[str, list[datasets.Row]]:
    """The named tables of the charts."""
    trials = datasets.trial_rows(facts, knobs)
    curves, marks = datasets.curve_rows(facts)
    lines, labels = datasets.parallel_rows(facts, trials, knobs)
    found: dict[str, list[datasets.Row]] = {
        "trials": trials,
        "progress": datasets.progress_rows(facts),
        "defaults": [row for run in facts for row in _default_rows(run)],
        "curves": curves,
        "marks": marks,
        "timeline": datasets.timeline_rows(facts),
        "distribution": datasets.distribution_rows(trials),
        "parallel": lines,
        "parallel_labels": labels,
    }
    found["importance"] = [
        {**row, "run": run.name}
        for run in facts
        for row in importances([row for row in trials if row["run"] == run.name], knobs, run.mode, run.spec.seed)
    ]
    found["map"] = space_map.map_rows(facts, knobs)
    found["belief"] = [row for run in facts for row in belief.belief_rows(run)]
    found["strategies"] = [row for run in facts for row in _strategy_rows(run)]
    found["curvature"] = [
        {name: block.get(name) for name in ("variant", "matrix", "layer", "type", "ratio")} | {"run": run.name}
        for run in facts
        for block in run.curvature.get("blocks", [])
    ]
    return found


def _default_rows(run: RunFacts) -> list[datasets.Row]:
    """Where the default recipe stands on validation: its own trial where there is one, else its final training."""
    knobs = words.recipe(with_both_alphas(run.spec.recipe_to_knobs()))
    for trial in run.trials:
        value = run.value(trial)
        if words.recipe(trial.config) == knobs and value is not None:
            return [{"run": run.name, "value": value, "what": "default recipe"}]
    value = number((run.summary or {}).get("default", {}).get("validation"))
    return [] if value is None else [{"run": run.name, "value": value, "what": "default recipe, on the full data"}]


def _strategy_rows(run: RunFacts) -> list[datasets.Row]:
    from raylora.reports.strategies import read_strategies

    if not (run.folder / "strategies").is_dir():
        return []
    from trainables.lelora.history import summarise

    with contextlib.suppress(UserError, ValueError, KeyError):
        summary = summarise(read_strategies(run.folder))
        return [{**row, "run": run.name} for row in summary[["by", "group", "step", "r", "place"]].to_dict("records")]
    return []


# ---- what is shown -------------------------------------------------------------------------------------------------


def _run_part(run: RunFacts, found: Mapping[str, object], rows: bool) -> dict[str, Any]:
    differences = answers.differences(run, found.get("test"))
    about = words.about(run)
    about["rows"] += words.test_hash(found)
    return {
        "name": run.name,
        "state": run.state,
        "headline": words.headline(run),
        "answer": words.answer_table(run),
        "metrics": words.more_metrics(run),
        "sure": words.sureness(run, differences),
        "warnings": words.warnings(run, differences),
        "cost": words.cost(run),
        "about": about,
        "commands": words.commands(run),
        "spec": (run.folder / "spec.yaml").read_text(errors="replace"),
        "answers": {split: answers.differing(table) for split, table in found.items()} if rows else {},
        "answered": bool(found),
    }


def _figures(
    facts: Sequence[RunFacts], knobs: Sequence[datasets.Knob], tables: Mapping[str, list[datasets.Row]]
) -> dict[str, list[dict[str, Any]]]:
    """Section -> its figures, each with its charts, its words and its table; those without data are left out."""
    metrics = list(dict.fromkeys(run.metric for run in facts if run.metric))
    metric = metrics[0] if len(metrics) == 1 else "each run's own metric" if metrics else "metric"
    mode, several = facts[0].mode, len(facts) > 1
    trials = tables["trials"]
    scored = [row for row in trials if row["value"] is not None]
    axes = list(dict.fromkeys(row["axis"] for row in tables["parallel"]))
    sections = {
        "progress": [
            ("best", "Best so far", charts.progress(metric, mode, several, tables["defaults"]) if trials else {})
        ],
        "rates": [("rates", "Rate against loss", charts.rates(metric, mode, several, trials))],
        "tradeoffs": [("tradeoffs", "Quality against cost", charts.tradeoffs(metric, mode, several, trials))],
        "curves": [("curves", "Learning curves", charts.curves(metric, tables["curves"], tables["marks"]))],
        "knobs": [
            ("slices", "One knob at a time", knob_charts.slices(metric, knobs) if scored else {}),
            ("pairs", "Two knobs at a time", knob_charts.pairs(metric, mode, knobs) if scored else {}),
            ("parallel", "All knobs at once", knob_charts.parallel(axes, metric, mode) if axes else {}),
            ("importance", "Importance of the knobs", knob_charts.importance(several) if tables["importance"] else {}),
            ("map", "Map of the space", space_map.space_map(metric, tables["map"])),
            ("ranks", "Ranks", knob_charts.ranks(knobs) if scored else {}),
            ("distribution", "Distribution of the values", knob_charts.distribution(metric) if scored else {}),
            ("timeline", "Hosts over time", charts.timeline(tables["timeline"]) if tables["timeline"] else {}),
        ],
        "belief": [("belief", "Predicted against observed", charts.belief(metric) if tables["belief"] else {})],
        "more": [
            ("strategies", "LeLoRA's strategies", charts.strategies() if tables["strategies"] else {}),
            ("curvature", "Curvature", charts.curvature() if tables["curvature"] else {}),
        ],
    }
    captions = _captions(facts)
    told = {
        "best": short.progress_table(tables["progress"]),
        "rates": short.rate_table(facts, trials),
        "tradeoffs": short.front_table(trials),
        "curves": short.curve_table(tables["curves"]),
        "importance": short.importance_table(tables["importance"]),
        "belief": short.belief_table(tables["belief"]),
    }
    return {
        section: [
            {"id": id_, "title": title, "views": views, "caption": captions[id_], "table": told.get(id_)}
            for id_, title, views in shown
            if views
        ]
        for section, shown in sections.items()
    }


def _captions(facts: Sequence[RunFacts]) -> dict[str, str]:
    means = "; ".join(f"{method}: {meaning}" for method, meaning in METHODS.items())
    surrogates = "; ".join(f"{run.name}: {told}" for run in facts if (told := belief.surrogate_of(run)))
    return {
        "best": "The best value on validation after each trial. Points: all trials with a value. Dashed: the default "
        "recipe.",
        "rates": "A point is a trial; a line joins a variant's best, or mean, at each rate. Bars: standard errors. "
        "Crosses at the top: trials that diverged, triangles: that failed. Values far off, if any, lie outside the "
        "frame: zoom out to see them.",
        "tradeoffs": "Line: the front of trials that no other beats in quality and cost at once.",
        "curves": "A line is a trial, a point a report; marks: where it was stopped, lost, paused or taken up again.",
        "slices": "Each trial over one knob, everything else as it happened to be.",
        "pairs": "Colour and figure: the best value of the trials in each cell.",
        "parallel": "A line is a trial; its colour is its value.",
        "importance": means + ".",
        "map": f"What is alike by the chosen measure lies near ({space_map.method()}); the line is the search's path.",
        "ranks": "Colour: where the trial stands among all of its run, 0 the best.",
        "distribution": "How large a share of trials came out at or below a value.",
        "timeline": "Bars: trials on hosts. Gaps are time without one.",
        "belief": f"Each finished trial predicted from all others ({surrogates}); bars are two standard deviations.",
        "strategies": "Which slices of each matrix were trained, over training.",
        "curvature": "Largest eigenvalue of the loss in each variant's parameters, relative to LoRA's.",
    }
