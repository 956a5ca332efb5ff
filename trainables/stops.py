"""Trials that are to end as they stand: a mark in the run's folder for each, which those who train it look for."""

from __future__ import annotations

from pathlib import Path

FOLDER = "stops"


def ask_to_stop(run_dir: str | Path, key: str) -> None:
    """Have a trial end at its next step; also one that is taken up again later."""
    folder = Path(run_dir) / FOLDER
    folder.mkdir(exist_ok=True)
    (folder / key).touch()


def asked_to_stop(run_dir: str | Path, key: str) -> bool:
    """Whether somebody has asked for the trial's end."""
    return (Path(run_dir) / FOLDER / key).exists()
