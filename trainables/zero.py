"""DeepSpeed's ZeRO around a variant's own optimizer.

Stage 1 partitions the optimizer's state, stage 2 the gradients too, stage 3 all parameters as well, the frozen base
model's among them. No stage needs a compiler: the optimizer is PyTorch's, and DeepSpeed's operators stay unbuilt.

Rajbhandari et al., ZeRO: Memory Optimizations Toward Training Trillion Parameter Models, arXiv 1910.02054.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.lockstep import in_step
from trainables.workers import Workers, failing


class Zero(Workers):
    """A DeepSpeed engine. Where the base model is in bf16 the adapter is too, with a copy in fp32 that the steps move.

    Args:
        config: of DeepSpeed. What a trial decides itself (batches, clipping, types, optimizer) is replaced.
        max_grad_norm: 0 for no clipping.

    Raises:
        ValueError: DeepSpeed is not installed.
    """

    def __init__(self, config: Mapping[str, Any], max_grad_norm: float) -> None:
        super().__init__()
        _import_deepspeed()
        self._given, self._max_grad_norm = dict(config), max_grad_norm
        self.stage = int(self._given.get("zero_optimization", {}).get("stage", 0))
        self._engine: Any = None
        self._optimizer: Any = None
        self._parameters: list[nn.Parameter] = []
        self._sizes: list[int] = []  # parameters of each group

    @classmethod
    def from_file(cls, file: str | Path, max_grad_norm: float) -> Zero:
        """With the configuration of a JSON file."""
        return cls(json.loads(Path(file).read_text(encoding="utf-8")), max_grad_norm)

    # ---- training -------------------------------------------------------------------------------------

    def prepare(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, added: Sequence[nn.Parameter] = ()
    ) -> tuple[Any, Any]:
        import deepspeed

        self._optimizer = optimizer
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._sizes = [len(group["params"]) for group in optimizer.param_groups]
        rates = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = 0.0  # DeepSpeed makes the optimizer's state by a step of it
        self._engine, wrapped, _, _ = deepspeed.initialize(
            model=module, optimizer=optimizer, config=self._config(module), dist_init_required=False
        )
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        if optimizer.state:
            _make_state(optimizer)
        return self._engine, wrapped

    def _config(self, module: nn.Module) -> dict[str, Any]:
        half = any(parameter.dtype == torch.bfloat16 for parameter in module.parameters())
        return self._given | {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": self._max_grad_norm,
            "bf16": {"enabled": half} | ({"check_grad_overflow": True} if half else {}),
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        }

    def accumulating(self, module: Any, last: bool) -> contextlib.AbstractContextManager[object]:
        module.set_gradient_accumulation_boundary(last)
        return contextlib.nullcontext()

    def backward(self, module: Any, loss: Tensor) -> None:
        module.backward(loss)

    def step(self, optimizer: Any, parameters: object, max_grad_norm: float) -> bool:
        if self._engine.optimizer is self._optimizer:
            return super().step(optimizer, self._parameters, max_grad_norm)
        self._engine.step()
        return not optimizer.overflow

    # ---- what is partitioned --------------------------------------------------------------------------

    def release(self) -> None:
        engine, self._engine, self._optimizer, self._parameters = self._engine, None, None, []
        if engine is None or failing():
            return
        frozen = [p for p in engine.module.parameters() if hasattr(p, "ds_id") and not p.requires_grad]
        wholes = [self._gathered(parameter) for parameter in frozen]
        engine.destroy()
        for parameter, value in zip(frozen, wholes, strict=True):
            # Else it would still be taken for a partitioned one.
            vars(parameter).clear()
            parameter.data = value

    @staticmethod
    def _gathered(parameter: nn.Parameter) -> Tensor:
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter]):
            return parameter.data.clone()

    @contextlib.contextmanager
    def whole(self, module: nn.Module) -> Iterator[None]:
        if self.stage < 3 or self._engine is None:
            yield
            return
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(module.parameters())):
            yield

    @contextlib.contextmanager
    def serving(self, module: nn.Module) -> Iterator[None]:
        if self.stage < 3 or self._engine is None:
            yield
            return
        with in_step(self, module, self.device(module)):
            yield

    # ---- checkpoints ----------------------------------------------------------------------------------

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        own = self._optimizer
        if optimizer is own:
            return own.state_dict()
        from deepspeed.utils import safe_get_full_optimizer_state

        held = next(iter(own.state.values()))
        numbers = {key: value for key, value in held.items() if not _is_per_parameter(value)}
        state = {
            place: {key: value.clone() if isinstance(value, Tensor) else value for key, value in numbers.items()}
            | {
                key: safe_get_full_optimizer_state(parameter, key).detach().cpu().clone()
                for key in held.keys() - numbers.keys()
            }
            for place, parameter in enumerate(self._parameters)
        }
        places = iter(range(len(self._parameters)))
        groups = [
            {key: value for key, value in group.items() if key != "params"}
            | {"params": [next(places) for _ in range(size)]}
            for group, size in zip(own.param_groups, self._sizes, strict=True)
        ]
        return {"state": state, "param_groups": groups}

    def _link(self, optimizer: Any) -> None:
        """Make the optimizer's state and tell the parameters where it is, which DeepSpeed does at the first step."""
        if self.stage == 3:
            optimizer._set_fp32_optimizer_param_groups()
            _make_state(self._optimizer)
            optimizer._clear_fp32_optimizer_param_groups()
            return
        _make_state(self._optimizer)
        optimizer._lazy_init_hp_params_optimizer_state()

    def _write(self, optimizer: Any, parameter: nn.Parameter, value: Tensor, key: str | None = None) -> None:
        """Set a parameter's copy in fp32, or its state of that key, from the whole value."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        if self.stage == 3:
            # DeepSpeed's own function takes no sizes that the workers do not divide.
            part, _ = optimizer._get_fp32_opt_state_partition(parameter, False, key)
            padded = F.pad(value.flatten(), (0, part.numel() * self.world - value.numel()))
            part.data.copy_(padded[part.numel() * self.rank :][: part.numel()])
        elif key is None:
            safe_set_full_fp32_param(parameter, value)
        else:
            safe_set_full_optimizer_state(parameter, value, key)

    def load_state(self, optimizer: Any, state: dict[str, Any], load: Callable[[], None]) -> None:
        own = self._optimizer
        if optimizer is own:
            super().load_state(optimizer, state, load)
            return
        import deepspeed

        self._link(optimizer)
        with deepspeed.zero.GatheredParameters(self._parameters, modifier_rank=0, enabled=self.stage == 3):
            load()
            values = [parameter.data.float().clone() for parameter in self._parameters]
        for place, (parameter, value) in enumerate(zip(self._parameters, values, strict=True)):
            self._write(optimizer, parameter, value)
            for key, saved in state["state"][place].items():
                if _is_per_parameter(saved):
                    self._write(optimizer, parameter, saved.to(value.device), key)
        numbers = {key: saved for key, saved in state["state"][0].items() if not _is_per_parameter(saved)}
        for held in own.state.values():
            for key, saved in numbers.items():
                held[key] = saved.clone() if isinstance(saved, Tensor) else saved
        for group, kept in zip(own.param_groups, state["param_groups"], strict=True):
            group.update({key: saved for key, saved in kept.items() if key != "params"})


def _make_state(optimizer: torch.optim.Optimizer) -> None:
    """As a first step would make it, with nothing moved: zeros."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not optimizer.state:
        rates = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        before = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        for parameter, gradient in zip(parameters, before, strict=True):
            parameter.grad = gradient
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, Tensor):
                value.zero_()


def _is_per_parameter(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0


def _import_deepspeed() -> None:
    """With the accelerator that this process has, and without what would need a compiler."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        import deepspeed.ops
    except ImportError:
        raise ValueError("resources.strategy: deepspeed is not installed; pip install 'raylora[deepspeed]'") from None
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # An operator that speeds up messages between CPUs; torch's own are used.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
