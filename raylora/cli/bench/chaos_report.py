"""`raylora bench chaos-report`."""

from __future__ import annotations

import argparse
from pathlib import Path

from raylora.cli._output import add_json, answer_files, written
from raylora.errors import UserError

HELP = "table of the kills of `bench chaos`"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("records", metavar="KILLS.jsonl", help="of the folder of `bench chaos`")
    parser.add_argument("--to", required=True, metavar="FILE.md", help="what is written")
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.bench.chaos.report import markdown, read_records, table

    records = read_records(Path(options.records).expanduser())
    if not records:
        told = f"{options.records} holds no kill; give a file that `raylora bench chaos --folder` wrote"
        raise UserError.at("KILLS.jsonl", told, value=options.records)
    with written("--to", options.to) as file:
        file.write_text(markdown(table(records)))
    answer_files(options, [file])
