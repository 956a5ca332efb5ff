"""A model that shares another's weights and nothing else."""

from __future__ import annotations

import copy

from torch import nn


def twin(model: nn.Module) -> nn.Module:
    """A copy of the model's modules and configuration over the same weight storage.

    What is attached to a twin, and `parameter.data` that is given to one of its parameters, is not seen by the model or
    by other twins. Parameters of a class of their own (quantised ones) are shared as they are.
    """
    memo: dict[int, object] = {
        id(p): nn.Parameter(p.data, requires_grad=False) if type(p) is nn.Parameter else p for p in model.parameters()
    }
    memo |= {id(buffer): buffer for buffer in model.buffers()}
    return copy.deepcopy(model, memo)
