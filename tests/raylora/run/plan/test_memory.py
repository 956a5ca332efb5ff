from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import pytest

from raylora.run.plan.memory import Shape, kept_bytes, plan_memory

PAGE = Path(__file__).parents[4] / "docs" / "scaling.md"
# Llama 3.1 of 8 and 70 billion weights: their published configurations, in bf16.
MODELS = {
    "8B": Shape(8_030_261_248, 32, 4096, 128_256, 2_621_440, 2, 4096, 32, 14_336),
    "70B": Shape(70_553_706_496, 80, 8192, 128_256, 12_943_360, 2, 8192, 64, 28_672),
}


def kept_by_autograd(layers: int, dtype: str, *, dropout: float, again: bool) -> float:
    """Bytes per token that autograd holds between the passes of a step of LoRA on a tiny Llama, weights aside."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from trainables.checkpointing import recompute_blocks
    from trainables.variants.core.config import AdapterConfig
    from trainables.variants.lora import Lora

    rows, length = 4, 32
    sizes = {"hidden_size": 64, "intermediate_size": 176, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=96, num_hidden_layers=layers, **sizes)).to(getattr(torch, dtype))
    Lora().attach(model, AdapterConfig(rank=4, alpha=8, dropout=dropout))
    if again:
        recompute_blocks(model)
    model.train()
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    held: dict[int, torch.Tensor] = {}

    def hold(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            held[place] = tensor
        return tensor

    ids = torch.arange(rows * length).view(rows, length) % 96
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=1)
        return sum(tensor.untyped_storage().nbytes() for tensor in held.values()) / (rows * length)


@pytest.mark.parametrize(
    ("dtype", "dropout", "again"),
    [("float32", 0.0, False), ("bfloat16", 0.0, False), ("bfloat16", 0.1, False), ("bfloat16", 0.0, True)],
)
def test_blocks_keep_what_the_plan_says(dtype: str, dropout: float, again: bool) -> None:
    few, many = (kept_by_autograd(layers, dtype, dropout=dropout, again=again) for layers in (1, 3))

    def planned(layers: int) -> float:
        shape = Shape(0, layers, 64, 96, 0, 4 if dtype == "float32" else 2, 64, 4, 176)
        return kept_bytes(shape, recompute=again, rank=4, length=32, dropout=bool(dropout))

    # The difference leaves out embedding and head.
    assert many - few == pytest.approx(planned(3) - planned(1), rel=0.15)


def test_weights_that_are_shared_out_are_kept_in_part() -> None:
    whole, part = (plan_memory(MODELS["70B"], rank=16, micro_batch_tokens=2048, shards=n) for n in (1, 8))
    assert part.weights_gb == pytest.approx(whole.weights_gb * (1 / 8 + 2 / 80))
    assert part.activations_gb == whole.activations_gb


def test_the_page_shows_what_is_planned() -> None:
    rows = re.findall(r"^\| (8B|70B) \| (\d+) \| (no|yes) \|((?: [\d.]+ \|){5})$", PAGE.read_text(), re.MULTILINE)
    assert len(rows) >= 6
    for name, shards, again, figures in rows:
        found = plan_memory(
            MODELS[name], rank=16, micro_batch_tokens=4096, trained=0.5, recompute=again == "yes", shards=int(shards)
        )
        shown = [*asdict(found).values(), found.total_gb]
        assert [f"{value:.1f}" for value in shown] == [text.strip() for text in figures.split("|")[:-1]]
