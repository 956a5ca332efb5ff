"""Bayesian optimisation with a Gaussian process on encoded knobs: BoTorch's standard model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import numpy as np

from .base import Common, SpaceSearcher
from .errors import OptionError

if TYPE_CHECKING:
    from torch import Tensor

    from .space import Space
    from .surrogate.encoded_gp import Surrogate

# The best observations whose neighbours are candidates where the space is too large to score all of it.
_BEST = 5


class GPSearch(SpaceSearcher):
    """`SingleTaskGP` with Matern-5/2 over ordinal knobs times a Hamming kernel over categorical ones, and LogEI.

    The steps of a suggestion:

    1. The first `n_initial` configurations are random.
    2. The model is fitted to the finished trials with a value; trials without one are left out. A metric with errors
       and the validation loss are one target (`surrogate.link`). Values below the median are drawn in on a logarithmic
       scale (`surrogate.targets`): a diverged run must not set the scale.
    3. Running trials are believed to come out at their posterior mean.
    4. The untried configuration with the largest log expected improvement is proposed; with `per_second`, with the
       largest expected improvement by the seconds that it is predicted to take (Snoek et al., 2012, section 3.2).

    Candidates are the whole space up to `candidates` configurations, else a random sample of that size, the same for
    every suggestion, and the neighbours of the best. Arguments as for `SpaceSearcher`, and:

    Args:
        n_initial: random configurations, observed or running, before the model is used.
        candidates: most configurations scored per suggestion.
        fit_steps: most steps of the hyperparameters' optimizer.
        per_second: whether what a trial costs counts.
        seconds: predicted seconds of a trial by the values of some knobs, `{knobs: (names), seconds: {values: s}}`; a
            run fills it in where `per_second` asks for it. Configurations that are not in it count as the mean of those
            that are.

    Raises:
        ValueError: a value outside its domain; the message names it.

    References: Balandat et al., "BoTorch: a framework for efficient Monte-Carlo Bayesian optimization", NeurIPS 2020;
    Ament et al., "Unexpected improvements to expected improvement for Bayesian optimization", NeurIPS 2023;
    Snoek et al., "Practical Bayesian optimization of machine learning algorithms", NeurIPS 2012.
    """

    name: ClassVar[str] = "gp"
    summary: ClassVar[str] = "Gaussian process on encoded knobs with log expected improvement (BoTorch)"
    belief: ClassVar[str] = "its own Gaussian process"
    # The candidates depend on space and seed alone: cheaper to make again than to save.
    _transient: ClassVar[tuple[str, ...]] = ("_pool",)

    def __init__(
        self,
        *,
        n_initial: int = 5,
        candidates: int = 50_000,
        fit_steps: int = 50,
        per_second: bool = False,
        seconds: Mapping[str, Any] | None = None,
        **common: Unpack[Common],
    ) -> None:
        for name, value in (("n_initial", n_initial), ("candidates", candidates), ("fit_steps", fit_steps)):
            if value < 1:
                raise OptionError(name, f"{value!r} is too small; use 1 or more", value=value)
        self.n_initial, self.candidates, self.fit_steps = n_initial, candidates, fit_steps
        if not isinstance(per_second, bool):
            raise ValueError(f"per_second: {per_second!r} is neither true nor false")
        self.per_second, self.seconds = per_second, seconds
        self._pool: np.ndarray | None = None
        super().__init__(**common)

    @classmethod
    def wants(cls, options: Mapping[str, Any]) -> frozenset[str]:
        return frozenset({"seconds"} if options.get("per_second") else ())

    @classmethod
    def leave_one_out(
        cls, space: Space, indices: Sequence[int], values: Sequence[float], options: Mapping[str, Any], seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        import torch

        from .surrogate.encoded_gp import standardise

        searcher = cls(**{**options, "space": space, "seed": seed})
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # matrices this small cost more to share than to work through
        try:
            x, y = searcher._encode(indices), standardise(values)
            predicted, spread = searcher._fit(x, y).leave_one_out(x, y)
        finally:
            torch.set_num_threads(threads)
        unit = float(np.std(values))
        return float(np.mean(values)) + unit * predicted, unit * spread

    def _propose(self, trial_id: str) -> int | None:
        data = [(index, merit) for index, merit, _ in self.evidence]
        if not data or len(data) + len(self._pending) < self.n_initial:
            return self._space().sample(self.rng, 1, exclude=self._seen)[0]
        return self._improve(data)

    def _improve(self, data: list[tuple[int, float]]) -> int:
        import torch

        from .surrogate.acquisition import log_expected_improvement
        from .surrogate.targets import make_targets

        indices, values = zip(*data, strict=True)
        x = self._encode(indices)
        y = torch.from_numpy(make_targets(np.array(values), np.zeros(len(values))).y)
        free = self._free(data)
        surrogate = self._fit(x, y)
        mean, var, best = surrogate.posterior(x, y, self._encode(free), self._encode(list(self._pending.values())))
        gain = np.asarray(log_expected_improvement(mean, var, best)) - self._log_seconds(free)
        return int(free[int(gain.argmax())])

    def _log_seconds(self, indices: np.ndarray) -> np.ndarray:
        """Log of the seconds that trials are predicted to take, `(n,)`; 0 where they do not count."""
        if not self.per_second or not self.seconds:
            return np.zeros(len(indices))
        space, known = self._space(), self.seconds["seconds"]
        places = [space.names.index(name) for name in self.seconds["knobs"]]
        kinds, which = np.unique(space.digits(indices)[:, places], axis=0, return_inverse=True)
        values = [tuple(space.knobs[p].values[d] for p, d in zip(places, kind, strict=True)) for kind in kinds]
        found = np.array([float(known.get(value, np.nan)) for value in values])
        told = np.where(np.isnan(found), np.nanmean(found) if np.isfinite(found).any() else 1.0, found)
        return np.log(np.maximum(told, 1e-9))[which.reshape(-1)]

    def _free(self, data: list[tuple[int, float]]) -> np.ndarray:
        """Untried candidates, ascending, at least one."""
        space = self._space()
        if self._pool is None:
            whole = len(space) <= self.candidates
            generator = np.random.default_rng([self.seed, len(space)])
            self._pool = np.arange(len(space)) if whole else np.sort(space.sample(generator, self.candidates))
        pool = self._pool
        if len(pool) < len(space):
            best = sorted(data, key=lambda pair: -pair[1])[:_BEST]
            pool = np.union1d(pool, [j for i, _ in best for j in space.neighbours(i)])
        free = np.setdiff1d(pool, list(self._seen))
        # A sample may be used up while the space is not.
        return free if len(free) else np.array(space.sample(self.rng, self.candidates, exclude=self._seen))

    # -- the model -------------------------------------------------------------------------------------------------

    def _encode(self, indices: Sequence[int] | np.ndarray) -> Tensor:
        """Encoded configurations, `(n, d)` float64."""
        from .surrogate.encoded_gp import MixedEncoding

        return MixedEncoding(self._space())(indices)

    def _fit(self, x: Tensor, y: Tensor) -> Surrogate:
        """The model of standardised targets `(n,)`, larger is better."""
        from .surrogate.encoded_gp import MixedEncoding, fit_mixed

        return fit_mixed(x, y, MixedEncoding(self._space()), self.fit_steps)
