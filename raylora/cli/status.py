"""`raylora status`."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from raylora.cli._output import add_json, answer

if TYPE_CHECKING:
    from raylora.run.state import RunStatus

HELP = "where a run stands: finished, running or interrupted, and its best trial so far"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="RUN_DIR")
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.api.tuning import open_run

    status = open_run(options.run_dir).status
    answer(options, status, lambda: print("\n".join(_lines(status))))


def _lines(status: RunStatus) -> list[str]:
    from raylora.progress import describe

    told = ", ".join(f"{count} {name}" for name, count in status["counts"].items() if count)
    lines = [
        f"{status['run_dir']}: {status['state']}",
        f"  {status['task']} on {status['model']}, {status['searcher']}",
        f"  {status['trials']} trials asked for: {told or 'none started'}",
    ]
    if status["best"] is not None:
        recipe = describe({k: v for k, v in status["best"]["config"].items() if k != "alpha_ratio"})
        lines.append(f"  best so far: {recipe}  ({status['metric']} {status['best']['validation']:.4f} on validation)")
    if status["last_event"] is not None:
        lines.append(f"  last event {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(status['last_event']))}")
    if status["state"] == "interrupted":
        lines.append(f"  go on with: raylora resume {status['run_dir']}")
    return lines
