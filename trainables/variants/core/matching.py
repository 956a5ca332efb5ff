"""Ranks that make variants comparable, and configurations that cannot be trained, known without training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from trainables.variants import get_variant
from trainables.variants.core.base import Variant
from trainables.variants.core.config import AdapterConfig
from trainables.variants.core.matrices import Matrix, select_matrices


def matched_rank(
    variant: type[Variant], matrices: Sequence[Matrix], rank: int, options: Mapping[str, Any] | None = None
) -> int:
    """The rank at which a variant trains the number of parameters nearest to LoRA's at `rank`.

    LoRA trains `rank * (m + n)` per matrix. Looked at are ranks up to the smallest side of the matrices, or up
    to the largest one where the variant's rank has no limit (VeRA, whose time grows with the rank and whose
    number stays below LoRA's there). Ties go to the smaller rank; where the variant's number does not depend
    on its rank (full fine-tuning), `rank` comes back.
    """
    shapes = Counter((matrix.rows, matrix.columns) for matrix in matrices)

    def trained(r: int) -> int:
        return sum(count * variant.parameters_under(options or {}, *shape, r) for shape, count in shapes.items())

    limit = min(min(shape) for shape in shapes) if variant.rank_limited else max(max(shape) for shape in shapes)
    target = rank * sum(count * sum(shape) for shape, count in shapes.items())
    if trained(1) == trained(limit) or trained(rank) == target:
        return rank
    return min(range(1, limit + 1), key=lambda r: (abs(trained(r) - target), r))


def effective_rank(
    model: nn.Module,
    variant: type[Variant],
    placement: str | Iterable[str],
    rank: int,
    match: str | None,
    options: Mapping[str, Any] | None = None,
) -> int:
    """The rank to attach with: the nominal one, or with `match` = "lora" that of `matched_rank`."""
    return rank if match is None else matched_rank(variant, select_matrices(model, placement), rank, options)


def impossible(
    model: nn.Module,
    variant: str,
    ranks: Iterable[int],
    options: Mapping[str, Sequence[Any]],
    placement: str | Sequence[str] = "all-linear",
    match: str | None = None,
) -> str | None:
    """Why no trial of a variant can be attached to a model, in one line; None where some can.

    Args:
        model: the base; its weights are not read, so it may lie on the meta device.
        ranks: the nominal ranks of the space.
        options: option name -> its values, each of which must work with some rank; names that the variant
            does not have are left to others.
    """
    cls = get_variant(variant)
    wanted = [{}, *({name: value} for name in sorted(set(options) & set(cls.options)) for value in options[name])]
    first = {name: values[0] for name, values in options.items() if name in cls.options}
    for extra in wanted:
        problem = ""
        for rank in sorted(set(ranks)):
            try:
                used = effective_rank(model, cls, placement, rank, match, first | extra)
                cls.check(model, AdapterConfig(used, 1.0, placement=_names(placement), extra=first | extra))
                break
            except ValueError as error:
                problem = problem or str(error)
        else:
            return problem
    return None


def _names(placement: str | Sequence[str]) -> str | tuple[str, ...]:
    return placement if isinstance(placement, str) else tuple(placement)
