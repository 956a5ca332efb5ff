"""Variants that run in PEFT's layers, and the two kinds of start that the first five share."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trainables.variants.core.base import Variant, as_type
from trainables.variants.core.config import Batches
from trainables.variants.core.export import ADAPTER, peft_number, save_native
from trainables.variants.core.layers import TakenLinear
from trainables.variants.core.matrices import Matrix, compact_names
from trainables.variants.core.plain import PlainLora
from trainables.variants.core.shared import LoraPart

if TYPE_CHECKING:
    from peft import PeftConfig
    from peft.tuners.tuners_utils import BaseTuner


class PeftVariant(Variant):
    """A variant whose layers are PEFT's, put into the base model itself: the base stays the module to call.

    Adapter weights are in the configuration's type, fp32 unless it says otherwise, whatever the base's is; sums come
    back in the base's.
    """

    tuner: BaseTuner

    def peft_config(self, targets: list[str]) -> PeftConfig:
        """PEFT's configuration: LoRA, unless overridden; `targets` become its `target_modules`."""
        from peft import LoraConfig

        config = self.config
        settings: dict[str, object] = {
            "r": config.rank,
            "lora_alpha": peft_number(config.alpha),
            "lora_dropout": config.dropout,
            "target_modules": targets,
            "fan_in_fan_out": any(matrix.transposed for matrix in self.matrices),
        }
        return LoraConfig(**(settings | self.lora_settings()))

    def lora_settings(self) -> dict[str, object]:
        """What differs from PEFT's plain LoRA, as arguments of `LoraConfig`."""
        return {}

    def build(self, model: nn.Module, batches: Batches | None) -> nn.Module:
        from peft import PEFT_TYPE_TO_TUNER_MAPPING

        config = self.peft_config(compact_names(model, [matrix.name for matrix in self.matrices]))
        with warnings.catch_warnings():
            # PEFT warns of fan_in_fan_out where types of layers are mixed, and then does it right.
            warnings.simplefilter("ignore")
            self.tuner = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](model, config, ADAPTER)
        self.tuner._cast_adapter_dtype(ADAPTER, autocast_adapter_dtype=True)
        as_type(model, self.config.dtype)
        self.initialise()
        return model

    def initialise(self) -> None:
        """Sets the adapter's first values where they are not PEFT's; the layers are in place and fp32."""

    def layer(self, name: str) -> Any:
        """PEFT's layer on the matrix of that name."""
        return self.module.get_submodule(name)

    def factors(self, name: str) -> tuple[nn.Parameter, nn.Parameter]:
        """The live A `(r, n)` and B `(m, r)` of one matrix."""
        layer = self.layer(name)
        return layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight

    def scale(self, name: str) -> float:
        """s of one matrix, as PEFT computes it."""
        return self.layer(name).scaling[ADAPTER]

    def lora_part(self, name: str) -> LoraPart | None:
        if not self.matrix_rank(name):
            return None
        return LoraPart(*self.factors(name), self.scale(name), self.config.dropout)

    def to_lora(self) -> PlainLora | None:
        factors = {}
        for matrix in self.matrices:
            if self.matrix_rank(matrix.name):
                a, b = self.factors(matrix.name)
                factors[matrix.name] = (_cpu(a), _cpu(b))
        return PlainLora(factors, {name: self.scale(name) for name in factors})

    def save_adapter(self, folder: Path, base_model: str) -> Path:
        return save_native(self.module, self.tuner.peft_config[ADAPTER], folder, base_model)

    @classmethod
    def matrix_parameters(cls, rows: int, columns: int, rank: int) -> int:
        return rank * (rows + columns)


class RewritingVariant(PeftVariant):
    """Starts from given factors A0, B0 and takes their product out of the base: W_res = W0 - s B0 A0, frozen.

    Of a quantised base W0 is what it computes with, and W_res is not quantised again.

    The sum W_res + s B0 A0 is W0 again: to fp32 rounding for an fp32 base. Over a bf16 base W_res is rounded
    to bf16 once, so an attachment starts half a unit in the last place of each weight away from the
    pretrained function, and what it learns is exported against the unrounded W0 - s B0 A0.

    The factors are computed here in fp32, not by PEFT's initialisers: those round the factors, but not their
    product in the residual, to the base's type, and OLoRA's fails on GPT-2's transposed matrices.
    """

    def lora_settings(self) -> dict[str, object]:
        return {"init_lora_weights": False}

    @abstractmethod
    def start(self, weight: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        """A0 `(r, n)` and B0 `(m, r)`, fp32, for a matrix W0 `(m, n)` in the base's type, on its device."""

    def start_matrix(self, matrix: Matrix, weight: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        """As `start`, for those that have to know which matrix it is."""
        return self.start(weight, scale)

    def original(self, matrix: Matrix) -> torch.Tensor:
        """W0 `(m, n)`, not to be written to.

        Raises:
            ValueError: it is quantised.
        """
        weight = matrix.oriented(self.snapshot.original(matrix.weight))
        if not weight.dtype.is_floating_point:
            raise ValueError(
                f"variant {self.name} rewrites {matrix.name}, which is stored as {weight.dtype}: "
                "use a floating-point base or the variant lora"
            )
        return weight

    def initialise(self) -> None:
        self.initial: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        with torch.no_grad():
            for matrix in self.matrices:
                a0, b0 = self.start_matrix(matrix, self.original(matrix), self.scale(matrix.name))
                for parameter, value in zip(self.factors(matrix.name), (a0, b0), strict=True):
                    parameter.copy_(value)
                # As they are in the adapter's type: what is taken out is what is trained on.
                self.take_out(matrix, *map(_cpu, self.factors(matrix.name)))

    def take_out(self, matrix: Matrix, a0: torch.Tensor, b0: torch.Tensor) -> None:
        """Remembers the factors and makes the base weight the residual of the *original* without them.

        Where the base is shared it stays as it is, and `lora_part` has the factors that were taken out. A quantised one
        stays as it is, too, and the factors are taken out of its product.
        """
        self.initial[matrix.name] = (a0, b0)
        if self.surroundings.shared:
            return
        if matrix.quantized is not None:
            self.layer(matrix.name).base_layer = TakenLinear(matrix, a0, b0, self.scale(matrix.name))
            return
        original = self.snapshot.original(matrix.weight)
        device, weight = original.device, matrix.oriented(original).float()
        residual = torch.addmm(weight, b0.to(device), a0.to(device), alpha=-self.scale(matrix.name))
        self.snapshot.rewrite(matrix.weight, matrix.oriented(residual).to(original.dtype).contiguous())

    def lora_part(self, name: str) -> LoraPart | None:
        part = super().lora_part(name)
        assert part is not None
        a0, b0 = (factor.to(part.a.device) for factor in self.initial[name])
        return replace(part, taken=(a0, b0))

    def start_state(self) -> dict[str, torch.Tensor]:
        """What the residuals are made from, live."""
        return name_factors("initial", self.initial)

    def state(self) -> dict[str, torch.Tensor]:
        state = super().state()  # first: it says so where nothing is attached
        return state | {name: tensor.cpu().clone() for name, tensor in self.start_state().items()}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """As the contract says.

        The residual is made anew from the saved factors, which another machine's decomposition might not reproduce to
        the bit.
        """
        starts = self.start_state()
        self.check_state(state, {name: tensor.shape for name, tensor in self.state().items()})
        super().load_state({name: tensor for name, tensor in state.items() if name not in starts})
        with torch.no_grad():
            for matrix in self.matrices:
                a0, b0 = (_cpu(state[f"{matrix.name}.initial_{factor}"]) for factor in "AB")
                self.take_out(matrix, a0, b0)

    def to_lora(self) -> PlainLora | None:
        """W0 + s (B A - B0 A0) as one LoRA of rank 2r: A' = [A; -A0], B' = [B, B0], the same scale."""
        live = super().to_lora()
        assert live is not None
        doubled = {}
        for name, (a, b) in live.factors.items():
            a0, b0 = self.initial[name]
            doubled[name] = (torch.cat([a, -a0], dim=0), torch.cat([b, b0], dim=1))
        return PlainLora(doubled, live.scales)

    def save_adapter(self, folder: Path, base_model: str) -> Path:
        # Not PEFT's own form: that one holds only next to the rewritten base.
        return Variant.save_adapter(self, folder, base_model)


def name_factors(what: str, pairs: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """A and B of each matrix under names of their own, `<matrix>.<what>_A` and `_B`."""
    return {f"{name}.{what}_{f}": part for name, pair in pairs.items() for f, part in zip("AB", pair, strict=True)}


def _cpu(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True)
