"""`raylora serve`."""

from __future__ import annotations

import argparse
import os
import sys

from raylora.cli._output import add_json, add_quiet, answer

HELP = "the tuned model behind OpenAI's interface, on localhost"
KEY = "RAYLORA_API_KEY"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="RUN", help="run, exported adapter or model: folder, hub id, alias")
    parser.add_argument(
        "--engine",
        choices=("transformers", "vllm", "llamacpp"),
        default="transformers",
        help="default: transformers, in this process; the others bring servers of their own",
    )
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1; others can reach any other one")
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="default: 8000; 0 for any that is free")
    parser.add_argument("--api-key", metavar="KEY", help=f"what clients have to show; default: ${KEY}, if it is set")
    parser.add_argument("--name", help="of the model, as clients ask for it; default: that of the folder")
    parser.add_argument("--base", metavar="MODEL", help="base model of the adapter, instead of the one that it names")
    parser.add_argument(
        "--dtype", choices=("auto", "float32", "bfloat16", "float16"), help="of the base; default: the run's, or auto"
    )
    add_quiet(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.run.serve.serve import serve

    def say(text: str) -> None:
        if not options.quiet:
            print(f"serve: {text}", file=sys.stderr, flush=True)

    def told(url: str) -> None:
        print(f"{url}  (Ctrl-C ends it)", file=sys.stderr, flush=True)
        answer(options, {"url": url, "engine": options.engine}, lambda: None)
        sys.stdout.flush()

    serve(
        options.target,
        told,
        engine=options.engine,
        host=options.host,
        port=options.port,
        key=options.api_key or os.environ.get(KEY) or None,
        name=options.name,
        base=options.base,
        dtype=options.dtype,
        say=say,
    )
