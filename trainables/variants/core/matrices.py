"""Which weight matrices of a model an adapter is placed on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import nn

from trainables.errors import OptionError
from trainables.quantization import QuantizedLinear


@dataclass(frozen=True)
class Matrix:
    """One weight matrix W of shape (rows m, columns n) = (outputs, inputs), however it is stored.

    GPT-2's `Conv1D` stores W transposed; `oriented` hides that.
    """

    name: str
    module: nn.Module
    rows: int
    columns: int
    transposed: bool

    @property
    def weight(self) -> nn.Parameter:
        """The parameter as stored: (m, n), or (n, m) when `transposed`; of a quantised matrix a copy, made anew."""
        return self.module.weight

    @property
    def device(self) -> torch.device:
        """Where the matrix lies."""
        return next(chain(self.module.parameters(), self.module.buffers())).device

    @property
    def dtype(self) -> torch.dtype:
        """Of `weight`."""
        return self.weight.dtype if self.quantized is None else self.quantized.dtype

    @property
    def quantized(self) -> QuantizedLinear | None:
        """The module, where its weight is quantised."""
        return self.module if isinstance(self.module, QuantizedLinear) else None

    @property
    def kind(self) -> str:
        """The matrix type: the last part of the name, e.g. `q_proj`."""
        return self.name.rpartition(".")[2]

    def oriented(self, tensor: torch.Tensor) -> torch.Tensor:
        """Turns a tensor from the stored layout to (m, n), or back: the same transposition (a view)."""
        return tensor.T if self.transposed else tensor


def as_matrix(name: str, module: nn.Module) -> Matrix | None:
    """The module as a `Matrix`, or None when it is neither an `nn.Linear` nor a transformers `Conv1D`."""
    if isinstance(module, nn.Linear):
        return Matrix(name, module, module.out_features, module.in_features, transposed=False)
    # Told by its name: importing transformers for one isinstance would cost seconds where nobody needs it.
    if type(module).__name__ == "Conv1D" and getattr(module, "weight", None) is not None and module.weight.ndim == 2:
        columns, rows = module.weight.shape
        return Matrix(name, module, rows, columns, transposed=True)
    return None


def find_matrices(model: nn.Module) -> list[Matrix]:
    """Every linear matrix of the model except those of its head, in module order."""
    get_head = getattr(model, "get_output_embeddings", None)
    head = get_head() if callable(get_head) else None
    outside = {part for name in head_modules(model) for part in model.get_submodule(name).modules()} | {head}
    found = (as_matrix(name, module) for name, module in model.named_modules() if module not in outside)
    return [matrix for matrix in found if matrix is not None and matrix.kind != "lm_head"]


def head_modules(model: Any) -> list[str]:
    """Names of what a sequence classifier has over its base model, with a pooler inside that one; else none."""
    if not type(model).__name__.endswith("ForSequenceClassification"):
        return []
    prefix = model.base_model_prefix
    names = [name for name, module in model.named_children() if name != prefix and _has_weights(module)]
    pooler = getattr(getattr(model, prefix, None), "pooler", None)
    return [*names, f"{prefix}.pooler"] if pooler is not None and _has_weights(pooler) else names


def _has_weights(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def select_matrices(model: nn.Module, placement: str | Iterable[str]) -> list[Matrix]:
    """The matrices named by a placement, in module order.

    Args:
        model: a model that carries no adapter.
        placement: `"all-linear"`, or names: a matrix type (`q_proj`), an ending of module names
            (`self_attn.q_proj`), or a whole module name (`model.layers.0.self_attn.q_proj`).

    Raises:
        ValueError: a name matches nothing, or a matched weight is tied to another module's.
    """
    matrices = find_matrices(model)
    kinds = sorted({matrix.kind for matrix in matrices})
    if not matrices:
        raise OptionError(
            "placement: the model has no linear matrix to adapt; use a model with nn.Linear layers",
            field="placement",
            value=placement,
        )
    if placement == "all-linear":
        chosen = matrices
    else:
        wanted = [placement] if isinstance(placement, str) else list(placement)
        if not wanted:
            raise OptionError(
                f"placement is empty: use 'all-linear' or some of {', '.join(kinds)}",
                field="placement",
                value=wanted,
                allowed=kinds,
            )
        names: set[str] = set()
        for want in wanted:
            hits = {m.name for m in matrices if m.name == want or m.name.endswith(f".{want}")}
            if not hits:
                raise OptionError(
                    f"placement {want!r} matches no matrix: use 'all-linear' or some of {', '.join(kinds)}",
                    field="placement",
                    value=want,
                    allowed=kinds,
                )
            names |= hits
        chosen = [matrix for matrix in matrices if matrix.name in names]
    _refuse_tied(model, chosen)
    return chosen


def _refuse_tied(model: nn.Module, matrices: list[Matrix]) -> None:
    """An adapter on one of two modules that share a weight would change, or rewrite, only one of them."""
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    for matrix in matrices:
        if matrix.quantized is None and len(owners.get(id(matrix.weight), ())) > 1:
            shared = " and ".join(owners[id(matrix.weight)])
            raise OptionError(
                f"placement: {matrix.name} shares its weight ({shared}); leave it out of the placement",
                field="placement",
                value=matrix.name,
            )


def compact_names(model: nn.Module, names: Iterable[str]) -> list[str]:
    """The shortest list that selects exactly these modules by ending: types if that is exact, else names.

    Raises nothing; returns a sorted list, so that files written from it are the same in every process.
    """
    wanted = set(names)
    kinds = {name.rpartition(".")[2] for name in wanted}
    selected = {name for name, _ in model.named_modules() if name.rpartition(".")[2] in kinds}
    return sorted(kinds) if selected == wanted else sorted(wanted)
