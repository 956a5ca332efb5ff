"""LeLoRA: a policy chooses, matrix by matrix, which slice of the SVD is trained next.

Every `reward_every` steps: a loss on a few rows that are not trained on tells the policy what its last strategies were
worth, and it draws new ones, (r, s) for each matrix. In between, the r singular triplets at position s are trained, the
rest of the matrix is frozen, and what was trained before stays as it is. `trainables.lelora` has notation, formulas and
signs.

Zhou et al., LeLoRA: Learnable Low-Rank Adaptation of Large Language Models, https://aclanthology.org/2026.acl-long.1628/
"""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from trainables.lelora.actor import LocalPolicy, RandomStrategies, RemotePolicy, Request, Strategist
from trainables.lelora.candidates import parse_dimensions, parse_positions
from trainables.lelora.history import History
from trainables.lelora.optimizer import SliceAdamW
from trainables.lelora.policy import Outcome, PolicySettings, describe, digest_of, random_choice
from trainables.lelora.rewards import MatrixReward, Reward, ScalarReward
from trainables.lelora.slices import POSITIONS, SlicedLinear, choosable, window
from trainables.variants.core.base import Variant
from trainables.variants.core.config import AdapterConfig, Batches
from trainables.variants.core.costs import Benchmark
from trainables.variants.core.decompositions import window_svd
from trainables.variants.core.layers import place
from trainables.variants.core.matrices import Matrix
from trainables.variants.core.options import check_choice, check_number, check_whole, refused
from trainables.variants.core.plain import PlainLora

_log = logging.getLogger(__name__)


class LeLora(Variant):
    """W = U S V^T, of which r triplets at the beginning, middle or end are trained, as a policy says; see the module.

    r is the largest candidate dimension. Trainable is every triplet that some strategy can choose: up to 3 r of them,
    c (m + n + 1) numbers, of which a step trains at most r (m + n + 1) and none where r = 0 was drawn (`figures` counts
    both). There is no scale and no dropout: alpha and dropout have no effect. Weight decay acts on the triplets that
    are trained, as AdamW's does in the paper.

    The base's own storage is never written to. Rows for the reward come from `surroundings`; without any, the batches
    of `attach` serve; without those, no reward is given and the policy stays uniform. Nor is one where nothing learns:
    with random strategies, or where there is one candidate alone.

    Options:
        dimensions, positions: candidates, see `parse_dimensions` and `parse_positions`.
        policy: `per_trial`; `shared` with those trials of the search whose matrices, candidates, rate and rewards are
            the same; `random`: none, uniform strategies, no rewards.
        policy_from: file of a policy that an earlier run has left (`RUN_DIR/checkpoints/policies`), of the same
            matrices and candidates, to begin from; None for a uniform one.
        policy_rate: learning rate of the policy; 0 leaves it uniform, at the price of its rewards: a control.
        reward: `both`: L1 + reward_alpha L2, one number for all matrices; `l1`, `l2`: one of them alone; `per_matrix`:
            each matrix's share of the change of the loss (`trainables.lelora.rewards`).
        balanced: trains sqrt(sigma) u and sqrt(sigma) v in place of unit vectors, so that steps go with the root of
            sigma instead of sigma (`trainables.lelora.slices`).
        reward_alpha: weight of the change of the loss beside the loss itself; not LoRA's alpha.
        reward_every: steps between rewards, each of which costs a forward pass over the validation rows, and
            `per_matrix` a backward pass as well.
        preset: `paper`: a reward every step, unless `reward_every` is given.
    """

    name = "lelora"
    quantized = "never"
    summary = "singular triplets, which ones a policy learns to choose for each matrix while training"
    paper = "https://aclanthology.org/2026.acl-long.1628/"
    parameters = "c (m + n + 1), c <= 3 r; at most r (m + n + 1) in a step"
    float32_only = True
    step_time = 1.23
    activations = 1.1
    scale_rule = "1"
    actor = "trainables.lelora.actor:start_shared_policy"
    runs_on = frozenset({"hosted"})
    not_elsewhere = "workers would each have a strategy of their own"
    options = {
        "dimensions": "auto",
        "positions": "all",
        "policy": "per_trial",
        "policy_from": None,
        "policy_rate": 1e-3,
        "reward": "both",
        "reward_alpha": 1.0,
        "reward_every": 10,
        "balanced": False,
        "preset": "default",
    }
    trains_factors = False  # the triplets are of W itself, and their gradients have no graph of their own
    validation_rows = 32
    benchmark = Benchmark(cycle=10, whole_rank={"dimensions": "max"})

    @classmethod
    def check_options(cls, config: AdapterConfig, matrices: Sequence[Matrix]) -> None:
        check_choice(cls, config, "policy", ("per_trial", "shared", "random"))
        check_choice(cls, config, "reward", ("both", "l1", "l2", "per_matrix"))
        check_choice(cls, config, "preset", ("default", "paper"))
        check_choice(cls, config, "balanced", (True, False))
        check_whole(cls, config, "reward_every")
        check_number(cls, config, "policy_rate", lambda value: value >= 0, "use 0 or a number above 0")
        check_number(cls, config, "reward_alpha", lambda value: value >= 0, "use 0 or a number above 0")
        for option, parse in (
            ("dimensions", lambda value: parse_dimensions(value, config.rank)),
            ("positions", parse_positions),
        ):
            value = config.extra.get(option, cls.options[option])
            try:
                parse(value)
            except ValueError as error:
                raise refused(cls, option, value, str(error)) from None

    # ---- life -----------------------------------------------------------------------------------------

    def build(self, model: nn.Module, batches: Batches | None) -> nn.Module:
        config = self.config
        self.every = self.option("reward_every")
        if self.option("preset") == "paper" and "reward_every" not in config.extra:
            self.every = 1
        self.origin = self._read_origin()
        self.settings = PolicySettings(
            layers=tuple(_layer(matrix.name) for matrix in self.matrices),
            kinds=tuple(matrix.kind for matrix in self.matrices),
            dimensions=parse_dimensions(self.option("dimensions"), config.rank),
            positions=parse_positions(self.option("positions")),
            rate=float(self.option("policy_rate")),
            cost=self._cost(),
            origin="" if self.origin is None else digest_of(self.origin),
            seed=config.seed,
        )
        self.validation = list(self.surroundings.validation or batches or ())
        self.layers: dict[str, SlicedLinear] = {}
        self.spectra: list[np.ndarray] = []
        for matrix in self.matrices:
            layer = self._layer(matrix)
            place(model, matrix, layer)
            self.layers[matrix.name] = layer
        self.choice = np.full((len(self.matrices), 2), -1)  # none drawn yet
        self.features = self._describe()
        self.reward = self._reward()
        self.counts = np.zeros(2)  # steps, and numbers trained in them
        self.strategist = self._strategist()
        log = self.surroundings.log_folder
        path = None if log is None else Path(log) / f"{self.surroundings.trial or 'strategies'}.parquet"
        chooser = str(self.option("policy"))
        self.history = History(list(self.layers), self.settings.layers, self.settings.kinds, chooser, path)
        return model

    def _layer(self, matrix: Matrix) -> SlicedLinear:
        weight = matrix.oriented(matrix.weight.data)
        if not weight.dtype.is_floating_point:
            raise ValueError(
                f"variant {self.name} decomposes {matrix.name}, which is stored as {weight.dtype}: "
                "use a floating-point base or the variant lora"
            )
        found, u, s, v = window_svd(weight, self.config.rank)
        wanted = choosable(self.settings.positions, self.config.rank, min(matrix.rows, matrix.columns))
        at = torch.searchsorted(found, torch.tensor(wanted)).to(u.device)
        self.spectra.append(s.cpu().numpy())
        sigma = s[torch.tensor(wanted, device=s.device)]
        return SlicedLinear(matrix, wanted, u[:, at], sigma, v[:, at], balanced=self.option("balanced"))

    def _cost(self) -> str:
        """How rewards are made, as text."""
        terms = str(self.option("reward"))
        made = terms if terms == "per_matrix" else f"{terms} {float(self.option('reward_alpha'))}"
        return f"{made} balanced" if self.option("balanced") else made

    def _reward(self) -> Reward | None:
        """None where nothing learns from one."""
        choices = len(self.settings.dimensions) * len(self.settings.positions)
        if self.option("policy") == "random" or choices == 1:
            return None
        if self.option("reward") == "per_matrix":
            return MatrixReward(self.layers, self.settings.kinds)
        return ScalarReward(str(self.option("reward")), float(self.option("reward_alpha")))

    def _read_origin(self) -> dict[str, Tensor] | None:
        """State of the policy to begin from."""
        file = self.option("policy_from")
        if file is None:
            return None
        try:
            return load_file(Path(str(file)).expanduser())
        except (OSError, SafetensorError):
            raise refused(type(self), "policy_from", file, "use a file of a policy, or leave it out") from None

    def _strategist(self) -> Strategist:
        if self.option("policy") == "random":
            return RandomStrategies()
        if self.surroundings.actor is not None and self.origin is None:
            return RemotePolicy(self.surroundings.actor)
        try:
            local = LocalPolicy(self.settings, self.features, self.origin)
        except ValueError:
            told = "it is of other matrices or candidates: use one of the same model, placement and candidates"
            raise refused(type(self), "policy_from", self.option("policy_from"), told) from None
        return local if self.surroundings.actor is None else RemotePolicy(self.surroundings.actor)

    def make_optimizer(self) -> SliceAdamW:
        return SliceAdamW(self.param_groups(), list(self.layers.values()))

    def detach(self) -> nn.Module:
        if "history" in vars(self):
            self._write_history()
        return super().detach()

    def _write_history(self) -> None:
        """A log that cannot be written is a warning: it must keep nobody from training, nor the base from returning."""
        try:
            self.history.write()
        except OSError as error:
            _log.warning("LeLoRA's strategies are not logged: %s", error)

    # ---- steps ----------------------------------------------------------------------------------------

    def before_step(self, step: int) -> None:
        if step % self.every == 0 or self.choice[0, 0] < 0:
            self._next_strategies(step)

    def after_step(self, step: int) -> None:
        for layer in self.layers.values():
            layer.refresh()
        self.counts += (1, self._trained_now())

    def _next_strategies(self, step: int) -> None:
        """Rewards the strategies of the interval that has ended, and puts new ones in force."""
        first = self.choice[0, 0] < 0
        advantage = None if self.reward is None else self.reward.measure(self.module, self.validation)
        outcome = None if first or advantage is None else Outcome(self.features, self.choice, advantage)
        features = self._describe()
        # Trials of a search have the same seed, and must not draw the same strategies where they share a policy.
        seed = (self.config.seed * 1_000_003 + step) ^ (zlib.crc32(self.surroundings.trial.encode()) << 20)
        shared = self.option("policy") == "shared"
        owner = "shared" if shared else self.surroundings.trial or "trial"
        key = f"{owner}-{self.settings.digest()}"
        origin = self.origin if first else None
        answer = self.strategist.exchange(Request(key, self.settings, features, seed, outcome, shared, first, origin))
        if answer is not None:
            self.choice = answer
        elif first:
            self.choice = random_choice(self.settings, seed)
        self.features = features
        self._apply()
        dimensions, positions = self._strategies()
        self.history.add(step, dimensions, positions)

    def _strategies(self) -> tuple[list[int], list[str]]:
        """r and position of each matrix."""
        return (
            [self.settings.dimensions[a] for a in self.choice[:, 0]],
            [self.settings.positions[a] for a in self.choice[:, 1]],
        )

    def _apply(self) -> None:
        for layer, r, position in zip(self.layers.values(), *self._strategies(), strict=True):
            layer.choose(window(position, r, min(layer.rows, layer.columns)))

    def _describe(self) -> np.ndarray:
        """xi of all matrices, with their singular values as they are now."""
        layers = list(self.layers.values())
        now = torch.cat([layer.magnitudes() for layer in layers]).cpu().numpy()
        parts = np.split(now, np.cumsum([len(layer.indices) for layer in layers])[:-1])
        spectra = []
        for layer, values, part in zip(layers, self.spectra, parts, strict=True):
            current = values.copy()
            current[layer.indices] = part
            spectra.append(current)
        return describe(spectra)

    def saturate(self) -> None:
        """Touches all triplets that can be chosen, as strategies do within a few intervals."""
        for layer in self.layers.values():
            k = min(layer.rows, layer.columns)
            for position in self.settings.positions:
                layer.choose(window(position, max(self.settings.dimensions), k))

    # ---- accounting -----------------------------------------------------------------------------------

    def _trained_now(self) -> int:
        return sum(
            (layer.active[1] - layer.active[0]) * (layer.rows + layer.columns + 1) for layer in self.layers.values()
        )

    def figures(self) -> dict[str, float]:
        """Numbers trained per step (mean over the steps so far), and those ever touched: trained at least once."""
        total = sum(len(layer.touched) * (layer.rows + layer.columns + 1) for layer in self.layers.values())
        steps, trained = self.counts.tolist()
        return {"touched_per_step": trained / max(1.0, steps), "touched_parameters": total}

    @classmethod
    def matrix_parameters(cls, rows: int, columns: int, rank: int) -> int:
        return cls.parameters_under({}, rows, columns, rank)

    @classmethod
    def parameters_under(cls, options: Mapping[str, object], rows: int, columns: int, rank: int) -> int:
        try:
            positions = parse_positions(options.get("positions", cls.options["positions"]))
        except ValueError:
            positions = POSITIONS  # `check` says what is wrong
        return len(choosable(positions, rank, min(rows, columns))) * (rows + columns + 1)

    # ---- state and results ----------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """As the contract says. T0 is part of it: another machine's decomposition might not reproduce it."""
        state = super().state()
        for name, layer in self.layers.items():
            state[f"{name}.initial"] = layer.initial.cpu().clone()
            touched = torch.zeros(len(layer.indices), dtype=torch.uint8)
            touched[layer.touched] = 1
            state[f"{name}.touched"] = touched
        state["lelora.choice"] = torch.tensor(self.choice)
        state["lelora.features"] = torch.tensor(self.features)
        state["lelora.counts"] = torch.tensor(self.counts)
        for part, held in self._held().items():
            state |= {f"lelora.{part}.{name}": tensor for name, tensor in held.state().items()}
        self._write_history()
        return state

    def _held(self) -> dict[str, Reward | Strategist]:
        """What has a state of its own, by the name of its part."""
        return {"policy": self.strategist} | ({} if self.reward is None else {"reward": self.reward})

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        own = {f"{name}.{part}" for name in self.layers for part in ("initial", "touched")}
        self.check_state(state, {name: tensor.shape for name, tensor in self.state().items()})
        prefix = "lelora."
        super().load_state({k: v for k, v in state.items() if k not in own and not k.startswith(prefix)})
        for name, layer in self.layers.items():
            layer.initial.copy_(state[f"{name}.initial"])
            layer.touched = torch.nonzero(state[f"{name}.touched"]).flatten().tolist()
            layer.rebuild()
        self.choice = state["lelora.choice"].numpy().copy()
        self.features = state["lelora.features"].numpy().copy()
        self.counts = state["lelora.counts"].numpy().copy()
        for part, held in self._held().items():
            begin = f"{prefix}{part}."
            held.load_state({k.removeprefix(begin): v for k, v in state.items() if k.startswith(begin)})
        if self.choice[0, 0] >= 0:
            self._apply()
        self.history.resume(int(self.counts[0]))

    def to_lora(self) -> PlainLora | None:
        """W - W0 as plain LoRA of scale 1: rank 2 t for t touched triplets, or min(m, n) where that is less."""
        factors = {}
        for name, layer in self.layers.items():
            if layer.touched:
                left, right = (part.cpu() for part in layer.factors())
                factors[name] = _at_most_full_rank(right, left.T.contiguous())
        return PlainLora(factors, dict.fromkeys(factors, 1.0))

    def tuned_weights(self) -> dict[str, Tensor]:
        weights = {}
        for matrix in self.matrices:
            left, right = self.layers[matrix.name].factors()
            weights[matrix.name] = (matrix.oriented(matrix.weight.data).float() + left.T @ right).cpu()
        return weights

    def save_adapter(self, folder: Path, base_model: str) -> Path:
        """Plain LoRA as a PEFT folder, or the tuned matrices where those are smaller."""
        from trainables.variants.core.export import save_tuned_weights

        plain = self.to_lora()
        assert plain is not None
        size = sum(a.numel() + b.numel() for a, b in plain.factors.values())
        if 0 < size <= sum(matrix.rows * matrix.columns for matrix in self.matrices):
            return super().save_adapter(folder, base_model)
        return save_tuned_weights(self.tuned_weights(), self.name, folder, base_model)


def _layer(name: str) -> int:
    """The first number in a module's name, such as 3 of `model.layers.3.mlp.up_proj`; -1 where there is none."""
    found = re.search(r"(?:^|\.)(\d+)(?:\.|$)", name)
    return int(found.group(1)) if found else -1


def _at_most_full_rank(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """A `(r, n)` and B `(m, r)` with the same product and at most min(m, n) rows and columns."""
    (r, n), m = a.shape, b.shape[0]
    if r <= min(m, n):
        return a, b
    product = b @ a
    return (torch.eye(n), product) if n <= m else (product, torch.eye(m))
