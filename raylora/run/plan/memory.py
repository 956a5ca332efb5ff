"""The memory of an optimizer step, from the model's shape: weights, adapter, optimizer, activations by micro-batch.

Of a token, a block of a decoder with RMS norms and a gated feed-forward keeps for the backward pass of LoRA on all its
matrices (h hidden, q heads times their size, f feed-forward, r rank, t length; e bytes of a number of the base):

    norms        2 (4 h + 4)             their inputs in float32, and a root each
    adapter in   4 (5 h + q + f)         inputs of the seven matrices in float32; in float32 those of q, k, v are one,
                                         as those of gate and up, and that of o is attention's result
    adapter      4 * 7 r                 A x
    attention    4 q e + heads * 4 + t e q, k and v of all heads, the result, its normalisers, a row of the mask
    activation   3 f e                   gate, silu(gate), up

With dropout the inputs of A are seven tensors in any type, and their masks come on top.
"""

from __future__ import annotations

from dataclasses import dataclass

GB = 1e9
# A weight under Adam in float32: itself, its gradient, two moments.
ADAM_BYTES = 16.0
# A weight of a quantised matrix (`trainables.quantization`): 4 bits and a byte per block of 64; 8 bits.
QUANTIZED_BYTES = {"nf4": 0.516, "int8": 1.005}
_FLOAT32 = 4


@dataclass(frozen=True)
class Shape:
    """What of a model decides its cost.

    Args:
        parameters: weights in all.
        layers, hidden: transformer blocks and their width.
        vocabulary: rows of the language-model head.
        adapter_per_rank: weights that one rank of LoRA adds over all adapted matrices, the sum of m + n.
        weight_bytes: bytes of a base weight in memory.
        quantized: weights of the parameters that are kept in 4 or 8 bits, and quantized_bytes, bytes of one of them.
        outside: weights that are in no block: of the embedding, the head where it has its own, the last norm.
        queries, heads, feed_forward: width of the queries of all heads, their number, inner width of the feed-forward;
            0 where they are not known: as wide as hidden, heads of 64, 8/3 of hidden.
    """

    parameters: int
    layers: int
    hidden: int
    vocabulary: int
    adapter_per_rank: int
    weight_bytes: int = 4
    queries: int = 0
    heads: int = 0
    feed_forward: int = 0
    quantized: int = 0
    quantized_bytes: float = 0.0
    outside: int = 0

    @property
    def base_bytes(self) -> float:
        """Of all weights in memory."""
        return (self.parameters - self.quantized) * self.weight_bytes + self.quantized * self.quantized_bytes


@dataclass(frozen=True)
class Memory:
    """Of a process that trains, in GB: the base, the adapter with gradient and optimizer, what passes keep, logits."""

    weights_gb: float
    adapter_gb: float
    activations_gb: float
    logits_gb: float

    @property
    def total_gb(self) -> float:
        """All of it, without the process itself."""
        return self.weights_gb + self.adapter_gb + self.activations_gb + self.logits_gb


def block_bytes(
    shape: Shape, *, rank: int = 16, length: int = 512, dropout: bool = False, mask_bytes: int = 4
) -> float:
    """What a block keeps of a token until the backward pass; see the module.

    Args:
        length: of a row, padded.
        mask_bytes: of an entry of a dropout mask: 4 on CPUs, 1 on CUDA.
    """
    e, h = shape.weight_bytes, shape.hidden
    q, f = shape.queries or h, shape.feed_forward or round(8 / 3 * h)
    read = 5 * h + q + f
    plain = 2 * h + f if e == _FLOAT32 else read
    read_bytes = read * (_FLOAT32 + mask_bytes) if dropout else plain * _FLOAT32
    norms = 2 * _FLOAT32 * (h + 1)
    attention = (4 * q + length) * e + _FLOAT32 * (shape.heads or max(1, q // 64))
    return norms + read_bytes + _FLOAT32 * 7 * rank + attention + 3 * f * e


def kept_bytes(shape: Shape, *, recompute: bool = False, **of_block: float) -> float:
    """What all blocks keep of a token at the worst moment.

    Args:
        recompute: with gradient checkpointing each block keeps its input, and one at a time everything.
        of_block: as those of `block_bytes`.
    """
    block = block_bytes(shape, **of_block)  # type: ignore[arg-type]
    return shape.layers * shape.hidden * shape.weight_bytes + block if recompute else shape.layers * block


def logit_bytes(shape: Shape) -> float:
    """Of a token whose logits are wanted: those, the same in float32, and their gradient."""
    return shape.vocabulary * (shape.weight_bytes + 2.0 * _FLOAT32)


def activation_gb(shape: Shape, recompute: bool = False) -> float:
    """GB per token of a micro-batch that is trained on, with dropout: blocks and logits."""
    return (kept_bytes(shape, recompute=recompute, dropout=True) + logit_bytes(shape)) / GB


def plan_memory(
    shape: Shape,
    *,
    rank: int,
    micro_batch_tokens: float,
    trained: float = 1.0,
    recompute: bool = False,
    shards: int = 1,
    strategy: str = "zero3",
    length: int = 512,
    dropout: bool = True,
    mask_bytes: int = 1,
) -> Memory:
    """Of one process that trains LoRA.

    Args:
        micro_batch_tokens: that go through the model at once in this process.
        trained: part of the tokens that the loss counts: their logits are computed.
        recompute: whether blocks are computed again (`train.gradient_checkpointing`).
        shards: processes that the base's weights are divided among; each gathers two blocks at a time.
        strategy: `zero3`, or `fsdp`, which keeps what is outside of the blocks whole in a step.
        others: as in `block_bytes`.

    Example:
        >>> shape = Shape(8_030_261_248, 32, 4096, 128_256, 2_621_440, 2, 4096, 32, 14_336)
        >>> round(plan_memory(shape, rank=16, micro_batch_tokens=4096, recompute=True).weights_gb, 1)
        16.1
    """
    whole = shape.base_bytes / GB
    outside = shape.outside * shape.weight_bytes / GB
    gathered = 0.0 if shards == 1 else 2 * (whole - outside) / shape.layers + (outside if strategy == "fsdp" else 0.0)
    kept = kept_bytes(shape, recompute=recompute, rank=rank, length=length, dropout=dropout, mask_bytes=mask_bytes)
    return Memory(
        weights_gb=whole / shards + gathered,
        adapter_gb=ADAM_BYTES * shape.adapter_per_rank * rank / GB,
        activations_gb=kept * micro_batch_tokens / GB,
        logits_gb=logit_bytes(shape) * trained * micro_batch_tokens / GB,
    )
