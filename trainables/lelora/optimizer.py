"""AdamW on the slice that is trained now; the rest keeps its values and its moments."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from trainables.lelora.slices import SlicedLinear


class SliceAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101) on rows [start, stop) of each T, as `layer.active` says.

        m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2
        T <- (1 - lr decay) T - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

    t counts each triplet's own steps. A triplet that is not trained now takes no step, not even from its moments or by
    weight decay, and finds its moments as it left them when its turn comes again. State is of the size of T, and is
    made when a matrix is trained for the first time.

    Args:
        groups: parameter groups; learning rate and weight decay are read from them.
        layers: the owners of the parameters.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        layers: Sequence[SlicedLinear],
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(groups, {"lr": 1e-3, "betas": betas, "eps": eps, "weight_decay": 0.0})
        self._layers = {id(layer.triplets): layer for layer in layers}

    @torch.no_grad()
    def step(self, closure: object = None) -> None:
        """One step from the gradients that are there; a closure is not called."""
        for group in self.param_groups:
            for parameter in group["params"]:
                start, stop = self._layers[id(parameter)].active
                if parameter.grad is not None and stop > start:
                    self._move(parameter, group, start, stop)

    def _move(self, parameter: Tensor, group: dict[str, Any], start: int, stop: int) -> None:
        state = self.state[parameter]
        if not state:
            state["first"] = torch.zeros_like(parameter)
            state["second"] = torch.zeros_like(parameter)
            # On the CPU: bias corrections are a few scalars per row.
            state["steps"] = torch.zeros(len(parameter), dtype=torch.float32, device="cpu")
        (b1, b2), lr = group["betas"], group["lr"]
        rows, grad = parameter[start:stop], parameter.grad[start:stop]
        first, second = state["first"][start:stop], state["second"][start:stop]
        state["steps"] = state["steps"].cpu()  # loading a checkpoint moves it to the parameter's device
        steps = state["steps"][start:stop]
        steps += 1
        first.lerp_(grad, 1 - b1)
        second.mul_(b2).addcmul_(grad, grad, value=1 - b2)
        if group["weight_decay"]:
            rows.mul_(1 - lr * group["weight_decay"])
        counts = [int(count) for count in steps.tolist()]
        low = 0
        # Rows that have taken equally many steps go together; in one slice there are few different counts.
        while low < len(counts):
            high = low + 1
            while high < len(counts) and counts[high] == counts[low]:
                high += 1
            root = second[low:high].sqrt().div_(math.sqrt(1 - b2 ** counts[low])).add_(group["eps"])
            rows[low:high].addcdiv_(first[low:high], root, value=-lr / (1 - b1 ** counts[low]))
            low = high
