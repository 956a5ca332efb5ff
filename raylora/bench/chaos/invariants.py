"""What has to hold of a search that was disturbed, told from its folder."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raylora.run.summary import read_summary
from trainables.journal import Journal, trial_key
from trainables.saved import saved

# Of a trial, what does not depend on when and where it was trained.
FIGURES = ("step", "samples", "tokens", "loss", "validation_loss", "accuracy", "accuracy_se", "trainable_parameters")

Answer = dict[str, Any]
"""`trials`: key of a configuration -> its figures. `scores`: base, default and found recipe, as in summary.json."""


def answer_of(run: Path) -> Answer:
    """What a search that is over has found."""
    ends = Journal(run).concluded().values()
    trials = {end.key: {name: end.metrics.get(name) for name in FIGURES} for end in ends if not end.failed}
    summary: Mapping[str, Any] = read_summary(run) or {}
    return {"trials": trials, "scores": {name: summary.get(name) for name in ("base", "default", "best")}}


def differences(found: Answer, uninterrupted: Answer, promised: str) -> list[str]:
    """Where a search's answer is not that of the uninterrupted one, as far as that is promised (see `Scene`)."""
    if promised == "nothing":
        return []
    ours, theirs = found["trials"], uninterrupted["trials"]
    told = [
        f"trial {key}: {ours[key]}, uninterrupted {theirs[key]}"
        for key in ours.keys() & theirs.keys()
        if ours[key] != theirs[key]
    ]
    if promised == "answer":
        if ours.keys() != theirs.keys():
            told.append(f"trials {sorted(ours)}, uninterrupted {sorted(theirs)}")
        if found["scores"] != uninterrupted["scores"]:
            told.append(f"scores {found['scores']}, uninterrupted {uninterrupted['scores']}")
    return told


def finished(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """Keys of the trials whose `finish` line is there."""
    return {row["key"] for row in rows if row["event"] == "finish"}


def trained_again(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """Keys of trials that anything was done to after they had finished."""
    over: set[str] = set()
    again: set[str] = set()
    for row in rows:
        if row["event"] in ("start", "continue", "report", "finish", "error") and row["key"] in over:
            again.add(row["key"])
        if row["event"] == "finish":
            over.add(row["key"])
    return again


def broken(run: Path, asked: int) -> list[str]:
    """What does not hold of the journal and the summary of a search that is over."""
    rows, told = Journal(run).rows(), []
    for event in ("start", "finish", "final"):
        counts = Counter(row["key"] for row in rows if row["event"] == event)
        told += [f"{n} `{event}` lines of {key}" for key, n in counts.items() if n > 1]
    told += [f"trial {row['key']} failed: {row.get('message')}" for row in rows if row["event"] == "error"]
    told += [f"trial {key} went on after it had finished" for key in sorted(trained_again(rows))]
    told += [f"{row['key']}: its config has another key" for row in rows if _misnamed(row)]
    if len(finished(rows)) != asked:
        told.append(f"{len(finished(rows))} trials finished of {asked} asked for")
    if (listed := sum(1 for _ in run.glob("trial_*"))) != asked:
        told.append(f"Tune's experiment has {listed} trials of {asked} asked for")
    summary = read_summary(run)
    if summary is None:
        told.append("no summary.json")
    elif summary["trials"] != asked:
        told.append(f"summary.json tells of {summary['trials']} trials of {asked} asked for")
    return told + _steps_back(rows)


def _misnamed(row: Mapping[str, Any]) -> bool:
    return row["event"] in ("start", "finish") and trial_key(row["config"]) != row["key"]


def _steps_back(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Trials that went on from an earlier step than the time before."""
    reached: dict[str, int] = {}
    told = []
    for row in rows:
        if row["event"] == "continue":
            if row["from_step"] < reached.get(row["key"], 0):
                told.append(f"{row['key']} went on from step {row['from_step']}, after {reached[row['key']]}")
            reached[row["key"]] = row["from_step"]
    return told


def checkpoints(run: Path) -> tuple[dict[str, int], list[str]]:
    """Steps of the unfinished trials' checkpoints (0: none), and those that are not whole. Nothing writes them now."""
    import torch
    from safetensors.torch import load_file

    journal = Journal(run)
    steps: dict[str, int] = {}
    torn = []
    for key in journal.started().keys() - journal.concluded().keys():
        folder = saved(run / "checkpoints" / key)
        if folder is None:
            steps[key] = 0
            continue
        try:
            position = json.loads((folder / "position.json").read_text())
            load_file(folder / "adapter.safetensors")
            optimizer = torch.load(folder / "optimizer.pt", weights_only=True)
            torch.load(folder / "rng.pt", weights_only=True)
            taken = {int(state["step"]) for state in optimizer["state"].values() if "step" in state}
            if taken and taken != {position["step"]}:
                torn.append(f"checkpoint of {key}: of step {position['step']}, its optimizer of {sorted(taken)}")
            steps[key] = position["step"]
        except Exception as error:  # whatever a reader says of half a file
            torn.append(f"checkpoint of {key}: {type(error).__name__}: {error}")
    return steps, torn


def not_gone_on_from(rows: Sequence[Mapping[str, Any]], steps: Mapping[str, int]) -> list[str]:
    """Trials whose next `continue` line among these rows is not from the step that their checkpoint was of."""
    first: dict[str, int] = {}
    for row in rows:
        if row["event"] == "continue":
            first.setdefault(row["key"], row["from_step"])
    return [
        f"{key} went on from step {first[key]}, its checkpoint was of {steps[key]}"
        for key in first.keys() & steps.keys()
        if first[key] != steps[key]
    ]


def digest(folder: Path) -> str:
    """SHA-256 over the files of a folder, names and bytes."""
    found = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(f"{file.relative_to(folder)}\0".encode() + file.read_bytes())
    return found.hexdigest()
