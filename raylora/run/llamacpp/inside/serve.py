"""llama.cpp's server, as xllamacpp ships it; what it serves is read from standard input as JSON.

{"model": FILE.gguf, "adapter": FILE.gguf or null, "name": "...", "host": "...", "port": N, "key": "..." or null}
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import Any


def main() -> None:
    """Serve until a signal ends it."""
    told: dict[str, Any] = json.load(sys.stdin)
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias = told["model"], {told["name"]}
    params.hostnames, params.port = [told["host"]], told["port"]
    params.api_keys = [told["key"]] if told["key"] else []
    # Four requests at a time, which share the model's context.
    params.n_parallel, params.kv_unified = 4, True
    # A page of its own, and pages of others that would ask: neither is wanted.
    params.ui, params.cors_origins = False, ""
    params.verbosity = 1
    if told["adapter"]:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(told["adapter"], 1.0)]
    _server = xllamacpp.Server(params)
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()
    # Not through the server's end, which waits for those that it answers.
    os._exit(0)


if __name__ == "__main__":
    main()
