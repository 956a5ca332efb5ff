"""`raylora schema`."""

from __future__ import annotations

import argparse
import json

HELP = "the JSON schema of a spec, for editors and other programs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", metavar="FILE.json", help="write it to a file (default: print it)")


def run(options: argparse.Namespace) -> None:
    from raylora.cli._output import write_json
    from raylora.models import ALIASES
    from raylora.spec.schema import json_schema
    from searchers import SEARCHERS
    from trainables.variants import available

    schema = json_schema({"space.variant": available(), "search.searcher": list(SEARCHERS), "model": list(ALIASES)})
    if options.json:
        write_json(options.json, schema)
    else:
        print(json.dumps(schema, indent=2))
