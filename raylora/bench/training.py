"""Searchers on real training: what is the recipe worth that each has found, for the samples that it has trained on?

Every searcher gets the same task, space, rows and budget of a trial, and proposes one trial after the other, each told
of all before it. A seed draws other rows, other weights and another search; searchers of one seed share the first two.
Each trial is scored on validation, which the searcher is told of, and on test, which it is not: the recipe found after
t trials is the one that is best on validation, and what it is worth is its figure on test.

A search is one JSON file, written after each trial. Trials that are there are not trained again, be they of the same
search, which goes on, or of another searcher with the same seed: a configuration and a seed give one result.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylora.bench.records import check_about, read_record
from raylora.bench.searchers import Entry
from raylora.errors import UserError
from raylora.progress import Progress
from raylora.spec.paths import writable_folder
from trainables.files import replace_text

if TYPE_CHECKING:
    from raylora.data.build import Prepared
    from raylora.spec import Spec
    from raylora.tasks import Task
    from searchers.space import Space
    from trainables.protocols import Row, TrainSettings


def bench_training(
    specs: Mapping[str, Spec],
    folder: str | Path,
    *,
    searchers: Sequence[Entry],
    seeds: int = 5,
    trials: int = 10,
    quiet: bool = False,
) -> list[Path]:
    """Runs what is missing in `folder`, and returns the files of all searches.

    Args:
        specs: name of a task -> model, task, training and space; its searcher, trials and final stage are not read. The
            first seed is `spec.seed`.
        folder: gets `TASK_SEARCHER_seed-S.json` per search.
        searchers: without `stock:` ones.
        trials: per search.

    Raises:
        UserError: a file there that is of something else, a searcher that the space refuses, or a task that cannot be
            read.
    """
    place = Path(folder).expanduser()
    writable_folder(place, f"--to {folder}")
    progress = Progress(quiet=quiet)
    files = []
    # Seed by seed: an interrupted measurement has whole seeds.
    for number in range(seeds):
        for name, spec in specs.items():
            bench = _Task(name, spec.model_copy(update={"seed": spec.seed + number}), place, progress)
            files += [bench.search(entry, trials) for entry in searchers]
    return files


def read_search(file: Path) -> dict[str, Any]:
    """One search's record. Raises UserError where the file is none."""
    fields = {"searcher": str, "about": dict, "trials": list}
    return read_record(file, "search of `raylora bench training`", fields)


@dataclass(frozen=True)
class _Loaded:
    """What the searches of a task and seed share."""

    model: Any
    tokenizer: Any
    task: Task
    data: Prepared
    split: str  # of its test rows
    test: Sequence[Row]
    settings: TrainSettings
    space: Space


class _Task:
    """The searches of one task and seed."""

    def __init__(self, name: str, spec: Spec, folder: Path, progress: Progress) -> None:
        self.name, self.spec, self.folder, self.progress = name, spec, folder, progress
        self._loaded: _Loaded | None = None

    def search(self, entry: Entry, trials: int) -> Path:
        label = entry.label.replace(":", "_").replace("=", "-").replace(",", "_")
        file = self.folder / f"{self.name}_{label}_seed-{self.spec.seed}.json"
        record = self._begun(file, entry)
        if len(record["trials"]) >= trials:
            return file
        known, searcher = self._known(), self._searcher(entry)
        for number in range(trials):
            started = time.process_time()
            config = searcher.suggest(f"t{number}")
            if not isinstance(config, dict):
                break  # the space has no more
            suggest_s = time.process_time() - started
            if number < len(record["trials"]):
                trial = record["trials"][number]
                if trial["config"] != config:
                    raise UserError.at(
                        f"--to {self.folder}",
                        f"{file.name} has another trial {number + 1} than {entry.label} proposes today; remove it",
                        value=str(self.folder),
                    )
            else:
                found = known.get(_key(config)) or self._train(config)
                trial = {"config": config, **found, "suggest_s": round(suggest_s, 3)}
                record["trials"].append(trial)
                replace_text(file, json.dumps(record, indent=1) + "\n")
                self.progress.say(f"{file.stem} {number + 1}/{trials}: {_shown(trial, record['metric'])}")
            searcher.on_trial_complete(f"t{number}", _told(trial))
        return file

    def _begun(self, file: Path, entry: Entry) -> dict[str, Any]:
        """The search's record as far as it goes."""
        about = self._about()
        if not file.is_file():
            task = self._task()
            shared = {"task": self.name, "searcher": entry.label, "seed": self.spec.seed, "about": about}
            return {**shared, "metric": task.metric, "mode": task.mode, "trials": []}
        record = read_search(file)
        check_about(file, record["about"], about)
        return record

    def _about(self) -> dict[str, Any]:
        """What is the same for all searches of a task."""
        spec = self.spec
        told = {name: getattr(spec, name).model_dump(mode="json", exclude_defaults=True) for name in ("train", "space")}
        task = spec.task.model_dump(mode="json", exclude={"path"}, exclude_defaults=True)
        return {"model": spec.model, "dtype": spec.dtype, "task": task, **told, "objective": spec.search.objective}

    def _known(self) -> dict[str, dict[str, Any]]:
        """What is known of configurations from the other searches of this task and seed."""
        known = {}
        for file in sorted(self.folder.glob(f"{self.name}_*_seed-{self.spec.seed}.json")):
            record = read_search(file)
            if record["about"] == self._about():
                for trial in record["trials"]:
                    known[_key(trial["config"])] = {k: v for k, v in trial.items() if k not in ("config", "suggest_s")}
        return known

    def _task(self) -> Task:
        from raylora.build import build_task

        return self._loaded.task if self._loaded else build_task(self.spec)

    def _searcher(self, entry: Entry) -> Any:
        from raylora.run.searcher import build_searcher
        from searchers import SEARCHERS

        loaded = self._load()
        # In this process: nothing is trained while a searcher thinks, and Ray is not running.
        local = {"local": True} if "local" in SEARCHERS[entry.name].options() else {}
        search = self.spec.search.model_copy(update={"searcher": entry.name, "options": {**local, **entry.options}})
        spec = self.spec.model_copy(update={"search": search})
        try:
            return build_searcher(spec, loaded.task, loaded.settings.samples, quiet=True, space=loaded.space)
        except ValueError as error:
            raise UserError.around(
                f"--searchers: {entry.label}: ", error, field="--searchers", value=entry.label
            ) from None

    def _load(self) -> _Loaded:
        """Model, rows and space; read once, and by Ray, whose processes the training needs no more."""
        if self._loaded is None:
            from raylora import models
            from raylora.build import build_data, how_loaded, train_settings
            from raylora.cluster import connected
            from raylora.run.fit import fit_space
            from trainables.session import load_model

            spec, task = self.spec, self._task()
            source = models.resolve(spec.model)
            with connected():
                data = build_data(spec, task, str(source))
                split, read = next(iter(data.tests.items()))
                test, _ = read()
                settings = train_settings(spec, len(data.proxy))
                space = fit_space(spec, settings, str(source), (), task.head).space
            self._loaded = _Loaded(*load_model(source, **how_loaded(spec)), task, data, split, test, settings, space)
        return self._loaded

    def _train(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """What comes of a configuration: figures on validation and test, samples, seconds of the processor."""
        from trainables.evaluation import evaluate_model, pad_token
        from trainables.modes import evaluating
        from trainables.run import TrialRun

        loaded, started = self._load(), time.process_time()
        scoring, data = loaded.task.scoring, loaded.data
        run = TrialRun(loaded.model, config, data.proxy, loaded.settings, pad_id=pad_token(loaded.tokenizer))
        try:
            run.advance(loaded.settings.samples)
            trained = time.process_time()
            splits = {"validation": ("validation", data.validation), "test": (loaded.split, loaded.test)}
            figures = {}
            for kind, (split, rows) in splits.items():
                scores: Mapping[str, Any] = scoring.worst_figures(split)
                if not run.diverged:
                    with evaluating(run.adapted):
                        scores = evaluate_model(
                            run.adapted, rows, scoring, loaded.tokenizer, split=split, device=run.device
                        )
                figures[kind] = _finite(scores)
            seconds = {"train_s": round(trained - started, 2), "score_s": round(time.process_time() - trained, 2)}
            return {"samples": run.samples, "diverged": run.diverged, **figures, **seconds}
        finally:
            run.close()


def _key(config: Mapping[str, Any]) -> str:
    return json.dumps(config, sort_keys=True)


def _finite(scores: Mapping[str, Any]) -> dict[str, float | None]:
    """Figures of quality, None for those that are not finite; how long they took is told apart."""
    return {
        name: round(float(value), 6) if value is not None and math.isfinite(value) else None
        for name, value in scores.items()
        if not name.startswith("eval_")
    }


def _told(trial: Mapping[str, Any]) -> dict[str, Any]:
    """What the searcher hears of a trial, as Tune would tell it."""
    scores = {name: math.nan if value is None else value for name, value in trial["validation"].items()}
    return {**scores, "samples": trial["samples"], "diverged": trial["diverged"]}


def _shown(trial: Mapping[str, Any], metric: str) -> str:
    value = trial["validation"].get(metric)
    told = "not finite" if value is None else f"{value:.4f}"
    return f"{metric} {told}, {trial['train_s'] + trial['score_s']:.0f} s"
