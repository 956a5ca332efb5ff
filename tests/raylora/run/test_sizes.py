from __future__ import annotations

import json

import pytest

from raylora.errors import UserError
from raylora.run.sizes import size_from, size_of

MIXTURE = {
    "model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 48, "vocab_size": 151_936,
    "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128,
    "num_experts_per_tok": 8, "moe_intermediate_size": 768, "intermediate_size": 6144, "tie_word_embeddings": False,
}  # fmt: skip
DENSE = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "vocab_size": 128_256,
    "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14_336, "tie_word_embeddings": False,
}  # fmt: skip
LATENT = {
    "model_type": "deepseek_v3", "hidden_size": 7168, "num_hidden_layers": 61, "vocab_size": 129_280,
    "num_attention_heads": 128, "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128, "v_head_dim": 128, "n_routed_experts": 256, "n_shared_experts": 1,
    "num_experts_per_tok": 8, "moe_intermediate_size": 2048, "intermediate_size": 18_432, "first_k_dense_replace": 3,
    "tie_word_embeddings": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "family", "total", "active"),
    [(DENSE, "llama", 8.03e9, 8.03e9), (MIXTURE, "qwen3", 30.5e9, 3.3e9), (LATENT, "deepseek", 671e9, 37.4e9)],
)
def test_a_config_tells_all_parameters_and_those_that_a_token_meets(config, family, total, active) -> None:
    size = size_from(config)
    assert size.family == family
    assert size.parameters == pytest.approx(total, rel=0.02) and size.active == pytest.approx(active, rel=0.03)


def test_the_narrowest_matrix_is_that_of_keys(tmp_path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"text_config": DENSE}))
    assert size_of(str(tmp_path)).narrowest == 1024


def test_a_config_without_sizes_is_named(tmp_path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"--model: .*does not say how large the model is .*hidden_size"):
        size_of(str(tmp_path))
