"""Variants that train one factor of the pair and keep the other as it started."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn

from trainables.variants.core.peft_variant import PeftVariant


class OneFactor(PeftVariant):
    """LoRA with one factor frozen. The frozen one is saved too: another machine may not make it the same.

    Class attributes:
        frozen: "A" or "B".
    """

    frozen: ClassVar[str]

    @abstractmethod
    def start(self, weight: torch.Tensor, a: nn.Parameter, b: nn.Parameter) -> None:
        """Sets A `(r, n)` and B `(m, r)`, fp32, for a matrix W0 `(m, n)` in the base's type."""

    def initialise(self) -> None:
        with torch.no_grad():
            for matrix in self.matrices:
                self.start(matrix.oriented(matrix.weight), *self.factors(matrix.name))
                self._kept(matrix.name).requires_grad_(False)

    def _kept(self, name: str) -> nn.Parameter:
        a, b = self.factors(name)
        return a if self.frozen == "A" else b

    def state(self) -> dict[str, torch.Tensor]:
        kept = {self._key(m.name): self._kept(m.name).detach().cpu().clone() for m in self.matrices}
        return super().state() | kept

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        self.check_state(state, {name: tensor.shape for name, tensor in self.state().items()})
        kept = {self._key(matrix.name): self._kept(matrix.name) for matrix in self.matrices}
        super().load_state({name: tensor for name, tensor in state.items() if name not in kept})
        with torch.no_grad():
            for name, parameter in kept.items():
                parameter.copy_(state[name])

    def _key(self, name: str) -> str:
        return f"{name}.frozen_{self.frozen}"
