"""What training and scoring cost: seconds and memory of a trial by variant, rank, batch and sequence length.

One module for all who ask what something will cost. Its figures come from a calibration
(`raylora.run.plan.calibrate`), or from the model's shape and the machine's speed (`raylora.run.plan.estimate`), and
give way to what trials took.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from raylora.run.plan.memory import ADAM_BYTES, GB, Shape, activation_gb
from trainables.variants import declared


@dataclass(frozen=True)
class StepPoint:
    """A measured optimizer step: `tokens` in the batch of `batch_size` rows, mean `seconds`, peak memory in GB."""

    rank: int
    batch_size: int
    tokens: float
    seconds: float
    peak_gb: float = 0.0


@dataclass(frozen=True)
class CostModel:
    """Seconds and GB of trials on one host.

    A step takes `fixed_s + tokens (token_s + rank_token_s r) + rank_s r` seconds, times the variant's factor over plain
    LoRA. Trials of a pack take `fixed_s` once for all. What attention adds with longer rows is taken from the share of
    its multiply-adds (Kaplan et al. 2020, arXiv 2001.08361, section 2.1: 2 N + 2 layers length width per token).

    Args:
        tokens_per_row: mean length of a row, prompt and response, that the figures hold for.
        evaluation_row_s: seconds to score a validation row: its loss, and its answer where the metric wants one.
        attach_s: seconds to attach an adapter and to take it off again.
        resident_gb: of a host that holds the model and does nothing.
        activation_token_gb: that a token of a micro-batch adds while it is trained on.
        available_gb: that the device could give beside what the host holds; 0 where it is not known.
        measured: False for an estimate from the model's shape and the machine.
        overhead_s: of a trial beside training and scoring: the searcher, Tune.
        pack: trials that share passes. pass_tokens: of a pass at most.
        training: what trials took over what was predicted, 1 as long as none has ended.
    """

    shape: Shape
    tokens_per_row: float
    fixed_s: float
    token_s: float
    rank_s: float
    rank_token_s: float
    evaluation_row_s: float
    attach_s: float = 0.5
    resident_gb: float = 0.0
    activation_token_gb: float = 0.0
    available_gb: float = 0.0
    measured: bool = True
    overhead_s: float = 1.0
    pack: int = 1
    pass_tokens: float = math.inf
    training: float = 1.0

    def step_seconds(self, variant: str, rank: int, batch_size: int, tokens_per_row: float | None = None) -> float:
        """Seconds of one optimizer step over `batch_size` rows of that mean length; in a pack, its part of a pass."""
        length = self.tokens_per_row if tokens_per_row is None else tokens_per_row
        tokens = batch_size * length * self._attention(length)
        sharing = min(self.pack, max(1.0, self.pass_tokens // max(1.0, batch_size * length)))
        plain = (
            self.fixed_s / (sharing if declared(variant).shares_pass else 1)
            + self.rank_s * rank
            + tokens * (self.token_s + self.rank_token_s * rank)
        )
        return self.training * declared(variant).step_time * plain

    def train_seconds(
        self, variant: str, rank: int, batch_size: int, samples: float, tokens_per_row: float | None = None
    ) -> float:
        """Seconds to train on `samples` rows."""
        batch = max(1, min(batch_size, round(samples)))
        return samples / batch * self.step_seconds(variant, rank, batch, tokens_per_row)

    def evaluation_seconds(self, rows: float) -> float:
        """Seconds to score that many rows."""
        return self.evaluation_row_s * rows

    def trial_seconds(self, variant: str, rank: int, batch_size: int, samples: float, evaluated: float) -> float:
        """Seconds of a whole trial that scores `evaluated` rows in all."""
        train = self.train_seconds(variant, rank, batch_size, samples)
        return self.overhead_s + self.attach_s + train + self.evaluation_seconds(evaluated)

    def memory_gb(self, variant: str, rank: int, micro_batch_tokens: float) -> float:
        """Peak of a host that trains: weights, the pack's adapters with gradients and optimizers, and activations.

        Args:
            micro_batch_tokens: of a pass.
        """
        costs = declared(variant)
        trained = self.shape.parameters if costs.trains_whole else self.shape.adapter_per_rank * rank
        activations = self.activation_token_gb * micro_batch_tokens * costs.activations
        return self.resident_gb + ADAM_BYTES * self.pack * trained / GB + activations

    def packed(self, pack: int, pass_tokens: float) -> CostModel:
        """The costs of a trial that shares passes with others: its part of the host's time, and what all need."""
        return replace(self, pack=pack, pass_tokens=float(pass_tokens))

    @property
    def alone(self) -> CostModel:
        """The costs of a trial that has the host to itself."""
        return self.packed(1, math.inf)

    def _attention(self, length: float) -> float:
        """Work per token at that length over that at the measured one."""
        shape = self.shape

        def work(tokens: float) -> float:
            return shape.parameters + shape.layers * shape.hidden * tokens

        return work(length) / work(self.tokens_per_row)

    def corrected(self, taken: Iterable[Mapping[str, Any]], evaluated: int) -> CostModel:
        """The model in the light of trials that ended.

        Args:
            taken: of each trial its knobs (`variant`, `rank`, `batch_size`) and figures (`samples`, `train_s` of the
                whole trial, `eval_s`, `attach_s`, `wall_s`).
            evaluated: rows that a trial scored.
        """
        plain, trials = replace(self, training=1.0), list(taken)
        if not trials:
            return self
        predicted = [plain.train_seconds(_variant(t), t["rank"], t["batch_size"], t["samples"]) for t in trials]
        # The prediction counts as half a trial: a single one may have been slow for reasons of its own.
        weight = 0.5 if self.measured else 0.1
        prior = weight * sum(predicted) / len(predicted)
        ratio = (sum(t["train_s"] for t in trials) + prior) / max(1e-9, sum(predicted) + prior)
        count = weight + len(trials)
        scored = weight * self.evaluation_row_s + sum(t["eval_s"] for t in trials) / max(1, evaluated)
        beside = [max(0.0, t["wall_s"] - t["train_s"] - t["eval_s"] - t["attach_s"]) for t in trials]
        return replace(
            self,
            training=ratio,
            evaluation_row_s=scored / count,
            attach_s=(weight * self.attach_s + sum(t["attach_s"] for t in trials)) / count,
            overhead_s=(weight * self.overhead_s + sum(beside)) / count,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data; `from_dict` gives an equal model back. No bound is null there, JSON has no infinity."""
        return {**asdict(self), "pass_tokens": self.pass_tokens if math.isfinite(self.pass_tokens) else None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CostModel:
        """Back from `to_dict`."""
        most = data.get("pass_tokens")
        return cls(**{**data, "shape": Shape(**data["shape"]), "pass_tokens": math.inf if most is None else most})


def _variant(taken: Mapping[str, object]) -> str:
    return str(taken.get("variant", "lora"))


def fit(
    shape: Shape,
    points: Sequence[StepPoint],
    *,
    tokens_per_row: float,
    evaluation_row_s: float,
    attach_s: float,
    resident_gb: float,
    available_gb: float = 0.0,
    recompute: bool = False,
) -> CostModel:
    """A cost model through measured steps, by non-negative least squares on their relative errors.

    As many of its terms are fitted as there are points: per token, then per step, per rank and token, per rank.

    Args:
        recompute: whether the steps computed blocks again (gradient checkpointing).

    Raises:
        ValueError: no point.
    """
    from scipy.optimize import nnls

    if not points:
        raise ValueError("no step was measured")
    seconds = np.array([p.seconds for p in points])
    columns = {
        "token_s": [p.tokens for p in points],
        "fixed_s": [1.0 for _ in points],
        "rank_token_s": [p.rank * p.tokens for p in points],
        "rank_s": [float(p.rank) for p in points],
    }
    names = list(columns)[: len(points)]
    matrix = np.array([columns[name] for name in names]).T / seconds[:, None]
    # Terms differ by orders of magnitude: each is scaled to one.
    scale = matrix.max(axis=0)
    found, _ = nnls(matrix / scale, np.ones(len(points)))
    terms = dict.fromkeys(columns, 0.0) | dict(zip(names, (found / scale).tolist(), strict=True))
    return CostModel(
        shape,
        tokens_per_row,
        **terms,
        evaluation_row_s=evaluation_row_s,
        attach_s=attach_s,
        resident_gb=resident_gb,
        available_gb=available_gb,
        activation_token_gb=_activations(shape, points, recompute),
    )


def _activations(shape: Shape, points: Sequence[StepPoint], recompute: bool) -> float:
    """GB per token by which peaks grow with the batch, within a factor of four of what the shape says.

    Peaks on a CPU are of the whole process, in which libraries and caches move more than a small batch does.
    """
    expected = activation_gb(shape, recompute)
    pairs = [(a, b) for a in points for b in points if a.rank == b.rank and b.tokens > a.tokens]
    slopes = [(b.peak_gb - a.peak_gb) / (b.tokens - a.tokens) for a, b in pairs]
    return min(4 * expected, max([expected / 4, *slopes])) if slopes else expected
