"""vLLM's own server, also where its wheel is not called `vllm`, as builds for other machines are not.

vLLM's command line asks for the version of that wheel and ends where there is none; the module behind it does not ask.
The arguments are those of `vllm serve MODEL`.
"""

from __future__ import annotations

import runpy
import sys
from importlib.metadata import PackageNotFoundError, version


def main() -> None:
    """Serve until a signal ends it."""
    try:
        version("vllm")
    except PackageNotFoundError:
        module, before = "vllm.entrypoints.openai.api_server", ["--model"]
    else:
        module, before = "vllm.entrypoints.cli.main", ["serve"]
    sys.argv[1:1] = before
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
