"""Latent Bayesian optimisation: a Gaussian process on learned features of the knobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Unpack

from .base import Common
from .errors import OptionError
from .gp import GPSearch

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from torch import Tensor

    from .surrogate.encoded_gp import Surrogate


class LatentBOSearch(GPSearch):
    """A feature extractor (two blocks of linear and ReLU, width 64) under a Gaussian process, trained together.

    Each configuration is the vector of its encoded knobs (`Space.features`). Extractor, Matern-5/2 kernel, mean and
    noise start afresh for every suggestion and maximise the marginal likelihood. Initial points, candidates, running
    trials and LogEI as in `GPSearch`. Arguments as for `SpaceSearcher` and `GPSearch`, and:

    Args:
        width: of both blocks.
        fit_steps: steps of AdamW per suggestion.

    Raises:
        ValueError: a value outside its domain; the message names it.

    Reference: the baseline LBO of "Efficient hyper-parameter search for LoRA via language-aided Bayesian optimization",
    appendix B, after Lee et al., "Latent Bayesian optimization via autoregressive normalizing flows", 2025. That
    method's normalising flow, which decodes latent vectors into structures, has no place in an enumerable space.
    """

    name: ClassVar[str] = "latent"
    summary: ClassVar[str] = "Gaussian process on a learned feature extractor over the knobs (latent BO)"
    belief: ClassVar[str] = "its own Gaussian process on learned features"

    def __init__(
        self,
        *,
        n_initial: int = 5,
        candidates: int = 50_000,
        fit_steps: int = 100,
        width: int = 64,
        **common: Unpack[Common],
    ) -> None:
        if width < 1:
            raise OptionError("width", f"{width!r} is too small; use 1 or more", value=width)
        self.width = width
        super().__init__(n_initial=n_initial, candidates=candidates, fit_steps=fit_steps, **common)

    def _encode(self, indices: Sequence[int] | np.ndarray) -> Tensor:
        import torch

        return torch.from_numpy(self._space().features(indices))

    def _fit(self, x: Tensor, y: Tensor) -> Surrogate:
        from .surrogate.encoded_gp import fit_latent

        return fit_latent(x, y, width=self.width, steps=self.fit_steps, seed=self.seed * 1000 + len(y))
