"""vLLM's own environment, and its own check of adapters."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from raylora.errors import RunFailed
from raylora.run.elsewhere import find_python
from raylora.run.portable import LARGEST_OF_VLLM

_CHECK = Path(__file__).parent / "engine" / "inside" / "legal.py"

VARIABLE = "RAYLORA_VLLM_PYTHON"
REMEDY = "install the extra vllm with constraints-vllm.txt into an environment of its own"
# What a process of vLLM's has beside the environment, unless that says otherwise: on a CPU it would take nearly all
# memory for keys and values, in GiB, and bind its threads to cores that others use.
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1"}


def vllm_python(option: str) -> str:
    """The Python that has vLLM.

    Args:
        option: what asked for it.

    Raises:
        UserError: there is none.
    """
    return find_python("vllm", VARIABLE, option, REMEDY)


def is_vllm_here() -> bool:
    """Whether an environment with vLLM is named, or this one has it."""
    return bool(os.environ.get(VARIABLE)) or importlib.util.find_spec("vllm") is not None


def last_line(said: str) -> str:
    """The last thing that a process said; "" where it said nothing."""
    return next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "")


def refusals(adapters: Sequence[Path], option: str) -> list[str]:
    """Why vLLM's own check refuses each of these adapters, "" where it takes it, `(n,)`; needs vLLM.

    Args:
        option: what asked for it.

    Raises:
        UserError: vLLM is not there.
        RunFailed: it does not come up.
    """
    asked = {"adapters": [str(one) for one in adapters], "rank": LARGEST_OF_VLLM}
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [vllm_python(option), str(_CHECK)],
        input=json.dumps(asked),
        env={**ENVIRONMENT, **inherited},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        told = f"status {done.returncode}: {last_line(done.stderr)}"
        raise RunFailed(f"{option}: vLLM does not come up: {told}", field=option)
    words: list[str] = json.loads(done.stdout.splitlines()[-1])
    return words
