"""A tiny random language model of a chosen family, for the surrogate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def llm_of_family(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`family, **config changes -> folder` of a tiny float32 model with a byte-level tokenizer; made once each."""
    made: dict[str, Path] = {}

    def make(family: str = "llama", **changes: object) -> Path:
        name = "-".join([family, *(f"{k}" for k in changes)])
        if name not in made:
            made[name] = _build(tmp_path_factory.mktemp("llm") / name, family, changes)
        return made[name]

    return make


@pytest.fixture(scope="session")
def tiny_llm(llm_of_family: Callable[..., Path]) -> Path:
    """Folder of a tiny random Llama."""
    return llm_of_family("llama")


def _build(folder: Path, family: str, changes: dict[str, object]) -> Path:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["learning rate adapter rank alpha batch size dropout larger small needs lower"] * 4
    bpe.train_from_iterator(
        words, trainers.BpeTrainer(vocab_size=320, special_tokens=["<end>"], initial_alphabet=alphabet)
    )
    common = {"vocab_size": 320, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    if family == "gpt2":
        shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 1024}
    else:
        shape = {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1024,
        }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = AutoConfig.for_model(family, **common, **{**shape, **changes})
        model = AutoModelForCausalLM.from_config(config)
        # Larger weights than the default start: positions and masks then show in the output.
        for parameter in model.parameters():
            parameter.data.mul_(4.0) if parameter.dim() > 1 else None
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<end>", pad_token="<end>").save_pretrained(folder)
    return folder
