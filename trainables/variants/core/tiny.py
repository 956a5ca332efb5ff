"""A model, data and a training loop small enough to try variants on in milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trainables.quantization import KINDS
from trainables.variants import get_variant
from trainables.variants.core.base import Variant
from trainables.variants.core.config import AdapterConfig, Batches
from trainables.variants.core.layers import place
from trainables.variants.core.matrices import find_matrices

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

VOCABULARY = 64


def make_base(dtype: torch.dtype = torch.float32, layers: int = 2, seed: int = 0) -> LlamaForCausalLM:
    """A random Llama of a few thousand weights, tied embeddings, in eval mode; the same for the same seed."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        # Larger than usual, so that an adapter's effect is far above rounding.
        initializer_range=0.1,
        tie_word_embeddings=True,
        attn_implementation="eager",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).to(dtype).eval()


def base_for(cls: type[Variant], dtype: torch.dtype = torch.float32, layers: int = 2) -> nn.Module:
    """The tiny base for a variant: `make_base`, quantised where it trains over such alone."""
    base = make_base(dtype, layers)
    return quantize(base, "int8") if cls.quantized == "only" else base


def quantize(model: nn.Module, kind: str) -> nn.Module:
    """Quantises the matrices of a model in memory, in place, but not its head; as `load_quantized` of a folder."""
    for matrix in find_matrices(model):
        place(model, matrix, KINDS[kind].of(matrix.module))
    return model.eval()


def make_batches(count: int = 4, rows: int = 4, length: int = 12, seed: int = 1) -> list[dict[str, torch.Tensor]]:
    """Random token batches `(rows, length)` with labels, as keyword arguments for a causal language model."""
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(0, VOCABULARY, (rows, length), generator=generator) for _ in range(count)]
    return [{"input_ids": i, "attention_mask": torch.ones_like(i), "labels": i} for i in ids]


def attached(name: str, model: nn.Module | None = None, batches: Batches | None = None, **settings: Any) -> Any:
    """A variant on a model (`make_base()` unless given): rank 4, alpha 8 and rate 5e-3 unless `settings` differ.

    `batches` are those it may look at, `make_batches()` unless given.
    """
    variant = get_variant(name)()
    config = AdapterConfig(**({"rank": 4, "alpha": 8.0, "learning_rate": 5e-3} | settings))
    variant.attach(make_base() if model is None else model, config, make_batches() if batches is None else batches)
    return variant


def outputs(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Logits `(rows, length, vocabulary)` in fp32, in eval mode, without gradients; the mode is put back."""
    training = model.training
    model.eval()
    with torch.no_grad():
        logits = model(**batch).logits.float()
    model.train(training)
    return logits


def train(
    variant: Variant,
    batches: Batches,
    steps: int,
    optimizer: torch.optim.Optimizer | None = None,
    first_step: int = 0,
) -> list[float]:
    """Trains an attached variant with all hooks of the contract, a batch per step; returns the losses."""
    optimizer = optimizer or variant.make_optimizer()
    variant.module.train()
    losses = []
    for step in range(first_step, first_step + steps):
        variant.before_step(step)
        loss = variant.module(**batches[step % len(batches)]).loss
        losses.append(loss.item())
        extra = variant.extra_loss()
        (loss if extra is None else loss + extra).backward()
        variant.after_backward(step)
        optimizer.step()
        optimizer.zero_grad()
        variant.after_step(step)
    return losses


def formula_count(variant: Variant) -> int:
    """Trainable parameters by the formula, summed over the matrices, and those that all matrices share."""
    each = (variant.matrix_parameters(m.rows, m.columns, variant.matrix_rank(m.name)) for m in variant.matrices)
    return sum(each) + variant.shared_parameters()


def structure(model: nn.Module) -> dict[str, object]:
    """All of a model that `detach` must give back, apart from the bits of its weights."""
    hooks = (
        "_forward_hooks",
        "_forward_pre_hooks",
        "_backward_hooks",
        "_backward_pre_hooks",
        "_state_dict_hooks",
    )
    return {
        "classes": [(name, type(part).__qualname__) for name, part in model.named_modules()],
        "objects": [id(part) for part in model.modules()] + [id(p) for p in model.parameters()],
        "attributes": [sorted(vars(part)) for part in model.modules()],
        "hooks": [list(getattr(part, hook)) for part in model.modules() for hook in hooks],
        "training": [part.training for part in model.modules()],
        "requires_grad": [(name, p.requires_grad) for name, p in model.named_parameters()],
        "grad": [name for name, p in model.named_parameters() if p.grad is not None],
        "storage": [(p.dtype, p.shape, p.data_ptr()) for p in model.parameters()],
        "config": model.config.to_dict(),
        "generation": model.generation_config.to_dict(),
        "forward": model.forward.__func__.__qualname__,
    }
