"""`raylora report`."""

from __future__ import annotations

import argparse
from pathlib import Path

from raylora.cli._output import add_json, answer_files
from raylora.errors import UserError

HELP = "runs as one page, or a learning-rate sweep as table, plot and recorded grid"

_PAGES = (".html", ".htm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="+", metavar="RUN", help="runs' folders; for a sweep also a JSON of records")
    parser.add_argument(
        "--to",
        metavar="FILE.html|STEM",
        help="the page, by default report.html in the first run's folder; a STEM without suffix: the sweep as STEM.md, "
        "STEM.svg, STEM.records.json",
    )
    parser.add_argument("--no-rows", action="store_true", help="leave rows of test, which are people's data, out")
    parser.add_argument("--grid", metavar="FILE.csv", help="a sweep as a recorded grid for `raylora bench searchers`")
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    to = options.to
    if to is None or Path(to).suffix.lower() in _PAGES:
        from raylora.reports.page.page import PAGE, write_page
        from raylora.run.folder import read_run
        from raylora.run.stored import publish

        if options.grid:
            raise UserError(
                f"--grid {options.grid}: goes with a sweep; give --to a STEM without .html",
                field="--grid",
                value=options.grid,
            )
        folder = read_run(options.sources[0])[0]
        page = write_page(options.sources, folder / PAGE if to is None else Path(to), rows=not options.no_rows)
        if to is None:
            publish(folder)
        answer_files(options, [page])
        return
    from raylora.reports.sweep import merge, read_sweep, write_report

    if options.no_rows:
        raise UserError.at(
            "--no-rows", f"goes with a page, not with a sweep; give --to a FILE.html instead of {to}", value=True
        )
    answer_files(options, write_report(merge([read_sweep(source) for source in options.sources]), to, options.grid))
