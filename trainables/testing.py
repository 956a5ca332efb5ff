"""Small models and rows for tests: made in memory, offline, the same for the same arguments.

Nothing here is trained. A model made by `make_tiny_model` has random weights, a byte-level tokenizer that
round-trips any text, and a ChatML-like chat template, so every code path that a real model takes is taken.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.protocols import Mark, Outputs, Row, Sampling

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerFast

FAMILIES = ("llama", "qwen2", "gpt2")
ENCODERS = ("roberta", "deberta-v2", "bert")
VOCABULARY = 384
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make_arithmetic_rows(n: int, seed: int = 0) -> list[dict[str, str]]:
    """`n` additions of two small numbers as `{"prompt", "response", "answer"}`, all of them strings.

    Rows repeat once the 2,500 different sums are used up; the order depends on `seed` alone.
    """
    pairs = [(a, b) for a in range(50) for b in range(50)]
    random.Random(seed).shuffle(pairs)
    rows = []
    for index in range(n):
        a, b = pairs[index % len(pairs)]
        rows.append({"prompt": f"What is {a} + {b}?", "response": str(a + b), "answer": str(a + b)})
    return rows


@cache
def _tokenizer_json() -> str:
    """The serialised byte-level BPE: 256 bytes, 3 special tokens, the rest merges learned from the sums."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    text = [f"{row['prompt']} {row['response']} rank learning_rate" for row in make_arithmetic_rows(200)]
    tokenizer.train_from_iterator([*text, "system", "user", "assistant"], trainer)
    return tokenizer.to_str()


def make_tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of at most 384 tokens with a chat template.

    Pad is `<|endoftext|>`, eos `<|im_end|>`. It adds no special tokens on its own and decodes exactly what it encoded.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_tokenizer_json()),
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _config(family: str, hidden: int, layers: int, ids: dict[str, int]) -> PretrainedConfig:
    from transformers import GPT2Config, LlamaConfig, Qwen2Config

    if family == "gpt2":
        return GPT2Config(
            vocab_size=VOCABULARY, n_embd=hidden, n_layer=layers, n_head=4, n_inner=2 * hidden,
            n_positions=512, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **ids,
        )  # fmt: skip
    shared: dict[str, object] = {
        "vocab_size": VOCABULARY,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,  # grouped queries, as in the models people tune
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        **ids,
    }
    return LlamaConfig(**shared) if family == "llama" else Qwen2Config(**shared)


def make_tiny_model(
    folder: str | Path,
    *,
    family: str = "llama",
    hidden: int = 32,
    layers: int = 2,
    seed: int = 0,
    dtype: str = "float32",
) -> Path:
    """Save a tiny random causal language model with its tokenizer to `folder` (made if absent), and return that.

    Args:
        folder: where `config.json`, `model.safetensors` and the tokenizer files go.
        family: `llama`, `qwen2` or `gpt2`; anything else raises ValueError.
        hidden: width, a multiple of 8 (4 heads of an even size; 2 key-value heads for llama and qwen2).
        layers: number of transformer blocks.
        seed: the weights depend on it alone; the global torch generator is left as it was.
        dtype: name of a torch dtype for the saved weights, such as `float32` or `bfloat16`.
    """
    if family not in FAMILIES:
        raise ValueError(f"family: unknown {family!r}; choose one of {', '.join(FAMILIES)}")
    if hidden < 8 or hidden % 8:
        raise ValueError(f"hidden: {hidden} is not a positive multiple of 8; choose 8, 16, 32, ...")

    import torch
    from transformers import AutoModelForCausalLM

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tiny_tokenizer()
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(_config(family, hidden, layers, ids))
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_tiny_encoder(folder: str | Path, *, family: str = "roberta", hidden: int = 32, seed: int = 0) -> Path:
    """Save a tiny random encoder (a masked language model) with its tokenizer to `folder`, and return that.

    Args:
        folder: where the files go; made if absent.
        family: one of `ENCODERS`. RoBERTa's tokenizer puts `<s> A </s></s> B </s>` around texts, the others'
            `[CLS] A [SEP] B [SEP]`, and these tell the second text apart by its token types.
        hidden: width, a multiple of 4.
        seed: of the weights.
    """
    if family not in ENCODERS:
        raise ValueError(f"family: unknown {family!r}; choose one of {', '.join(ENCODERS)}")

    import torch
    from transformers import AutoConfig, AutoModelForMaskedLM

    folder = Path(folder)
    tokenizer = _encoder_tokenizer(family)
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 130,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if family == "deberta-v2":
        sizes |= {
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 16,
            "type_vocab_size": 0,
        }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForMaskedLM.from_config(AutoConfig.for_model(family, **sizes))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _encoder_tokenizer(family: str) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    first, last = ("<s>", "</s>") if family == "roberta" else ("[CLS]", "[SEP]")
    inner = Tokenizer.from_str(_tokenizer_json())
    inner.add_special_tokens([first, last, "<mask>"])
    between, second = (f"{last} {last}", 0) if family == "roberta" else (last, 1)
    inner.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {between} $B:{second} {last}:{second}",
        special_tokens=[(token, inner.token_to_id(token)) for token in (first, last)],
    )
    names = (
        ["input_ids", "attention_mask"] if family == "roberta" else ["input_ids", "token_type_ids", "attention_mask"]
    )
    tokens = {"bos_token": first, "eos_token": last} if family == "roberta" else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=PAD,
        cls_token=first,
        sep_token=last,
        mask_token="<mask>",
        model_max_length=128,
        model_input_names=names,
        **tokens,
    )


@dataclass(frozen=True)
class ExactMatch:
    """A scorer for tests: 1 where the completion is the answer, else 0."""

    metric: str = "accuracy"
    mode: str = "max"
    sampling: Sampling = field(default_factory=lambda: Sampling(max_new_tokens=4))

    def needs(self, split: str) -> frozenset[str]:
        return frozenset({"texts"})

    def measure(self, split: str, model: object, tokenizer: object, rows: Sequence[Row]) -> Sequence[Any]:
        return []

    def marks(self, split: str, outputs: Outputs, rows: Sequence[Row]) -> list[Mark]:
        return [
            {"values": {self.metric: float(texts[0].strip() == row["answer"])}}
            for texts, row in zip(outputs.texts, rows, strict=True)
        ]

    def figures(self, split: str, marks: Sequence[Mark]) -> dict[str, float | None]:
        values = [mark["values"][self.metric] for mark in marks]
        mean = sum(values) / len(values)
        error = (mean * (1 - mean) / max(1, len(values) - 1)) ** 0.5
        return {self.metric: mean, f"{self.metric}_se": error}

    def worst_figures(self, split: str) -> dict[str, float | None]:
        return {self.metric: 0.0}


def tokenised_rows(tokenizer: Any, n: int, seed: int = 0) -> list[dict[str, object]]:
    """`n` sums of `make_arithmetic_rows` with `prompt_ids` and `response_ids`, as trials expect them."""
    rows = []
    for index, row in enumerate(make_arithmetic_rows(n, seed)):
        response_ids = [*tokenizer(row["response"])["input_ids"], tokenizer.eos_token_id]
        ids = {"prompt_ids": tokenizer(row["prompt"] + " ")["input_ids"], "response_ids": response_ids}
        rows.append({"row": index, "metadata": "{}", **row, **ids})
    return rows
