"""What vLLM is told to serve; vLLM itself needs an environment of its own."""

from __future__ import annotations

import json

from raylora.run.serve.listening import Address
from raylora.run.serve.with_vllm import arguments
from raylora.run.subject import find_subject

ADDRESS = Address("sums", "127.0.0.1", 8000, None, lambda url: None)


def test_a_plain_adapter_is_loaded_over_its_base(old_run, old_model, tmp_path) -> None:
    run = old_run("finished")
    found = arguments(find_subject(str(run)), ADDRESS, tmp_path, lambda text: None)
    lora = ["--enable-lora", "--max-lora-rank", "8", "--lora-modules", f"sums={run}/adapter"]
    assert found == [str(old_model.resolve()), *lora]


def test_what_it_cannot_have_is_merged_and_said(old_run, tmp_path) -> None:
    run, said = old_run("finished"), []
    config = run / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"bias": "all"}))
    found = arguments(find_subject(str(run)), ADDRESS, tmp_path / "work", said.append)
    assert found == [str(tmp_path / "work" / "model"), "--served-model-name", "sums"]
    assert (tmp_path / "work" / "model" / "model.safetensors").is_file()
    assert said == ["vLLM does not know biases in an adapter: serving the merged model"]


def test_ranks_that_differ_are_made_one(old_run, tmp_path) -> None:
    run = old_run("finished")
    config = run / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"alpha_pattern": {"q_proj": 8}}))
    found = arguments(find_subject(str(run)), ADDRESS, tmp_path / "work", lambda text: None)
    assert found[-1] == f"sums={tmp_path}/work/adapter"
