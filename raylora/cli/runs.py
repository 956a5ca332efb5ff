"""`raylora runs`."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from raylora.cli._output import add_json, answer, print_table

if TYPE_CHECKING:
    from raylora.run.state import RunStatus

HELP = "list the runs in a folder, the newest first"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", default="runs", metavar="FOLDER", help="default: runs")
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.api.listing import list_runs

    rows = list_runs(options.folder)
    columns = ["run", "state", "trials", "task", "model", "best", "started"]
    answer(options, rows, lambda: print_table(columns, [_row(row) for row in rows]))


def _row(status: RunStatus) -> list[str]:
    if status["problem"] is not None:
        return [status["run_dir"], status["state"], "", "", "", status["problem"], ""]
    done = sum(count for name, count in status["counts"].items() if name != "unfinished")
    best = "" if status["best"] is None else f"{status['metric']} {status['best']['validation']:.4f}"
    started = status["started"]
    when = "" if started is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(started))
    trials = f"{done}/{status['trials']}"
    return [status["run_dir"], status["state"], trials, status["task"], status["model"], best, when]
