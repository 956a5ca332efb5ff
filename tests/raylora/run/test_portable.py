"""Adapters as other programs can have them, against what PEFT computes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from raylora.run.portable import look_at, write_uniform


@pytest.fixture
def adapter(tmp_path):
    """Write the configuration of a LoRA."""

    def write(**changes) -> Path:
        config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "bias": "none", "use_rslora": False, **changes}
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("changes", "vllm", "llamacpp"),
    [
        ({}, "", ""),
        ({"use_rslora": True}, "", "uniform"),
        ({"alpha_pattern": {"q_proj": 4}}, "uniform", "uniform"),
        ({"rank_pattern": {"q_proj": 4}, "use_dora": True}, "merge", "merge"),
        ({"modules_to_save": ["lm_head"]}, "merge", "merge"),
        ({"bias": "all"}, "merge", "merge"),
        ({"fan_in_fan_out": True}, "merge", "merge"),
        ({"peft_type": "IA3"}, "merge", "merge"),
        ({"r": 1024}, "merge", ""),
    ],
    ids=str,
)
def test_what_a_program_can_have_and_the_nearest_to_it(adapter, changes, vllm, llamacpp) -> None:
    folder = adapter(**changes)
    looks = [look_at(folder, program) for program in ("vllm", "llamacpp")]
    assert [look.needs for look in looks] == [vllm, llamacpp]
    assert all(bool(look.why) == bool(look.needs) for look in looks)


def test_whole_matrices_are_no_adapter(tmp_path) -> None:
    (tmp_path / "tuned_weights.json").write_text('{"variant": "full"}')
    look = look_at(tmp_path, "vllm")
    assert look.needs == "merge" and "full" in look.why


@pytest.mark.parametrize("rslora", [False, True], ids=["lora", "rslora"])
def test_one_rank_and_one_alpha_compute_the_same(tiny_model, tmp_path, rslora) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    config = LoraConfig(
        r=4, lora_alpha=6, use_rslora=rslora, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM",
        rank_pattern={"layers.0.self_attn.q_proj": 2}, alpha_pattern={"v_proj": 9}, init_lora_weights=False,
    )  # fmt: skip
    torch.manual_seed(0)
    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), config).eval()
    tuned.save_pretrained(tmp_path / "uneven")
    even = write_uniform(tmp_path / "uneven", tmp_path / "even")
    told = json.loads((even / "adapter_config.json").read_text())
    assert (told["r"], told["lora_alpha"], told["rank_pattern"], told["use_rslora"]) == (4, 4, {}, False)
    assert look_at(even, "llamacpp").needs == ""
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), even).eval()
    ids = torch.arange(1, 9)[None]
    with torch.no_grad():
        assert torch.allclose(loaded(input_ids=ids).logits, tuned(input_ids=ids).logits, atol=1e-5)
