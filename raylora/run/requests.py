"""What people ask of a search while it runs: a file in the run's folder for each request, an answer in its journal.

Asking is safe at any moment: files appear in one step, nothing waits for anybody. The process that runs the search
looks between two steps of its loop (`raylora.run.steering`), does what it can, books the answer and removes the file.
What comes while nobody runs the search lies there until the run is resumed.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

from raylora.errors import UserError
from raylora.run.folder import REQUESTS, read_run
from raylora.run.state import run_state
from raylora.run.stored import holder, machine
from raylora.run.trials import with_both_alphas
from raylora.spec import Spec, from_dict
from raylora.spec.text import choose, put
from trainables.journal import Journal, Knobs, trial_key
from trainables.store import told

EVENT = "request"

What = Literal["stop", "end", "add", "trials"]

# How long who asked waits for the answer of a search that runs; it may be choosing what to try next.
PATIENCE_S = 10.0

_KNOBS = ("variant", "rank", "alpha", "learning_rate", "batch_size", "dropout")


@dataclass(frozen=True)
class Request:
    """Something asked of a search.

    Attributes:
        what: `stop` a trial, `end` the search, `add` a configuration, change the number of `trials`.
        key: of the trial, or of the configuration; "" where it is about neither.
        config: to try next.
        trials: how many are to finish.
        id: orders requests by the time that they were made at.
    """

    what: What
    key: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    trials: int | None = None
    id: str = field(default_factory=lambda: f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}")


class Answer(TypedDict):
    """What came of a request: `waiting` where nobody has looked yet; `told` says it in words."""

    request: str
    state: Literal["taken", "refused", "waiting"]
    told: str


# ---- asking ------------------------------------------------------------------------------------------------


def stop_trial(run_dir: str | Path, trial: int | str) -> Answer:
    """Ask for a trial's end: it stops at its next step, is scored as it stands, and the search goes on.

    Args:
        trial: its number, as the tables and the report have it, or the first digits of its key.

    Raises:
        UserError: no such trial, one that is over, or a run that is finished.
    """
    folder, _ = _open(run_dir)
    key, number = find_trial(folder, trial)
    if key in Journal(folder).concluded():
        raise UserError(f"TRIAL: trial {number} of {folder} is over", field="TRIAL", value=str(trial))
    return _ask(folder, Request("stop", key))


def end_search(run_dir: str | Path) -> Answer:
    """Ask for the search's end: no further trial, those that run stop as they stand, the final stage follows.

    Raises:
        UserError: it is no run folder, or one of a finished run.
    """
    return _ask(_open(run_dir)[0], Request("end"))


def add_trial(run_dir: str | Path, changes: Mapping[str, Any]) -> Answer:
    """Ask for a configuration to be tried next: the run's default recipe with these changes.

    Args:
        changes: knob -> value; any value that can be trained, also one that the space has not.

    Raises:
        UserError: a knob or a value that there is not, a configuration that was tried, or a run that is finished.
    """
    folder, spec = _open(run_dir)
    return _add(folder, changed(spec, spec.recipe_to_knobs(), changes))


def clone_trial(run_dir: str | Path, trial: int | str, changes: Mapping[str, Any]) -> Answer:
    """Ask for a trial's configuration, with these changes, to be tried next; as `stop_trial` and `add_trial`."""
    folder, spec = _open(run_dir)
    key, _ = find_trial(folder, trial)
    return _add(folder, changed(spec, Journal(folder).started()[key].config, changes))


def change_trials(run_dir: str | Path, trials: int) -> Answer:
    """Ask for another number of trials to finish.

    Raises:
        UserError: a number that the space does not allow, or a run that is finished.
    """
    folder, spec = _open(run_dir)
    with_trials(spec, trials)
    return _ask(folder, Request("trials", trials=trials))


def with_trials(spec: Spec, trials: int) -> Spec:
    """The spec with another number of trials. Errors: UserError, as for any spec."""
    return from_dict(put(spec.model_dump(exclude_unset=True), {"search.trials": trials}))


def find_trial(folder: Path, trial: int | str) -> tuple[str, int]:
    """Key and number of a trial by its number or the first digits of its key. Errors: UserError."""
    keys = list(Journal(folder).started())
    text = str(trial)
    if text.isdigit() and 1 <= int(text) <= len(keys):
        return keys[int(text) - 1], int(text)
    found = [key for key in keys if len(text) >= 4 and key.startswith(text)]
    if len(found) == 1:
        return found[0], keys.index(found[0]) + 1
    allowed = f"1 to {len(keys)}, or four or more digits of a key" if keys else "none as long as no trial has begun"
    why = "several trials" if found else "no such trial"
    raise UserError(f"TRIAL = {text!r}: {why} of {folder}; allowed: {allowed}", field="TRIAL", value=text)


def changed(spec: Spec, config: Knobs, changes: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with some knobs changed, held against what a spec allows.

    A change of rank leaves what the space has, alpha or alpha_ratio, as it is. Options of the variant that the
    configuration comes from are left out where another variant does not read them.

    Raises:
        UserError: names the knob.
    """
    told = with_both_alphas({**config, **changes})
    ratio = spec.space.alpha is None
    if "alpha" in changes and "alpha_ratio" in changes:
        raise UserError("alpha, alpha_ratio: both are given; allowed: one of them", field="alpha")
    if "alpha_ratio" in changes or (ratio and "alpha" not in changes):
        told["alpha"] = _number("alpha_ratio", told["alpha_ratio"]) * _number("rank", told["rank"])
    recipe = {name: told[name] for name in _KNOBS}
    options = _options(str(recipe["variant"]), [name for name in told if name not in (*_KNOBS, "alpha_ratio")])
    unknown = [name for name in changes if name not in (*_KNOBS, "alpha_ratio", *options)]
    if unknown:
        known = [*_KNOBS, "alpha_ratio", *options]
        raise UserError.at(
            unknown[0],
            f"no such knob of {recipe['variant']}; {choose(unknown[0], known)}",
            value=changes[unknown[0]],
            allowed=known,
        )
    recipe["extra"] = {name: told[name] for name in options if name in told}
    try:
        return from_dict(put(spec.model_dump(exclude_unset=True), {"default_recipe": recipe})).recipe_to_knobs()
    except UserError as error:
        line, field = (
            text.replace("default_recipe.extra.", "").replace("default_recipe.", "")
            for text in (str(error), error.field)
        )
        raise UserError(line, field=field, value=error.value, allowed=error.allowed) from None


def _options(variant: str, asked: list[str]) -> list[str]:
    """Options of a variant. Asking for them imports torch: only where something is to be one."""
    from trainables.variants import available, get_variant

    if variant not in (names := available()):
        raise UserError(
            f"variant = {variant!r}: no such variant; {choose(variant, names)}", field="variant", value=variant
        )
    return list(get_variant(variant).options) if asked else []


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{name} = {value!r}: allowed: a number", field=name, value=value)
    return value


def _open(run_dir: str | Path) -> tuple[Path, Spec]:
    folder, spec = read_run(run_dir)
    if run_state(folder) == "finished":
        raise UserError(
            f"RUN_DIR: {folder} is finished; for more trials raise search.trials in its spec.yaml, then "
            f"`raylora resume {folder}`",
            field="RUN_DIR",
            value=str(folder),
        )
    other = holder(folder)
    if other is not None and other["machine"] != machine():
        raise UserError.at("RUN_DIR", f"{told(folder)} is run on {other['machine']}; ask there", value=told(folder))
    return folder, spec


def _add(folder: Path, config: dict[str, Any]) -> Answer:
    key = trial_key(config)
    keys = list(Journal(folder).started())
    if key in keys:
        raise UserError(
            f"trial {keys.index(key) + 1} of {folder} has this configuration, and trials of a run share their seed; "
            "change a knob",
            field="knob=value",
            value=config,
        )
    return _ask(folder, Request("add", key, config))


def _ask(folder: Path, request: Request) -> Answer:
    """Leave the request, and wait a little for the answer where the search runs."""
    place = folder / REQUESTS
    place.mkdir(exist_ok=True)
    fresh = place / f".{request.id}.fresh"
    with fresh.open("w") as file:
        json.dump(asdict(request), file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, place / f"{request.id}.json")
    deadline = time.monotonic() + PATIENCE_S
    while run_state(folder) == "running" and time.monotonic() < deadline:
        if (answer := answers(folder).get(request.id)) is not None:
            if answer["state"] == "refused":
                raise UserError(answer["told"])
            return answer
        time.sleep(0.1)
    if run_state(folder) == "running":
        return Answer(request=request.id, state="waiting", told="asked; the search looks between two of its steps")
    return Answer(request=request.id, state="waiting", told=f"taken when the run goes on: raylora resume {folder}")


# ---- answering ---------------------------------------------------------------------------------------------


def waiting(folder: Path) -> list[Request]:
    """Requests that nobody has answered, oldest first. A file that is none is passed over."""
    answered = answers(folder) if (place := folder / REQUESTS).is_dir() else {}
    found = []
    for file in sorted(place.glob("*.json")):
        try:
            request = Request(**json.loads(file.read_text()))
        except (OSError, ValueError, TypeError):
            continue
        if request.id in answered:  # whoever answered it died before the file was gone
            file.unlink(missing_ok=True)
        else:
            found.append(request)
    return found


def book(folder: Path, request: Request, taken: bool, told: str) -> None:
    """Answer a request: once this returns, it is answered for good."""
    state = "taken" if taken else "refused"
    told_of = {name: value for name, value in asdict(request).items() if name != "key"}
    Journal(folder).append(EVENT, request.key, **told_of, state=state, told=told)
    (folder / REQUESTS / f"{request.id}.json").unlink(missing_ok=True)


def answers(folder: Path) -> dict[str, Answer]:
    """What came of the requests of a run, by id, oldest first."""
    return {row["id"]: Answer(request=row["id"], state=row["state"], told=row["told"]) for row in _rows(folder)}


def taken(folder: Path) -> Iterator[tuple[What, str, dict[str, Any]]]:
    """What was taken, its key and its configuration, oldest first."""
    return ((row["what"], row["key"], row["config"]) for row in _rows(folder) if row["state"] == "taken")


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    return (row for row in Journal(folder).rows() if row["event"] == EVENT)
