"""Ranks that make variants comparable, and configurations that cannot be trained, known without training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product

from torch import nn

from trainables.variants import get_variant
from trainables.variants.core.base import Variant
from trainables.variants.core.config import AdapterConfig
from trainables.variants.core.matrices import Matrix, select_matrices

# Combinations of options that are looked at for one that can be had with a rank.
_MOST_TRIED = 1000


def matched_rank(
    variant: type[Variant], matrices: Sequence[Matrix], rank: int, options: Mapping[str, object] | None = None
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
    options: Mapping[str, object] | None = None,
) -> int:
    """The rank to attach with: the nominal one, or with `match` = "lora" that of `matched_rank`."""
    return rank if match is None else matched_rank(variant, select_matrices(model, placement), rank, options)


@dataclass(frozen=True)
class Possible:
    """What a variant can be attached to a model with.

    Attributes:
        ranks: nominal rank -> option -> those of its values that can be had with that rank; ranks that cannot be had
            are missing.
        problems: `(what is left out, why)`, for each rank and each value of an option that is missing everywhere or at
            some rank: `("rank 256", OptionError("variant pissa: rank 256 exceeds ..."))`.
    """

    ranks: dict[int, dict[str, list[object]]]
    problems: list[tuple[str, ValueError]]


def possible(
    model: nn.Module,
    variant: str,
    ranks: Iterable[int],
    options: Mapping[str, Sequence[object]],
    placement: str | Sequence[str] = "all-linear",
    match: str | None = None,
) -> Possible:
    """Which of a space's ranks and values of options a variant can be attached to a model with.

    Args:
        model: the base; its weights are not read, so it may lie on the meta device.
        ranks: the nominal ranks of the space.
        options: option name -> its values; names that the variant does not have are left to others.
    """
    cls = get_variant(variant)
    own = {name: list(values) for name, values in options.items() if name in cls.options}
    found: dict[int, dict[str, list[object]]] = {}
    problems: list[tuple[str, ValueError]] = []

    def why_not(rank: int, extra: Mapping[str, object]) -> ValueError | None:
        try:
            used = effective_rank(model, cls, placement, rank, match, extra)
            cls.check(model, AdapterConfig(used, 1.0, placement=_names(placement), extra=extra))
        except ValueError as error:
            return error.with_traceback(None)
        return None

    for rank in sorted(set(ranks)):
        # From a combination that can be had, one option at a time.
        combinations = (dict(zip(own, values, strict=True)) for values in product(*own.values()))
        reasons: list[ValueError] = []
        for start in islice(combinations, _MOST_TRIED):
            reason = why_not(rank, start)
            if reason is None:
                break
            reasons.append(reason)
        else:
            problems.append((f"rank {rank}", reasons[0]))
            continue
        kept: dict[str, list[object]] = {name: [] for name in own}
        for name, values in own.items():
            for value in values:
                reason = why_not(rank, start | {name: value})
                if reason is None:
                    kept[name].append(value)
                else:
                    problems.append((f"{name} {value} at rank {rank}", reason))
        found[rank] = kept
    return Possible(found, problems)


def _names(placement: str | Sequence[str]) -> str | tuple[str, ...]:
    return placement if isinstance(placement, str) else tuple(placement)
