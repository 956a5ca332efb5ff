"""A tiny random language model of a chosen family, for the surrogate."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def embeddings_of_this_session_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is read from the user's cache of embeddings, and nothing written to it."""
    before = os.environ.get("RAYLORA_HOME")
    os.environ["RAYLORA_HOME"] = str(tmp_path_factory.mktemp("home"))
    yield
    if before is None:
        del os.environ["RAYLORA_HOME"]
    else:
        os.environ["RAYLORA_HOME"] = before


@pytest.fixture(scope="session")
def llm_of_family(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`family, **config changes -> folder` of a tiny float32 model with a byte-level tokenizer; made once each."""
    made: dict[str, Path] = {}

    def make(family: str = "llama", **changes: object) -> Path:
        name = f"{family} {sorted(changes.items())}"
        if name not in made:
            made[name] = _build(tmp_path_factory.mktemp(family), family, changes)
        return made[name]

    return make


@pytest.fixture(scope="session")
def tiny_llm(llm_of_family: Callable[..., Path]) -> Path:
    """Folder of a tiny random Llama."""
    return llm_of_family("llama")


@pytest.fixture(scope="session")
def tiny_encoder(llm_of_family: Callable[..., Path]) -> Path:
    """Folder of a tiny random BERT, whose tokenizer opens and closes every text."""
    return llm_of_family("bert")


def _build(folder: Path, family: str, changes: dict[str, object]) -> Path:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["learning rate adapter rank alpha batch size dropout larger small needs lower"] * 4
    bpe.train_from_iterator(
        words, trainers.BpeTrainer(vocab_size=320, special_tokens=["<end>", "<start>"], initial_alphabet=alphabet)
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
            "max_position_embeddings": 2048,
        }
    ends = {"eos_token": "<end>", "pad_token": "<end>"}
    if family == "bert":
        bpe.post_processor = processors.TemplateProcessing(
            single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 0)]
        )
        ends |= {"cls_token": "<start>", "sep_token": "<end>"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = AutoConfig.for_model(family, **common, **{**shape, **changes})
        model = (AutoModel if family == "bert" else AutoModelForCausalLM).from_config(config)
        # Larger weights than the default start: positions and masks then show in the output.
        for parameter in model.parameters():
            parameter.data.mul_(4.0) if parameter.dim() > 1 else None
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=bpe, **ends).save_pretrained(folder)
    return folder
