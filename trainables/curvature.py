"""Curvature at the start of training: the largest eigenvalue of the loss Hessian with respect to one block.

"Learning Rate Matters: Vanilla LoRA May Suffice for LLM Fine-tuning", section 4 and appendix I: the best learning rate
of a start falls as the largest eigenvalue of its Hessian grows. A *block* is what is trained on one matrix (its A and
B); the loss is the mean cross-entropy over the completion tokens of a fixed batch.

Notation: theta `(d,)` the block's parameters, flattened one after the other; H `(d, d)` the Hessian of the loss with
respect to theta; Q `(k, d)` the Lanczos basis; T `(k, k)` = Q H Q^T, tridiagonal with diagonal alpha and off-diagonal
beta.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.batching import IGNORE, collate, global_batches, labelled_batches, length, micro_batches, trained_tokens
from trainables.memory import available_bytes
from trainables.modes import evaluating
from trainables.protocols import Row, TrainSettings
from trainables.run import adapter_config
from trainables.variants import available, get_variant
from trainables.variants.core.matrices import Matrix

ITERATIONS, TOLERANCE, TOKENS = 50, 1e-3, 512

# Products over which the largest Ritz value must have come to rest.
_STEADY = 6
# A basis vector that is this many units of rounding long, next to H, is rounding.
_BREAKDOWN = 100
# Of the memory that is there: a product needs some more than the graph that is kept.
_MEMORY_SHARE = 0.75


class OutOfMemory(ValueError):
    """The graph of the batch does not fit the memory."""


# -- eigenvalue ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Eigenvalue:
    """The algebraically largest eigenvalue, as far as Lanczos got.

    Attributes:
        value: in nats per squared unit of the parameters. error: bound on its distance from an eigenvalue. products:
            matrix-vector products made. converged: whether the error is within the tolerance.
    """

    value: float
    error: float
    products: int
    converged: bool


def lanczos(
    product: Callable[[Tensor], Tensor],
    size: int,
    *,
    iterations: int = ITERATIONS,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Eigenvalue:
    """Algebraically largest eigenvalue of a symmetric H that is known by its products.

    Lanczos with full reorthogonalisation, done twice (Paige, "Practical use of the symmetric Lanczos process with
    re-orthogonalization", BIT 10, 1970), from a normal random vector, which has a share in every eigenspace: where the
    basis can grow no further, it holds the largest eigenvalue, however often that is repeated.

    It ends when the residual of the largest Ritz value theta, |H y - theta y| = beta |last entry of its eigenvector of
    T|, is at most `tolerance |theta|` and theta has grown by no more than that in the last `_STEADY` products, or when
    all directions are used. An eigenvalue lies that near to theta (Parlett, "The Symmetric Eigenvalue Problem", 4.5),
    and as a rule much nearer; the residual alone would also be content with a crowd of eigenvalues just below the
    largest, where theta rests before it goes on to grow.

    Args:
        product: v `(size,)` -> H v `(size,)`.
        iterations: most products. tolerance: relative error.

    Raises:
        ValueError: a product is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(size, generator=generator, dtype=torch.float64).to(device, dtype)
    vector = vector / vector.norm()
    most = min(iterations, size)
    basis = torch.empty(most, size, dtype=dtype, device=device)
    rounding = torch.finfo(dtype).eps
    alphas: list[float] = []
    betas: list[float] = []
    thetas: list[float] = []
    found = error = math.inf
    for k in range(most):
        basis[k] = vector
        vector = product(vector)
        alphas.append(float(basis[k] @ vector))
        if not math.isfinite(alphas[-1]):
            raise ValueError("a Hessian-vector product is not finite; use other rows or a smaller alpha")
        used = basis[: k + 1]
        for _ in range(2):
            vector = vector - used.T @ (used @ vector)
        beta = float(vector.norm())
        values, last = _ritz(alphas, betas)
        found, error = values[-1], beta * last
        scale = max(abs(values[0]), abs(found), beta)
        exhausted = k + 1 == size or beta <= _BREAKDOWN * rounding * scale
        small = max(tolerance * abs(found), rounding * scale)
        thetas.append(found)
        steady = k >= _STEADY and found - thetas[-1 - _STEADY] <= small
        if exhausted or (error <= small and steady):
            return Eigenvalue(found, error, k + 1, True)
        betas.append(beta)
        vector = vector / beta
    return Eigenvalue(found, error, most, False)


def _ritz(alphas: Sequence[float], betas: Sequence[float]) -> tuple[list[float], float]:
    """Eigenvalues of T, ascending, and the last entry's size in the eigenvector of the largest."""
    t = torch.diag(torch.tensor(alphas, dtype=torch.float64))
    if betas:
        off = torch.tensor(betas, dtype=torch.float64)
        t = t + torch.diag(off, 1) + torch.diag(off, -1)
    values, vectors = torch.linalg.eigh(t)
    return values.tolist(), abs(float(vectors[-1, -1]))


# -- Hessian-vector products -----------------------------------------------------------------------------------------


class BlockHessians:
    """Products with the diagonal blocks of the Hessian of one loss; all blocks share one forward pass.

    The gradient g of every block is formed once with its graph (`create_graph`), and the graph is kept. A product is
    one backward pass through it, `d(g_b . v) / d theta_b`, of which autograd runs only what lies between block b and
    the loss: nothing below its layer. That is the diagonal block, exactly, whatever other blocks share the graph.

    Cost of a product: two products with each weight matrix above the block (one back through the gradient's pass, one
    back through the forward pass), that is 4 floating-point operations per weight and token, twice the forward pass;
    and six times the forward pass of attention's scores and sums, both of whose factors depend on the block. Memory:
    everything that the two passes saved, from the lowest block upwards.

    Attention must be the plain one (`attn_implementation="eager"`): fused kernels have no second derivative on CPUs.

    Args:
        module: the adapted model, run in evaluation mode.
        blocks: name -> parameters, which require gradients.
        rows: the fixed batch. pad_id, micro_batch_tokens: as for training.
        memory: most bytes that the kept graph may take; three quarters of what is free unless given.

    Attributes:
        loss: nats per completion token. tokens: padded tokens in the batch. graph_bytes: of the kept graph.

    Raises:
        ValueError: the loss is not finite.
        OutOfMemory: the graph is larger than `memory`.
    """

    def __init__(
        self,
        module: nn.Module,
        blocks: Mapping[str, Sequence[nn.Parameter]],
        rows: Sequence[Row],
        *,
        pad_id: int,
        micro_batch_tokens: int = 4096,
        memory: int | None = None,
    ) -> None:
        self.blocks = {name: list(parameters) for name, parameters in blocks.items()}
        self.device = next(module.parameters()).device
        budget = int(_MEMORY_SHARE * available_bytes(self.device)) if memory is None else memory
        fixed = {tensor.untyped_storage()._cdata for tensor in [*module.parameters(), *module.buffers()]}
        self.loss, self.tokens, self.graph_bytes = 0.0, 0, 0
        saved: set[int] = set()
        # Block -> one list of gradients per micro-batch; their sum is the gradient.
        self._gradients: dict[str, list[list[Tensor]]] = {name: [] for name in self.blocks}

        def count(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in fixed and storage._cdata not in saved:
                saved.add(storage._cdata)
                self.graph_bytes += storage.nbytes()
                if self.graph_bytes > budget:
                    raise OutOfMemory(
                        f"the graph of {self.tokens} tokens is larger than the {budget / 1e9:.3g} GB there are for it; "
                        "use fewer tokens or higher layers"
                    )
            # Detached: the graph would otherwise hold itself.
            return tensor.detach()

        completion = sum(trained_tokens(row) for row in rows)
        parameters = [parameter for block in self.blocks.values() for parameter in block]
        try:
            with evaluating(module), torch.enable_grad():
                for group in micro_batches(rows, micro_batch_tokens):
                    batch = collate(group, pad_id).to(self.device)
                    self.tokens += batch.inputs["input_ids"].numel()
                    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
                        out = module(**batch.inputs, use_cache=False, logits_to_keep=batch.positions)
                        logits = out.logits.float().flatten(0, 1)  # (n k) x vocabulary
                        labels = batch.labels.flatten()
                        loss = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum") / completion
                        if not math.isfinite(float(loss.detach())):
                            raise ValueError(f"the loss is {float(loss.detach())}; use other rows or a smaller alpha")
                        gradients = torch.autograd.grad(
                            loss, parameters, create_graph=True, allow_unused=True, materialize_grads=True
                        )
                    self.loss += float(loss.detach())
                    self._share_out(gradients)
        except torch.OutOfMemoryError:
            raise OutOfMemory(
                f"the graph of {self.tokens} tokens does not fit the device's memory; use fewer tokens or higher layers"
            ) from None

    def _share_out(self, gradients: Sequence[Tensor]) -> None:
        at = 0
        for name, block in self.blocks.items():
            self._gradients[name].append(list(gradients[at : at + len(block)]))
            at += len(block)

    def size(self, name: str) -> int:
        """d of a block."""
        return sum(parameter.numel() for parameter in self.blocks[name])

    def product(self, name: str, vector: Tensor) -> Tensor:
        """H_b v for a block and v `(d,)`.

        Raises:
            OutOfMemory: on the device.
        """
        block = self.blocks[name]
        parts = [part.view_as(p) for part, p in zip(vector.split([p.numel() for p in block]), block, strict=True)]
        total = torch.zeros_like(vector)
        for gradients in self._gradients[name]:
            # A gradient that depends on no parameter has no derivative to take.
            pairs = [(g, part) for g, part in zip(gradients, parts, strict=True) if g.requires_grad]
            if not pairs:
                continue
            outputs, weights = zip(*pairs, strict=True)
            try:
                found = torch.autograd.grad(
                    outputs, block, weights, retain_graph=True, allow_unused=True, materialize_grads=True
                )
            except torch.OutOfMemoryError:
                raise OutOfMemory(
                    f"a product over {self.tokens} tokens does not fit the device's memory; use fewer tokens"
                ) from None
            total += torch.cat([part.flatten() for part in found])
        return total

    def largest(self, name: str, *, iterations: int = ITERATIONS, tolerance: float = TOLERANCE) -> Eigenvalue:
        """Algebraically largest eigenvalue of a block's Hessian; see `lanczos`."""
        return lanczos(
            lambda vector: self.product(name, vector),
            self.size(name),
            iterations=iterations,
            tolerance=tolerance,
            dtype=self.blocks[name][0].dtype,
            device=self.device,
        )


# -- which blocks, which rows ------------------------------------------------------------------------------------------


def layer_of(name: str) -> int | None:
    """Number of the layer in a module's name (`model.layers.3.self_attn.q_proj` -> 3); None where there is none."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def spread(count: int, many: int = 4) -> list[int]:
    """`many` layers at even distances over a depth of `count`, or all where there are no more."""
    if count <= many:
        return list(range(count))
    return [int((i + 0.5) * count / many) for i in range(many)]


def choose_blocks(
    matrices: Sequence[Matrix], layers: Sequence[int] | None = None, types: Sequence[str] | None = None
) -> list[Matrix]:
    """The matrices of some layers and types, in module order.

    Args:
        layers: numbers; four spread over the depth if None. types: such as `q_proj`; query matrices if None, or the
            first type where the model has none of that name.

    Raises:
        ValueError: `layers` or `types` names one that is not there; the message begins with that word.
    """
    numbered = {matrix.name: layer_of(matrix.name) for matrix in matrices}
    depth = sorted({layer for layer in numbered.values() if layer is not None})
    kinds = list(dict.fromkeys(matrix.kind for matrix in matrices))
    for layer in layers or ():
        if layer not in depth:
            raise ValueError(f"layers {layer}: no such layer; allowed: {depth[0]} to {depth[-1]}")
    for kind in types or ():
        if kind not in kinds:
            raise ValueError(f"types {kind}: no such matrix type; allowed: {', '.join(kinds)}")
    if types is None:
        types = ["q_proj"] if "q_proj" in kinds else kinds[:1]
    # Of the layers that have such a matrix: in some models only every so many-th has.
    held = sorted({at for m in matrices if m.kind in types and (at := numbered[m.name]) is not None})
    wanted = list(layers) if layers is not None else [held[i] for i in spread(len(held))]
    chosen = [m for m in matrices if m.kind in types and (numbered[m.name] in wanted or not held)]
    if not chosen:
        listed = ", ".join(str(layer) for layer in wanted)
        raise ValueError(f"layers {listed}: no {' or '.join(types)} there; allowed: {', '.join(map(str, held))}")
    return chosen


def fixed_batch(rows: Sequence[Row], tokens: int, seed: int) -> list[Row]:
    """The first rows in training order that together have at most `tokens` tokens, but at least one row."""
    order = next(global_batches(len(rows), len(rows), len(rows), seed))
    batch, total = [rows[order[0]]], length(rows[order[0]])
    for index in order[1:]:
        total += length(rows[index])
        if total > tokens:
            break
        batch.append(rows[index])
    return batch


def measurable() -> list[str]:
    """Names of the variants whose curvature compares with LoRA's."""
    return [name for name in available() if get_variant(name).trains_factors]


# -- a variant's curvature ---------------------------------------------------------------------------------------------


class Meter:
    """Measures variants, one after the other, on the same blocks and the same batch of one base model.

    A variant is attached to the blocks' matrices alone. For a start that computes what the base computes, all of them
    but `init_ab` with `plus`, the other matrices' adapters change nothing; `eva` shares its ranks out among fewer.

    Args:
        model: the base in fp32 with plain attention. It is given back unchanged after each variant.
        knobs: rank, `alpha` or `alpha_ratio`, batch size (of the first batch that some starts look at), and options.
        rows: the training rows. settings: as for trials.
        matrices: the blocks. tokens: most in the fixed batch, prompts included.
        iterations, tolerance: of Lanczos.
    """

    def __init__(
        self,
        model: nn.Module,
        knobs: Mapping[str, Any],
        rows: Sequence[Row],
        settings: TrainSettings,
        *,
        pad_id: int,
        matrices: Sequence[Matrix],
        tokens: int = TOKENS,
        iterations: int = ITERATIONS,
        tolerance: float = TOLERANCE,
    ) -> None:
        self.model, self.settings, self.pad_id = model, settings, pad_id
        self.knobs = {"learning_rate": 1e-4, **knobs, "dropout": 0.0}
        self.names = [matrix.name for matrix in matrices]
        self.iterations, self.tolerance = iterations, tolerance
        self.batch = fixed_batch(rows, tokens, settings.seed)
        size = min(int(knobs["batch_size"]), len(rows))
        self.first = [rows[i] for i in next(global_batches(len(rows), size, size, settings.seed))]
        device = next(model.parameters()).device
        self.start = labelled_batches(self.first, pad_id, settings.micro_batch_tokens, device)

    @contextmanager
    def attached(self, name: str) -> Iterator[BlockHessians]:
        """Within, the Hessians of a variant's blocks, where it gave a matrix any parameters; the base back after.

        Raises:
            ValueError: the variant trains no factors, cannot be attached at this rank, or its loss is not finite.
            OutOfMemory: the batch does not fit.
        """
        variant = get_variant(name)()
        if not variant.trains_factors:
            raise ValueError(f"it trains no factors of an update; allowed: {', '.join(measurable())}")
        config = adapter_config({**self.knobs, "variant": name}, self.settings, model=self.model)
        module = variant.attach(self.model, replace(config, placement=tuple(self.names)), self.start)
        try:
            yield BlockHessians(
                module,
                {matrix: block for matrix in self.names if (block := variant.block(matrix))},
                self.batch,
                pad_id=self.pad_id,
                micro_batch_tokens=self.settings.micro_batch_tokens,
            )
        finally:
            variant.detach()

    def largest(self, hessians: BlockHessians, matrix: str) -> Eigenvalue:
        """The eigenvalue of one of them, with the meter's iterations and tolerance."""
        return hessians.largest(matrix, iterations=self.iterations, tolerance=self.tolerance)


def product_seconds(hessians: BlockHessians, name: str) -> float:
    """How long one product with a block takes, the first one, which is slower, left out."""
    vector = torch.ones(hessians.size(name), device=hessians.device, dtype=hessians.blocks[name][0].dtype)
    for _ in range(2):
        started = time.perf_counter()
        # To the host: a device's work is done only then.
        float(hessians.product(name, vector)[0])
    return time.perf_counter() - started
