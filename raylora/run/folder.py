"""A run's folder: what marks it, how it is made and read, and what is set aside before it is taken up again."""

from __future__ import annotations

import glob
import json
import os
import shutil
import time
from pathlib import Path

import yaml

from raylora.errors import UserError
from raylora.run.stored import clear_stored, is_stored, new_stored, working_copy
from raylora.spec import Spec, from_dict
from raylora.spec.text import read_yaml
from trainables.journal import ERRORS, Journal, Knobs
from trainables.live import FOLDER as LIVE
from trainables.stops import FOLDER as STOPS
from trainables.store import MARK, told

# Made with a run's folder: resuming any other folder that happens to hold a spec.yaml would rearrange its files.
RUN_MARK = ".raylora"
CURVATURE = "curvature.json"
# What trackers go on with when a run is resumed, beside their `tracker-NAME.json`.
TRACKER_FOLDERS = ("tensorboard", "wandb")
# Of a run with a budget: what it will do, and what it has used.
PLAN = "plan.json"
# Counts and notes of the rows.
DATA = "data.json"
# The spec as the run began, beside the one that people may change.
BEGUN = "begun.yaml"
# The searcher's state, and what says that this is what was written.
STATE_FILE = "searcher.pkl"
STATE_MARK = "searcher.json"
# What is asked of a search that runs.
REQUESTS = "requests"


def new_run_folder(spec: Spec) -> Path:
    """Create the run's folder: `storage_path/name`; the default name is the task and the time."""
    name = spec.name or f"{spec.task.name.replace('/', '-')}-{time.strftime('%Y%m%d-%H%M%S')}"
    if is_stored(spec.storage()):
        return new_stored(f"{spec.storage().rstrip('/')}/{name}", name)
    folder = Path(spec.storage()) / name
    if not spec.name and folder.exists():
        folder = folder.with_name(f"{name}-{os.getpid()}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError.at(
            "name", f"{folder} is in use; choose another name, or `raylora resume {folder}`", value=str(folder)
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def settled(spec: Spec) -> Spec:
    """The spec with the local files and folders that it names as absolute paths: it means the same elsewhere."""
    task, search = spec.task, spec.search
    sources = {name: _settled_source(getattr(task, name)) for name in ("path", "train", "validation", "test")}
    sources["test_sets"] = {name: _settled_source(source) for name, source in task.test_sets.items()}
    told = {"llm": _settled_path(search.llm), "learn_from": [_settled_path(path) for path in search.learn_from]}
    if search.prompt is not None:
        told["prompt"] = _settled_path(search.prompt)
    return spec.model_copy(
        update={
            "model": _settled_path(spec.model),
            "task": task.model_copy(update=sources),
            "search": search.model_copy(update=told),
        }
    )


def _settled_path(name: str) -> str:
    path = Path(name).expanduser()
    wild = any(mark in name for mark in "*?[") and "://" not in name and bool(glob.glob(str(path), recursive=True))
    return str(path.absolute()) if wild or path.exists() else name


def _settled_source(source: object) -> object:
    if isinstance(source, list):
        return [_settled_source(one) for one in source]
    if isinstance(source, dict):
        return {**source, "path": _settled_path(source["path"])} if source.get("path") else source
    return _settled_path(source) if isinstance(source, str) else source


def read_run(run_dir: str | Path) -> tuple[Path, Spec]:
    """The folder of a run, `run_dir` or the working folder of one in a store, and the spec that it was started with.

    Raises:
        UserError: It is no run folder, or one of a later release whose files mean something else.
    """
    folder = working_copy(run_dir, RUN_MARK)
    if not (folder / "spec.yaml").is_file():
        raise UserError(
            f"RUN_DIR: {folder} holds no spec.yaml; give the folder of a run that `raylora tune` made",
            field="RUN_DIR",
            value=str(folder),
        )
    if not (folder / RUN_MARK).is_file():
        raise UserError(
            f"RUN_DIR: {folder} holds a spec.yaml but no run; `raylora tune {folder / 'spec.yaml'}` starts one",
            field="RUN_DIR",
            value=str(folder),
        )
    try:
        Journal(folder).check_version()
    except ValueError as error:
        raise UserError(f"RUN_DIR: {error}", field="RUN_DIR", value=str(folder)) from None
    return folder, _read_spec(folder / "spec.yaml")


def _read_spec(file: Path) -> Spec:
    """The spec of a run, also of one of an earlier release.

    Those have every default written out. That of the longest row was 1,024 tokens whatever the model has positions for,
    before specs had a version; now as many as it has. Prompts listed no labels before a spec said whether they do.
    """
    data = read_yaml(file)
    task = data.get("task")
    if isinstance(task, dict):
        if "version" not in data and task.get("max_length") == 1024:
            task = {**task, "max_length": None}
        if "prompt_template" not in (task.get("options") or {}):
            task = {"list_labels": False, **task}
        data = {**data, "task": task}
    return from_dict(data)


def planned_trials(folder: Path) -> int | None:
    """How many trials a run with a budget plans; None without a plan."""
    try:
        plan = json.loads((folder / PLAN).read_text())["plan"]
    except (OSError, ValueError, KeyError):
        return None
    return None if plan is None else int(plan["trials"])


# What makes trials comparable: changed, the results that there are would answer another question.
_FIXED = (
    "model", "dtype", "seed", "task", "space", "train.samples", "train.epochs", "train.reports", "train.weight_decay",
    "train.warmup_ratio", "train.schedule", "train.max_grad_norm", "train.match_parameters", "search.searcher",
    "search.options", "budget",
)  # fmt: skip


def check_same(folder: Path, spec: Spec) -> None:
    """Refuses a spec.yaml that was changed, since the run began, in what its trials have in common.

    Numbers of trials, limits, resources and the final stage may change. Nothing is known of runs from before the spec
    was kept twice.

    Raises:
        UserError: the field, its value now and before.
    """
    if not (folder / BEGUN).is_file():
        return
    now, before = spec.to_dict(), _read_spec(folder / BEGUN).to_dict()
    for field in _FIXED:
        name, value, old = _difference(field, _at(now, field), _at(before, field))
        if value != old:
            raise UserError(
                f"{name} = {value!r} in {folder / 'spec.yaml'}: the run began with {old!r}; put that back, or start a "
                f"new run with `raylora tune`",
                field=name,
                value=value,
                allowed=old,
            )


def _at(data: object, field: str) -> object:
    for name in field.split("."):
        data = data.get(name) if isinstance(data, dict) else None
    return data


def _difference(field: str, now: object, before: object) -> tuple[str, object, object]:
    """The first field below this one that differs, with its two values."""
    if isinstance(now, dict) and isinstance(before, dict):
        for name in dict.fromkeys([*before, *now]):
            if now.get(name) != before.get(name):
                return _difference(f"{field}.{name}", now.get(name), before.get(name))
    return field, now, before


def clear_workings(folder: Path) -> None:
    """Delete what only a search that goes on needs: checkpoints, live figures, requests, stops."""
    for name in ("checkpoints", LIVE, REQUESTS, STOPS):
        shutil.rmtree(folder / name, ignore_errors=True)
    clear_stored(folder)


def archive_attempt(folder: Path) -> None:
    """Move what the interrupted attempt left of Tune's own records to `attempts/N/`.

    The resumed experiment lists all trials anew, the finished ones answered from the journal, so Tune's
    analysis of the run's folder shows one whole experiment.
    """
    kept = {
        "spec.yaml",
        "trials.jsonl",
        "checkpoints",
        "strategies",
        "final",
        "attempts",
        "requests",
        "stops",
        *TRACKER_FOLDERS,
    }
    # Of a finished run that is given more trials: they are replaced when those are over.
    kept |= {"summary.json", "best.yaml", "adapter"}
    kept |= {path.name for path in folder.glob("tracker-*.json")}
    keep = {MARK, RUN_MARK, BEGUN, ERRORS, CURVATURE, PLAN, STATE_FILE, STATE_MARK} | kept
    left = [path for path in folder.iterdir() if path.name not in keep]
    if left:
        attempts = folder / "attempts"
        target = attempts / str(1 + sum(1 for _ in attempts.iterdir()) if attempts.exists() else 1)
        target.mkdir(parents=True)
        for path in left:
            shutil.move(str(path), target / path.name)


def write_best(run_dir: str | Path, spec: Spec, config: Knobs) -> Path:
    """`best.yaml`: a spec whose space holds the found recipe alone; `raylora tune` trains it again."""
    data = spec.to_dict()
    known = set(type(spec.space).model_fields)
    space: dict[str, object] = {"placement": data["space"]["placement"]}
    extra = {name: [value] for name, value in config.items() if name not in known}
    space |= {name: [value] for name, value in config.items() if name in known}
    data["space"] = {**space, "extra": extra}
    data["search"] = {"searcher": "random", "trials": 1, "max_failures": spec.search.max_failures}
    data["name"] = None
    path = Path(run_dir) / "best.yaml"
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110)
    path.write_text(
        "# raylora tune best.yaml\n# The found recipe: trains it on the proxy and the full data again.\n" + text
    )
    return path


def no_adapter(run: Path, spec: Spec) -> str:
    """Why a run has no adapter, and what makes one."""
    if spec.final.enabled:
        return f"{told(run)} has no adapter yet; finish the run with `raylora resume {told(run)}`"
    return (
        f"{run} has no adapter, as final.enabled is false; `raylora tune {run / 'best.yaml'} final.enabled=true` "
        "trains the recipe that was found"
    )
