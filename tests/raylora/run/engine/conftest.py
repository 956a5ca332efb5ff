"""An environment whose `vllm` is a few lines: what vLLM is told, and what becomes of it, without vLLM."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# Each answer is its prompt's first token, then what was loaded: the adapter's rank or 0, the model's room, its type.
VLLM = """
import json, os, pathlib
print("this goes to the log")
__version__ = "0.0"

class SamplingParams:
    def __init__(self, **told):
        self.__dict__.update(told)

class Output:
    def __init__(self, index, token_ids, finish_reason):
        self.index, self.token_ids, self.finish_reason = index, token_ids, finish_reason

class Outputs:
    def __init__(self, outputs):
        self.outputs = outputs

class LLM:
    def __init__(self, model, dtype, max_lora_rank=0, **told):
        if json.loads((pathlib.Path(model) / "config.json").read_text()).get("refused"):
            raise ValueError("no kernel\\nfor it")
        self.room, self.whole, self.llm_engine = max_lora_rank, int(dtype == "float32"), self

    def remove_lora(self, number):
        pass

    def generate(self, prompts, params, lora_request, use_tqdm):
        return [Outputs([self.answer(i, one["prompt_token_ids"], p, lora_request) for i in range(p.n)])
                for one, p in zip(prompts, params)]

    def answer(self, index, ids, params, lora):
        if ids[0] == 5 and not os.path.exists("%(folder)s/died"):
            open("%(folder)s/died", "w").close()
            os._exit(3)
        if ids[0] == 6:
            os._exit(3)
        rank = 0 if lora is None else json.loads((pathlib.Path(lora.path) / "adapter_config.json").read_text())["r"]
        end = (params.stop_token_ids or [0])[0]
        found = [ids[0], rank, self.room, self.whole, params.seed or 0, end][:params.max_tokens]
        return Output(index, found, "stop" if len(found) == 6 else "length")
"""
MORE = {
    "platforms.py": "class current_platform:\n    is_cpu = staticmethod(lambda: True)\n",
    "lora/__init__.py": "",
    "lora/request.py": "class LoRARequest:\n    def __init__(self, name, lora_int_id, path):\n"
    "        self.lora_int_id, self.path = lora_int_id, path\n",
}


@pytest.fixture
def vllm(tmp_path, monkeypatch) -> Path:
    """The Python of that environment."""
    package = tmp_path / "environment" / "vllm"
    for name, text in {"__init__.py": VLLM % {"folder": tmp_path}, **MORE}.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    python = tmp_path / "environment" / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={package.parent} exec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("RAYLORA_VLLM_PYTHON", str(python))
    return python
