"""The contract that every LoRA variant fulfils, and the values that pass through it.

Notation, used in all files of this package: a base matrix W0 is (m, n) = (outputs, inputs); A is (r, n); B is
(m, r); s is the scale, alpha / r unless a variant says otherwise; an adapted matrix computes (W0 + s B A) x.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from trainables.variants.core.declared import Declared
from trainables.variants.core.export import (
    merge_plain_lora,
    merge_through_folder,
    merge_tuned_weights,
    save_plain_lora,
    save_tuned_weights,
)
from trainables.variants.core.matrices import Matrix, select_matrices
from trainables.variants.core.plain import PlainLora
from trainables.variants.core.snapshot import Snapshot, seeded

Batches = Sequence[Mapping[str, torch.Tensor]]


@dataclass(frozen=True)
class AdapterConfig:
    """Hyperparameters of one attachment.

    Attributes:
        rank: r >= 1.
        alpha: > 0; the scale s is alpha / rank for most variants.
        dropout: probability in [0, 1) on the adapter's input. Drawn from PyTorch's global generator at each
            forward.
        learning_rate: > 0.
        weight_decay: >= 0, decoupled (AdamW).
        placement: `"all-linear"` (every linear matrix but the language-model head) or names of matrices; see
            `select_matrices`.
        seed: of everything drawn at attachment.
        steps: optimizer steps that the run will take, >= 1; only variants with a schedule of their own look.
        extra: the variant's own options; unknown ones are refused at `attach`.

    Raises:
        ValueError: a value is outside its range.
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    placement: str | tuple[str, ...] = "all-linear"
    seed: int = 0
    steps: int = 1000
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.rank, bool) or self.rank != int(self.rank) or self.rank < 1:
            raise ValueError(f"rank is {self.rank!r}: use a whole number of at least 1")
        object.__setattr__(self, "rank", int(self.rank))
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ValueError(f"alpha is {self.alpha!r}: use a number above 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout!r}: use a number from 0 up to, not including, 1")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate is {self.learning_rate!r}: use a number above 0")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"weight_decay is {self.weight_decay!r}: use 0 or a number above 0")
        if isinstance(self.steps, bool) or self.steps != int(self.steps) or self.steps < 1:
            raise ValueError(f"steps is {self.steps!r}: use a whole number of at least 1")
        if not isinstance(self.placement, str):
            object.__setattr__(self, "placement", tuple(self.placement))


@dataclass(frozen=True)
class Surroundings:
    """What a run offers to a variant beside the model; each part may be absent.

    Attributes:
        validation: keyword arguments for forward calls with `labels` (-100 outside the completion), from
            `validation_rows` rows drawn from train.
        actor: handle of the actor that the variant declared, shared by all its trials of a search.
        trial: name of the trial, fit for a file name.
        log_folder: where the variant may write what is worth looking at afterwards.
    """

    validation: Batches = ()
    actor: Any = None
    trial: str = ""
    log_folder: Path | None = None


class Variant(ABC):
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
        exports_lora: whether `to_lora` gives a plain LoRA.
        saves: what `save_adapter` writes: "peft", a folder that PEFT reads, or "merged", the tuned matrices.
        runs_on: where it can be trained: "hosted" (one process that owns the base), "ddp", "deepspeed"
            (attached before the engine is built; under ZeRO stage 3 gather the trainable parameters around
            `state`).
        options: names and defaults of the keys allowed in `AdapterConfig.extra`.
        rank_limited: whether r may not exceed min(m, n) of any adapted matrix.
        trains_factors: whether what is trained on a matrix are factors of its update (A, B, or one of them), so that
            its curvature compares with LoRA's (`trainables.curvature`).
        scale_rule, rate_of, actor: see `Declared`; strings in the class's own body, because its file is read for them.
        validation_rows: rows of train that it wants as `Surroundings.validation`.
        cycle: steps after which the costs of a step repeat; for benchmarks.
        whole_rank: options with which every matrix is at its rank all the time; for benchmarks.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str]
    parameters: ClassVar[str]
    exports_lora: ClassVar[bool] = True
    saves: ClassVar[str] = "peft"
    runs_on: ClassVar[frozenset[str]] = frozenset({"hosted", "ddp", "deepspeed"})
    options: ClassVar[Mapping[str, Any]] = {}
    rank_limited: ClassVar[bool] = True
    trains_factors: ClassVar[bool] = True
    scale_rule: ClassVar[str] = Declared.scale_rule
    rate_of: ClassVar[str | None] = None
    actor: ClassVar[str | None] = None
    validation_rows: ClassVar[int] = 0
    cycle: ClassVar[int] = 1
    whole_rank: ClassVar[Mapping[str, Any]] = {}

    def __init__(self) -> None:
        self.surroundings = Surroundings()  # set before `attach` by a run that has something to offer
        self._attached: tuple[nn.Module, nn.Module, Snapshot, AdapterConfig] | None = None
        self._own: frozenset[str] = frozenset()
        self.matrices: list[Matrix] = []
        self._trainable: dict[str, nn.Parameter] = {}

    # What a subclass writes.

    def saturate(self) -> None:  # noqa: B027 (a hook: doing nothing is the default)
        """Brings what grows during a run to the size that it comes to; for benchmarks."""

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
    def parameters_under(cls, options: Mapping[str, Any], rows: int, columns: int, rank: int) -> int:
        """As `matrix_parameters`, under options of the variant that change the number."""
        return cls.matrix_parameters(rows, columns, rank)

    # The life of an attachment.

    def attach(self, model: nn.Module, config: AdapterConfig, batches: Batches | None = None) -> nn.Module:
        """Puts the adapter on a model.

        Args:
            model: the base, without any adapter. It is changed in place until `detach`.
            config: hyperparameters. The same seed gives the same adapter; global generators are left as
                found.
            batches: keyword arguments for forward calls, for variants whose start depends on data.

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
        self._attached = (model, model, snapshot, config)
        try:
            with seeded(config.seed):
                model.requires_grad_(False)
                module = self.build(model, batches)
        except BaseException:
            self.detach()
            raise
        for part in module.modules():
            if id(part) not in snapshot.modules:
                part.training = model.training
        self._attached = (model, module, snapshot, config)
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
            raise ValueError(f"variant {cls.name}: option {unknown[0]!r} is unknown: {allowed}")
        matrices = select_matrices(model, config.placement)
        smallest = min(matrices, key=lambda matrix: min(matrix.rows, matrix.columns))
        limit = min(smallest.rows, smallest.columns)
        if cls.rank_limited and config.rank > limit:
            raise ValueError(
                f"variant {cls.name}: rank {config.rank} exceeds the smaller side of {smallest.name} "
                f"({smallest.rows} x {smallest.columns}): use a rank of at most {limit}, or a placement "
                f"without {smallest.kind}"
            )
        cls.check_options(config, matrices)
        return matrices

    @classmethod  # noqa: B027
    def check_options(cls, config: AdapterConfig, matrices: Sequence[Matrix]) -> None:
        """Raises ValueError for values of the variant's own options that are impossible on these matrices."""

    @classmethod
    def check_choice(cls, config: AdapterConfig, option: str, allowed: Sequence[Any]) -> None:
        """Raises ValueError unless the option is one of `allowed`."""
        value = config.extra.get(option, cls.options[option])
        if not any(value == known and type(value) is type(known) for known in allowed):
            names = ", ".join(str(known).lower() if isinstance(known, bool) else str(known) for known in allowed)
            raise ValueError(f"variant {cls.name}: option {option} is {value!r}: use one of {names}")

    @classmethod
    def check_whole(cls, config: AdapterConfig, option: str, least: int = 1, most: int | None = None) -> int:
        """The option's value. Raises ValueError unless it is a whole number from `least` to `most`."""
        value = config.extra.get(option, cls.options[option])
        if isinstance(value, bool) or not isinstance(value, int) or value < least or (most and value > most):
            allowed = f"from {least} to {most}" if most else f"of at least {least}"
            raise ValueError(f"variant {cls.name}: option {option} is {value!r}: use a whole number {allowed}")
        return value

    @classmethod
    def check_number(cls, config: AdapterConfig, option: str, allowed: Callable[[float], bool], remedy: str) -> None:
        """Raises ValueError, ending in `remedy`, unless the option is a finite number that is allowed."""
        value = config.extra.get(option, cls.options[option])
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not allowed(value):
            raise ValueError(f"variant {cls.name}: option {option} is {value!r}: {remedy}")

    def detach(self) -> nn.Module:
        """Takes the adapter off and returns the base exactly as it was before `attach`.

        Bits, `requires_grad`, hooks, module classes and attributes, training mode and configuration are those
        of the moment of `attach`; what others changed on the modules in between is undone too.
        """
        model, _, snapshot, _ = self._live()
        snapshot.restore()
        for name in vars(self).keys() - self._own:
            delattr(self, name)
        self._attached = None
        self.matrices = []
        self._trainable = {}
        return model

    def _live(self) -> tuple[nn.Module, nn.Module, Snapshot, AdapterConfig]:
        if self._attached is None:
            raise RuntimeError(f"{self.name} is not attached: call attach first")
        return self._attached

    @property
    def module(self) -> nn.Module:
        """The module that `attach` returned."""
        return self._live()[1]

    @property
    def snapshot(self) -> Snapshot:
        """The way back, and the way to change base weights."""
        return self._live()[2]

    @property
    def config(self) -> AdapterConfig:
        """The configuration attached with."""
        return self._live()[3]

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

    def parameter_count(self) -> int:
        """Number of trainable scalars."""
        return sum(parameter.numel() for parameter in self.trainable_parameters())

    def shared_parameters(self) -> int:
        """Trainable scalars that belong to no matrix but serve all: those of hypernetworks."""
        return 0

    def costs(self) -> dict[str, float]:
        """What the adapter takes, and what generating it takes beside it.

        Returns:
            `adapter_parameters`: scalars trained or generated on the matrices; `hypernetwork_parameters`: see
            `shared_parameters`; `hypernetwork_s`: seconds spent in generating since `attach`;
            `hypernetwork_gmac`: their multiply-adds of one step, in 10^9; `moment_mb`: what the variant keeps between
            steps in place of optimizer state, in MB.
        """
        return {
            "adapter_parameters": self.parameter_count() - self.shared_parameters(),
            "hypernetwork_parameters": self.shared_parameters(),
            "hypernetwork_s": 0.0,
            "hypernetwork_gmac": 0.0,
            "moment_mb": 0.0,
        }

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

    def before_step(self, step: int) -> None:  # noqa: B027 (a hook: doing nothing is the default)
        """Before the first forward pass of optimizer step `step` (from 0)."""

    def extra_loss(self) -> torch.Tensor | None:
        """A scalar to add to the loss of each forward pass, or None."""
        return None

    def after_backward(self, step: int) -> None:  # noqa: B027
        """After the last backward pass of the step, before the optimizer moves: gradients are there."""

    def after_step(self, step: int) -> None:  # noqa: B027
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

    def to_lora(self) -> PlainLora | None:
        """The adapter as plain LoRA against the original weights, or None where there is no such thing."""
        return None

    def tuned_weights(self) -> dict[str, torch.Tensor]:
        """The adapted matrices with the update in them, module name -> `(m, n)`, fp32 on the CPU.

        What a variant without plain LoRA and without a PEFT form (`saves` is "merged") is saved as.
        """
        raise NotImplementedError

    def save_adapter(self, folder: Path, base_model: str) -> Path:
        """Writes a folder that `exported_adapter` and `merge_folder` read, and PEFT unless `saves` is "merged".

        `PeftModel.from_pretrained(original_base, folder)` then gives the same outputs.

        Args:
            folder: made if absent.
            base_model: what the folder names as its base (`base_model_name_or_path`).
        """
        plain = self.to_lora()
        if plain is None:
            return save_tuned_weights(self.tuned_weights(), self.name, folder, base_model)
        return save_plain_lora(plain, folder, base_model, model=self._live()[0])

    def merge_into(self, model: nn.Module) -> nn.Module:
        """Adds what was learned to `model`, another copy of the original base, in place, and returns it.

        Sums are fp32 and rounded once to the base's type.
        """
        plain = self.to_lora()
        if plain is not None:
            return merge_plain_lora(model, plain)
        if self.saves == "merged":
            return merge_tuned_weights(model, self.tuned_weights())
        return merge_through_folder(model, lambda folder: self.save_adapter(folder, ""))
