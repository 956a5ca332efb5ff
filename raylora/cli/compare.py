"""`raylora compare`."""

from __future__ import annotations

import argparse

from raylora.cli._output import add_json, add_quiet, answer_files, whole_numbers
from raylora.errors import UserError

HELP = "variants at their own best rates, over tasks and seeds"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="+", metavar="SPEC.yaml|RECORDS.json|dotted.key=value")
    parser.add_argument("--seeds", default="0,1,2", metavar="A,B", help="of the specs (default 0,1,2)")
    parser.add_argument("--to", required=True, metavar="STEM", help="writes STEM.records.json, STEM.md and STEM.svg")
    add_quiet(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.reports.compare import merged, read_records, run_specs, write_comparison
    from raylora.reports.plots import load_pyplot
    from raylora.spec.paths import output_stem

    specs = [source for source in options.sources if source.endswith((".yaml", ".yml"))]
    overrides = [source for source in options.sources if source not in specs and "=" in source]
    files = [source for source in options.sources if source not in specs and source not in overrides]
    seeds = whole_numbers("--seeds", options.seeds) or []
    records = [record for file in files for record in read_records(file)]
    if not specs and not records:
        raise UserError.at("SOURCE", "nothing but overrides; give a spec (.yaml) or a JSON of records")
    output_stem(options.to)  # first: training takes long
    load_pyplot("compare")
    records += run_specs(specs, overrides, seeds, quiet=options.quiet)
    answer_files(options, write_comparison(merged(records), options.to))
