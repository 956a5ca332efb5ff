"""EVA: start from the directions in which the layer's inputs vary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from trainables.variants.core.config import AdapterConfig, Batches
from trainables.variants.core.data_start import IGNORED, attended_tokens, check_batches, observe_inputs, start_from_data
from trainables.variants.core.matrices import Matrix, compact_names
from trainables.variants.core.options import check_choice, check_number
from trainables.variants.core.peft_variant import PeftVariant

if TYPE_CHECKING:
    from peft import PeftConfig


class Eva(PeftVariant):
    """LoRA whose A0 holds the top principal components of the layer's inputs, B0 = 0, and ranks are shared out.

    Paischer et al., Parameter Efficient Fine-tuning via Explained Variance Adaptation, arXiv 2410.07170,
    section 3. The r x (number of matrices) ranks go to the components with the largest explained variance
    ratios over all matrices, at most `rho` r to one; a matrix may get none. The scale stays alpha / r.
    `label_mask`: only tokens that carry loss count.

    PEFT's `eva` is plain LoRA unless `initialize_lora_eva_weights` was called, which then repeats the batches
    until every component has settled: without end where there are fewer tokens than components. So its
    incremental PCA is used here for one pass over the first global batch, and too few tokens are an error.
    """

    name = "eva"
    summary = "LoRA that starts from the inputs' principal components and shares ranks out by their variance"
    paper = "arXiv 2410.07170"
    parameters = "r_i (m + n), mean of r_i = r"
    shares_pass = "factors"
    options = {"rho": 2.0, "label_mask": True}

    @classmethod
    def check_options(cls, config: AdapterConfig, matrices: Sequence[Matrix]) -> None:
        check_number(cls, config, "rho", lambda value: value >= 1, "use a number of at least 1")
        check_choice(cls, config, "label_mask", (True, False))

    def build(self, model: nn.Module, batches: Batches | None) -> nn.Module:
        given = check_batches(self.name, batches)
        found = start_from_data(self, model, given, lambda: self._principal_components(model, given))
        ratios = {matrix.name: found[f"{matrix.name}.ratios"].tolist() for matrix in self.matrices}
        self._ranks = share_ranks(ratios, self.config.rank * len(self.matrices))
        module = super().build(model, batches)
        with torch.no_grad():
            for name, rank in self._ranks.items():
                if rank:
                    a, b = self.factors(name)
                    a.copy_(found[f"{name}.components"][:rank])
                    b.zero_()
        return module

    def peft_config(self, targets: list[str]) -> PeftConfig:
        names = [name for name, rank in self._ranks.items() if rank]
        return super().peft_config(compact_names(self.module, names))

    def lora_settings(self) -> dict[str, object]:
        config = self.config
        ranks = {name: rank for name, rank in self._ranks.items() if rank not in (0, config.rank)}
        alphas = {name: config.alpha * rank / config.rank for name, rank in ranks.items()}
        return {"rank_pattern": ranks, "alpha_pattern": alphas, "init_lora_weights": False}

    def matrix_rank(self, name: str) -> int:
        return self._ranks[name]

    def _principal_components(self, model: nn.Module, batches: Batches) -> dict[str, Tensor]:
        """Components `(k, n)` of each matrix's inputs, and their shares `(k,)` of the variance, largest first."""
        masks = {id(batch): self._counted_tokens(batch) for batch in batches}
        tokens = sum(int(mask.sum()) for mask in masks.values())
        most = min(round(self.config.rank * self.option("rho")), tokens - 1)
        if most < self.config.rank:
            raise ValueError(
                f"variant eva: the first batch has {tokens} tokens to look at, rank {self.config.rank} needs one more "
                "than the rank: use a larger batch, a smaller rank or label_mask false"
            )
        found: dict[str, _Components] = {}

        def fit(name: str, inputs: Tensor, batch: Mapping[str, Tensor]) -> None:
            if name not in found:
                # Twice as many as are used: what an incremental PCA drops between pieces costs the last ones accuracy.
                found[name] = _Components(min(2 * most, tokens - 1, inputs.shape[-1]))
            found[name].add(inputs[masks[id(batch)]])

        leaders = observe_inputs(model, self.matrices, batches, fit)
        for part in found.values():
            part.finish()
        parts = {}
        for matrix in self.matrices:
            pca, count = found[leaders[matrix.name]].pca, min(most, matrix.rows, matrix.columns)
            parts[f"{matrix.name}.components"] = pca.components_[:count]
            parts[f"{matrix.name}.ratios"] = pca.explained_variance_ratio_[:count]
        return parts

    def _counted_tokens(self, batch: Mapping[str, Tensor]) -> Tensor:
        mask = attended_tokens(batch)
        labels = batch.get("labels") if self.option("label_mask") else None
        # A row to classify has one label: all of its tokens count.
        return mask if labels is None or labels.ndim == 1 else mask & (labels != IGNORED)


class _Components:
    """PEFT's incremental PCA of inputs that come in pieces of any size: each fit gets at least k of them."""

    def __init__(self, k: int) -> None:
        from peft.utils.incremental_pca import IncrementalPCA

        self.k = k
        self.pca = IncrementalPCA(n_components=k, lowrank=True)
        self.waiting: Tensor | None = None

    def add(self, inputs: Tensor) -> None:
        if self.waiting is not None and min(len(self.waiting), len(inputs)) < self.k:
            inputs = torch.cat([self.waiting, inputs])
        elif self.waiting is not None:
            self._fit(self.waiting)
        self.waiting = inputs

    def finish(self) -> None:
        assert self.waiting is not None
        self._fit(self.waiting)
        self.waiting = None

    def _fit(self, inputs: Tensor) -> None:
        # Twice the components, PEFT's choice, may be more than a small piece has.
        self.pca.lowrank_q = min(2 * self.k, *inputs.shape)
        self.pca.partial_fit(inputs)


def share_ranks(ratios: Mapping[str, Sequence[float]], budget: int) -> dict[str, int]:
    """How many of the `budget` largest ratios each matrix has; ties go to the earlier matrix."""
    ordered = sorted(((-ratio, name) for name, row in ratios.items() for ratio in row), key=lambda pair: pair[0])
    counts = dict.fromkeys(ratios, 0)
    for _, name in ordered[:budget]:
        counts[name] += 1
    return counts
