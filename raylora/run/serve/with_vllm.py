"""vLLM's own server with the adapter over its base, or with the merged model where vLLM cannot have the adapter."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from raylora.run.export import merge_to
from raylora.run.portable import look_at, vllm_room, write_uniform
from raylora.run.serve import listening
from raylora.run.serve.children import serve_child
from raylora.run.serve.listening import Address
from raylora.run.subject import Subject
from raylora.run.vllm import ENVIRONMENT, vllm_python

_SERVE = Path(__file__).parents[1] / "engine" / "inside" / "serve.py"


def run(subject: Subject, address: Address, dtype: str, say: Callable[[str], None]) -> None:
    """Serve until Ctrl-C.

    Raises:
        UserError: vLLM is not there, or the address cannot be had.
        RunFailed: vLLM ended by itself.
    """
    python = vllm_python("--engine")
    port = listening.free_port(address.host, address.port)
    with tempfile.TemporaryDirectory(prefix="raylora-serve-") as work:
        command = [python, str(_SERVE), *arguments(subject, address, Path(work), say)]
        command += ["--host", address.host, "--port", str(port), "--dtype", dtype]
        # Not among the arguments, which all users of the machine can read.
        secret = {"VLLM_API_KEY": address.key} if address.key else {}
        usual = {name: value for name, value in ENVIRONMENT.items() if name not in os.environ}
        serve_child(command, address, port, environment={**usual, **secret})


def arguments(subject: Subject, address: Address, work: Path, say: Callable[[str], None]) -> list[str]:
    """What is to be served, as `vllm serve` takes it; what has to be written for that goes to `work`."""
    if subject.adapter is None:
        return [str(subject.folder), "--served-model-name", address.name]
    tokenizer = [] if subject.tokenizer == subject.folder else ["--tokenizer", str(subject.tokenizer)]
    found = look_at(subject.adapter, "vllm")
    if found.needs == "merge":
        say(f"{found.why}: serving the merged model")
        merge_to(work / "model", subject.folder, subject.adapter, tokenizer=subject.tokenizer)
        return [str(work / "model"), "--served-model-name", address.name]
    adapter = subject.adapter
    if found.needs == "uniform":
        adapter = write_uniform(subject.adapter, work / "adapter")
    rank = json.loads((adapter / "adapter_config.json").read_text())["r"]
    lora = ["--enable-lora", "--max-lora-rank", str(vllm_room(rank)), "--lora-modules", f"{address.name}={adapter}"]
    return [str(subject.folder), *tokenizer, *lora]
