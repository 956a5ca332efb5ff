"""AdaLoRA: ranks that move to where they matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trainables.variants.core.base import Variant
from trainables.variants.core.config import AdapterConfig, Batches
from trainables.variants.core.export import ADAPTER, peft_number
from trainables.variants.core.matrices import Matrix
from trainables.variants.core.options import check_number
from trainables.variants.core.peft_variant import PeftVariant
from trainables.variants.core.plain import PlainLora

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import Tensor, nn


class AdaLora(PeftVariant):
    """W = W0 + s P diag(e) Q, P `(m, q)`, e `(q,)`, Q `(q, n)`; of q = ceil(1.5 r) triplets per matrix r stay.

    r is the mean over the matrices: one may keep all, another none.

    Zhang et al., AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning, arXiv 2303.10512. A
    triplet's importance is that of its e plus the mean over its column of P and its row of Q, each the
    product of smoothed sensitivity |w dL/dw| and smoothed uncertainty (equations 8 to 11; `beta1`, `beta2`).
    The budget stays for `warmup` of the run's steps, falls with the cube of the time (equation 12), and is r
    per matrix for the last `final` of the run; e of the least important triplets is zeroed every `interval`
    steps. The extra loss is `orthogonality` times the mean of ||P^T P - I|| and ||Q Q^T - I||, Frobenius norms,
    as in PEFT and the authors' code.

    The defaults are the paper's (appendix, GLUE): warm-up, final phase and interval there are counts of steps,
    about 0.12, 0.5 and 0.001 of the run for the middle task. s = alpha / q, PEFT's.

    PEFT does scoring and pruning in one call, which needs gradients after the optimizer has moved. Here they
    stand as in the paper's algorithm 1: scores from the gradients at the weights they were taken at, pruning
    after the step. And the first step counts as 1, so that a run without a final phase is pruned at its end
    too.

    Exported as plain LoRA A' = Q, B' = P diag(e) without the pruned triplets, once the final phase began.
    """

    name = "adalora"
    summary = "singular triplets, the least important of which are pruned while training"
    paper = "arXiv 2303.10512"
    parameters = "ceil(1.5 r) (m + n + 1)"
    shares_pass = "layer"
    step_time = 1.02
    rank_limited = False
    runs_on = frozenset({"hosted", "ddp", "fsdp"})
    not_elsewhere = "its scores read whole gradients, which DeepSpeed takes away"
    options = {"warmup": 0.12, "final": 0.5, "interval": 0.001, "orthogonality": 0.1, "beta1": 0.85, "beta2": 0.85}

    @classmethod
    def check_options(cls, config: AdapterConfig, matrices: Sequence[Matrix]) -> None:
        for name in ("warmup", "final", "interval"):
            check_number(cls, config, name, lambda value: 0 <= value < 1, "use a share of the steps, from 0 up to 1")
        check_number(cls, config, "orthogonality", lambda value: value >= 0, "use 0 or a number above 0")
        for name in ("beta1", "beta2"):
            check_number(cls, config, name, lambda value: 0 < value < 1, "use a number between 0 and 1")

    def peft_config(self, targets: list[str]) -> PeftConfig:
        from peft import AdaLoraConfig

        config = self.config
        warmup, self._last = schedule(config.steps, self.option("warmup"), self.option("final"))
        return AdaLoraConfig(
            init_r=first_rank(config.rank),
            target_r=config.rank,
            tinit=warmup,
            tfinal=config.steps - self._last,
            deltaT=max(1, round(self.option("interval") * config.steps)),
            beta1=self.option("beta1"),
            beta2=self.option("beta2"),
            orth_reg_weight=self.option("orthogonality"),
            total_step=config.steps,
            lora_alpha=peft_number(config.alpha),
            lora_dropout=config.dropout,
            target_modules=targets,
            fan_in_fan_out=any(matrix.transposed for matrix in self.matrices),
        )

    def build(self, model: nn.Module, batches: Batches | None) -> nn.Module:
        module = super().build(model, batches)
        self._kept = {
            matrix.name: torch.ones(first_rank(self.config.rank), dtype=torch.bool, device=matrix.device)
            for matrix in self.matrices
        }
        allocator = self._allocator
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                for scores in (allocator.ipt, allocator.exp_avg_ipt, allocator.exp_avg_unc):
                    scores[name] = torch.zeros_like(parameter, requires_grad=False)
        return module

    @property
    def _allocator(self) -> Any:  # PEFT's RankAllocator
        return self.tuner.rankallocator

    def extra_loss(self) -> Tensor:
        norms = []
        for matrix in self.matrices:
            layer = self.layer(matrix.name)
            q, p = layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]
            eye = torch.eye(len(q), device=q.device)
            norms += [torch.linalg.norm(q @ q.T - eye), torch.linalg.norm(p.T @ p - eye)]
        return self.option("orthogonality") * torch.stack(norms).mean()

    def after_backward(self, step: int) -> None:
        if step + 1 <= self._last:
            self._allocator.update_ipt(self.module)

    def after_step(self, step: int) -> None:
        if step + 1 <= self._last:
            budget, due = self._allocator.budget_schedule(step + 1)
            if due or step + 1 == self._last:
                pattern = self._allocator.mask_to_budget(self.module, budget)
                if step + 1 == self._last:
                    for name, kept in self._kept.items():
                        kept.copy_(torch.tensor(pattern[f"{name}.lora_E.{ADAPTER}"]))
        else:
            # The optimizer's momentum moves pruned triplets again.
            with torch.no_grad():
                for name, kept in self._kept.items():
                    self.layer(name).lora_E[ADAPTER].masked_fill_(~kept[:, None], 0.0)

    def _extra_state(self) -> dict[str, Tensor]:
        """What pruning remembers, live: scores `(as the parameter)`, and the triplets kept `(q,)`."""
        allocator = self._allocator
        return {
            **{f"{name}.sensitivity": tensor for name, tensor in allocator.exp_avg_ipt.items()},
            **{f"{name}.uncertainty": tensor for name, tensor in allocator.exp_avg_unc.items()},
            **{f"{name}.kept": tensor for name, tensor in self._kept.items()},
        }

    def state(self) -> dict[str, Tensor]:
        state = super().state()  # first: it says so where nothing is attached
        return state | {name: tensor.cpu().clone() for name, tensor in self._extra_state().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.check_state(state, {name: tensor.shape for name, tensor in self.state().items()})
        extra = self._extra_state()
        super().load_state({name: tensor for name, tensor in state.items() if name not in extra})
        for name, tensor in extra.items():
            tensor.copy_(state[name])

    def to_lora(self) -> PlainLora:
        factors, scales = {}, {}
        for matrix in self.matrices:
            kept = self._kept[matrix.name].cpu()
            if not kept.any():
                continue
            layer = self.layer(matrix.name)
            parts = (layer.lora_A[ADAPTER], layer.lora_E[ADAPTER], layer.lora_B[ADAPTER])
            q, e, p = (part.detach().cpu().float() for part in parts)
            factors[matrix.name] = q[kept].clone(), (p * e.T)[:, kept].clone()
            scales[matrix.name] = layer.scaling[ADAPTER] / (float(layer.ranknum[ADAPTER]) + 1e-5)
        return PlainLora(factors, scales)

    def save_adapter(self, folder: Path, base_model: str) -> Path:
        # Plain LoRA rather than PEFT's own form: more tools serve it.
        return Variant.save_adapter(self, folder, base_model)

    @classmethod
    def matrix_parameters(cls, rows: int, columns: int, rank: int) -> int:
        return first_rank(rank) * (rows + columns + 1)


def first_rank(rank: int) -> int:
    """q: triplets per matrix at the start, one and a half times those at the end (section 4.1)."""
    return -(-3 * rank // 2)


def schedule(steps: int, warmup: float, final: float) -> tuple[int, int]:
    """Steps of the warm-up, and the step (from 1) at which the budget reaches its end; the former is smaller."""
    last = max(1, steps - round(final * steps))
    return min(round(warmup * steps), last - 1), last
