"""Trials that are to end as they stand: a mark in the run's folder for each, which those who train it look for."""

from __future__ import annotations

from pathlib import Path

from trainables.store import store_of

FOLDER = "stops"
# Seconds between two looks into a store.
_EVERY_S = 10.0


def ask_to_stop(run_dir: str | Path, key: str) -> None:
    """Have a trial end at its next step; also one that is taken up again later."""
    folder = Path(run_dir) / FOLDER
    folder.mkdir(exist_ok=True)
    (folder / key).touch()
    if (store := store_of(run_dir)) is not None:
        store.put(f"{FOLDER}/{key}", b"")


def asked_to_stop(run_dir: str | Path, key: str) -> bool:
    """Whether somebody has asked for the trial's end."""
    if (Path(run_dir) / FOLDER / key).exists():
        return True
    store = store_of(run_dir)
    return store is not None and store.has(f"{FOLDER}/{key}", _EVERY_S)
