"""The contract that every LoRA variant fulfils.

Notation, used in all files of this package: a base matrix W0 is (m, n) = (outputs, inputs); A is (r, n); B is
(m, r); s is the scale, alpha / r unless a variant says otherwise; an adapted matrix computes (W0 + s B A) x.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import nn

from trainables.errors import OptionError
from trainables.variants.core.config import AdapterConfig, Batches, Surroundings
from trainables.variants.core.costs import Benchmark, Costs
from trainables.variants.core.declared import Declared, why_not_over
from trainables.variants.core.exported import Exported
from trainables.variants.core.matrices import Matrix, select_matrices
from trainables.variants.core.shared import LoraPart
from trainables.variants.core.snapshot import Snapshot, seeded


@dataclass(frozen=True)
class _Attachment:
    base: nn.Module
    module: nn.Module
    snapshot: Snapshot
    config: AdapterConfig
    surroundings: Surroundings


def as_type(module: nn.Module, dtype: torch.dtype) -> None:
    """Keeps what is trained of a module in that type."""
    for parameter in module.parameters():
        if parameter.requires_grad and parameter.dtype != dtype:
            parameter.data = parameter.data.to(dtype)


class Variant(Exported):
    """One way of adapting a model; one instance is one attachment.

    The life of an instance: `attach`, then for each step `before_step`, forward and loss (plus `extra_loss`),
    backward, `after_backward`, the optimizer's step, `after_step`; `state` and `load_state` whenever wanted;
    `detach`. `attach` freezes the base; only what `build` adds, or sets free, is trained.

    A subclass writes `build` and `matrix_parameters`, and whatever of the rest its method needs. Changes to
    modules, hooks and attributes need no undoing: `detach` restores them all from a `Snapshot`, and forgets what
    was set on the instance since `attach`. Only the *values* of base parameters do, so they are changed through
    `self.snapshot.rewrite`.

    Class attributes:
        name, summary, paper: for lists and reports.
        parameters: trainable parameters per (m, n) matrix, as text.
        exports_lora, saves: see `Exported`.
        runs_on: where it can be trained: "hosted" (one process that owns the base), "ddp", "fsdp", "deepspeed"
            (attached before the engine is built; under ZeRO stage 3 `Parallel.whole` is around `state`).
        not_elsewhere: why it does not run elsewhere, in words, for the line that refuses it.
        options: names and defaults of the keys allowed in `AdapterConfig.extra`.
        rank_limited: whether r may not exceed min(m, n) of any adapted matrix, as where factors come from a
            decomposition of it. Elsewhere a larger r only repeats directions, and PEFT allows it.
        trains_factors: whether what is trained on a matrix are factors of its update (A, B, or one of them), so that
            its curvature compares with LoRA's (`trainables.curvature`).
        scale_rule, rate_of, actor, step_time, activations, trains_whole, shares_pass, float32_only, quantized: see
            `Declared`; constants in the class's own body, because its file is read for them.
        validation_rows: rows of train that it wants as `Surroundings.validation`, kept out of its training; at most an
            eighth of them.
        benchmark: how it wants to be measured.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str]
    parameters: ClassVar[str]
    runs_on: ClassVar[frozenset[str]] = frozenset({"hosted", "ddp", "fsdp", "deepspeed"})
    not_elsewhere: ClassVar[str] = ""
    options: ClassVar[Mapping[str, Any]] = {}
    rank_limited: ClassVar[bool] = True
    trains_factors: ClassVar[bool] = True
    scale_rule: ClassVar[str] = Declared.scale_rule
    rate_of: ClassVar[str | None] = None
    actor: ClassVar[str | None] = None
    step_time: ClassVar[float] = Declared.step_time
    activations: ClassVar[float] = Declared.activations
    trains_whole: ClassVar[bool] = Declared.trains_whole
    shares_pass: ClassVar[str] = Declared.shares_pass
    float32_only: ClassVar[bool] = Declared.float32_only
    quantized: ClassVar[str] = Declared.quantized
    validation_rows: ClassVar[int] = 0
    benchmark: ClassVar[Benchmark] = Benchmark()

    def __init__(self) -> None:
        self._attached: _Attachment | None = None
        self._own: frozenset[str] = frozenset()
        self.matrices: list[Matrix] = []
        self._trainable: dict[str, nn.Parameter] = {}

    # What a subclass writes.

    @abstractmethod
    def build(self, model: nn.Module, batches: Batches | None) -> nn.Module:
        """Adds the adapter on `self.matrices` and returns the module to call.

        When it is called, the base parameters are frozen and the global generators are seeded. It may raise:
        the model is then restored.
        """

    @classmethod
    @abstractmethod
    def matrix_parameters(cls, rows: int, columns: int, rank: int) -> int:
        """Trainable parameters on one (rows, columns) matrix: the formula of the paper."""

    @classmethod
    def parameters_under(cls, options: Mapping[str, object], rows: int, columns: int, rank: int) -> int:
        """As `matrix_parameters`, under options of the variant that change the number."""
        return cls.matrix_parameters(rows, columns, rank)

    # The life of an attachment.

    def attach(
        self,
        model: nn.Module,
        config: AdapterConfig,
        batches: Batches | None = None,
        surroundings: Surroundings | None = None,
    ) -> nn.Module:
        """Puts the adapter on a model.

        Args:
            model: the base, without any adapter. It is changed in place until `detach`.
            config: hyperparameters. The same seed gives the same adapter; global generators are left as
                found.
            batches: keyword arguments for forward calls, for variants whose start depends on data.
            surroundings: what else the run has to offer.

        Returns:
            The module to call: same call signature and outputs as the base, same training mode.

        Raises:
            ValueError: the configuration does not fit this model or variant; nothing has been changed.
            RuntimeError: this instance is attached already.
        """
        if self._attached is not None:
            raise RuntimeError(f"{self.name} is attached already: detach it or make another instance")
        self.matrices = self.check(model, config)
        self._own = frozenset(vars(self))
        snapshot = Snapshot(model)
        self._attached = _Attachment(model, model, snapshot, config, surroundings or Surroundings())
        try:
            with seeded(config.seed):
                model.requires_grad_(False)
                module = self.build(model, batches)
                as_type(module, config.dtype)
        except BaseException:
            self.detach()
            raise
        for part in module.modules():
            if id(part) not in snapshot.modules:
                part.training = model.training
        self._attached = replace(self._attached, module=module)
        self._trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
        return module

    @classmethod
    def check(cls, model: nn.Module, config: AdapterConfig) -> list[Matrix]:
        """The matrices that `attach` would adapt; reads no weights, so a model on the meta device will do.

        Raises:
            ValueError: as `attach`.
        """
        if hasattr(model, "peft_config"):
            raise ValueError(f"variant {cls.name}: the model carries an adapter already: detach that one first")
        unknown = sorted(set(config.extra) - set(cls.options))
        if unknown:
            allowed = f"use {', '.join(sorted(cls.options))}" if cls.options else "it has none"
            raise OptionError(
                f"variant {cls.name}: option {unknown[0]!r} is unknown: {allowed}",
                field=f"extra.{unknown[0]}",
                value=config.extra[unknown[0]],
                allowed=sorted(cls.options),
            )
        if cls.float32_only and config.dtype != torch.float32:
            told = str(config.dtype).removeprefix("torch.")
            raise ValueError(f"variant {cls.name}: it computes its update in float32, not in {told}")
        matrices = select_matrices(model, config.placement)
        if cls.quantized != "too" and matrices[0].device.type != "meta":
            why = why_not_over(cls.quantized, next((m.quantized.kind for m in matrices if m.quantized), None))
            if why is not None:
                raise ValueError(f"variant {cls.name}: {why}")
        smallest = min(matrices, key=lambda matrix: min(matrix.rows, matrix.columns))
        limit = min(smallest.rows, smallest.columns)
        if cls.rank_limited and config.rank > limit:
            raise OptionError(
                f"variant {cls.name}: rank {config.rank} exceeds the smaller side of {smallest.name} "
                f"({smallest.rows} x {smallest.columns}): use a rank of at most {limit}, or a placement "
                f"without {smallest.kind}",
                field="rank",
                value=config.rank,
                allowed=f"at most {limit}",
            )
        cls.check_options(config, matrices)
        return matrices

    @classmethod
    def check_options(cls, config: AdapterConfig, matrices: Sequence[Matrix]) -> None:
        """Raises ValueError for values of the variant's own options that are impossible on these matrices."""

    def detach(self) -> nn.Module:
        """Takes the adapter off and returns the base exactly as it was before `attach`.

        Bits, `requires_grad`, hooks, module classes and attributes, training mode and configuration are those
        of the moment of `attach`; what others changed on the modules in between is undone too.
        """
        attached = self._live()
        attached.snapshot.restore()
        for name in vars(self).keys() - self._own:
            delattr(self, name)
        self._attached = None
        self.matrices = []
        self._trainable = {}
        return attached.base

    def _live(self) -> _Attachment:
        if self._attached is None:
            raise RuntimeError(f"{self.name} is not attached: call attach first")
        return self._attached

    @property
    def base(self) -> nn.Module:
        """The model that `attach` was given."""
        return self._live().base

    @property
    def surroundings(self) -> Surroundings:
        """What the run has to offer."""
        return self._live().surroundings

    @property
    def module(self) -> nn.Module:
        """The module that `attach` returned."""
        return self._live().module

    @property
    def snapshot(self) -> Snapshot:
        """The way back, and the way to change base weights."""
        return self._live().snapshot

    @property
    def config(self) -> AdapterConfig:
        """The configuration attached with."""
        return self._live().config

    def option(self, name: str) -> Any:
        """One of the variant's own options, or its default."""
        return self.config.extra.get(name, self.options[name])

    # Training.

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The parameters to train, in a fixed order."""
        return list(self._trainable.values())

    def block(self, name: str) -> list[nn.Parameter]:
        """The trained factors of one matrix, by its name; empty where the variant gave it none."""
        return [parameter for parameter in self.module.get_submodule(name).parameters() if parameter.requires_grad]

    def matrix_rank(self, name: str) -> int:
        """r of one matrix: the configuration's, unless the variant shares ranks out among the matrices."""
        return self.config.rank

    def lora_part(self, name: str) -> LoraPart | None:
        """The update of one matrix as live factors, where `shares_pass` is "factors"; None where it has none there."""
        raise NotImplementedError

    def parameter_count(self) -> int:
        """Number of trainable scalars."""
        return sum(parameter.numel() for parameter in self.trainable_parameters())

    def shared_parameters(self) -> int:
        """Trainable scalars that belong to no matrix but serve all: those of hypernetworks."""
        return 0

    def costs(self) -> Costs:
        """What the adapter takes, and what generating it takes beside it."""
        shared = self.shared_parameters()
        return Costs(adapter_parameters=self.parameter_count() - shared, hypernetwork_parameters=shared)

    def figures(self) -> dict[str, float]:
        """What the variant has to report beside the metrics of every trial."""
        return {}

    def param_groups(self) -> list[dict[str, Any]]:
        """Optimizer groups with their own learning rate and weight decay."""
        config = self.config
        return [
            {
                "params": self.trainable_parameters(),
                "lr": config.learning_rate,
                "weight_decay": config.weight_decay,
            }
        ]

    def make_optimizer(self) -> torch.optim.Optimizer:
        """AdamW over `param_groups`, betas (0.9, 0.999)."""
        return torch.optim.AdamW(self.param_groups(), betas=(0.9, 0.999))

    def before_step(self, step: int) -> None:
        """Before the first forward pass of optimizer step `step` (from 0)."""

    def extra_loss(self) -> torch.Tensor | None:
        """A scalar to add to the loss of each forward pass, or None."""
        return None

    def after_backward(self, step: int) -> None:
        """After the last backward pass of the step, before the optimizer moves: gradients are there."""

    def restart_step(self) -> None:
        """Memory ran out in a backward pass: the step's forward passes are made once more, from the first.

        Gradients of the module's parameters are zero again; what else a pass leaves behind is to be forgotten here.
        """

    def after_step(self, step: int) -> None:
        """After the optimizer has moved."""

    # State and results.

    def state(self) -> dict[str, torch.Tensor]:
        """All that is needed to go on after an `attach` alike: clones on the CPU, no base weight."""
        self._live()
        return {name: parameter.detach().cpu().clone() for name, parameter in self._trainable.items()}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Takes over what `state` gave, in place, so that an existing optimizer keeps its parameters.

        Raises:
            ValueError: names or shapes are not those of this attachment; nothing has been changed.
        """
        self._live()
        self.check_state(state, {name: parameter.shape for name, parameter in self._trainable.items()})
        with torch.no_grad():
            for name, parameter in self._trainable.items():
                parameter.copy_(state[name])

    def check_state(self, state: Mapping[str, torch.Tensor], shapes: Mapping[str, Iterable[int]]) -> None:
        """Raises ValueError, with the first difference, unless `state` has exactly these names and shapes."""
        for name in sorted(state.keys() ^ shapes.keys()):
            problem = "is missing" if name in shapes else "does not belong to it"
            raise ValueError(f"variant {self.name}: saved tensor {name!r} {problem}: attach as it was when saved")
        for name, shape in shapes.items():
            if tuple(state[name].shape) != tuple(shape):
                found = tuple(state[name].shape)
                raise ValueError(
                    f"variant {self.name}: saved tensor {name!r} is {found}, not {tuple(shape)}: "
                    "attach with the rank and placement it was saved with"
                )
