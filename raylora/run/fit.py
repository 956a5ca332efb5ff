"""The space of a run: that of its spec, less what its variants cannot have on its model, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raylora.errors import UserError
from raylora.spec import Spec
from searchers.space import Limit, Space
from trainables.heads import LANGUAGE, Head
from trainables.protocols import TrainSettings

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from trainables.variants.core.matching import Possible

# Things of one kind that are named in the line; the rest are counted.
_NAMED = 4


@dataclass(frozen=True)
class Fitted:
    """What is searched.

    Attributes:
        space: the spec's, without what no trial can have.
        left_out: what that was and why, in one line; None where nothing was.
    """

    space: Space
    left_out: str | None = None


def fit_space(
    spec: Spec, settings: TrainSettings, model_folder: str, hosts: Sequence[ActorHandle], head: Head = LANGUAGE
) -> Fitted:
    """The spec's space, fitted to the model and to the trials' budget.

    A variant, a rank or a value of an option that cannot be attached to the model is left out, under the variant (and
    the rank) where that is so, and so are batches larger than all that a trial is trained on, which would be one batch
    under several names. The default recipe is not changed: it must be possible as it is.

    Args:
        hosts: running ModelHosts, the first of which is asked; without one, a task reads the model's
            configuration. This process imports no torch either way.
        head: what the model answers with.

    Errors: UserError, one line, where nothing is left or the default recipe is impossible.
    """
    extra = dict(spec.space.extra)
    asked: list[tuple[str, Sequence[int], Mapping[str, Sequence[object]]]]
    asked = [(name, spec.space.rank, extra) for name in spec.space.variant]
    if spec.final.enabled:
        recipe = spec.default_recipe
        asked.append((recipe.variant, [recipe.rank], {name: [value] for name, value in recipe.extra.items()}))
    found = _ask(asked, settings, model_folder, hosts, head)
    fitted = _fitted(spec, settings.samples, dict(zip(spec.space.variant, found, strict=False)))
    if spec.final.enabled and found[-1].problems:
        raise _impossible("default_recipe", found[-1])
    return fitted


def _ask(
    asked: Sequence[object], settings: TrainSettings, model_folder: str, hosts: Sequence[ActorHandle], head: Head
) -> Any:
    import ray

    from trainables.host import find_possible

    if hosts:
        return ray.get(hosts[0].possible.remote(asked))
    return ray.get(ray.remote(find_possible).options(num_cpus=0).remote(model_folder, asked, settings, head))


def _fitted(spec: Spec, samples: int, found: Mapping[str, Possible]) -> Fitted:
    variants = [name for name, possible in found.items() if possible.ranks]
    if not variants:
        raise _impossible("space", next(iter(found.values())))
    had = {name: found[name] for name in variants}
    ranks = [rank for rank in spec.space.rank if any(rank in possible.ranks for possible in had.values())]
    # As the spec has it: what no variant here reads is dropped there, not here.
    extra = {
        name: [v for v in values if v in kept] if (kept := _kept(name, had)) is not None else values
        for name, values in spec.space.extra.items()
    }
    batches = [b for b in spec.space.batch_size if b <= samples] or [min(spec.space.batch_size)]
    changed = {
        "variant": variants,
        "rank": ranks,
        "extra": {k: v for k, v in extra.items() if v},
        "batch_size": batches,
    }
    part = spec.space.model_copy(update=changed)
    limits = [limit for name, possible in had.items() for limit in _limits(name, possible, ranks, part.extra)]
    told = list(_left_out(found))
    large = [batch for batch in spec.space.batch_size if batch not in batches]
    if large:
        told.append(f"batch_size {', '.join(map(str, large))} (a trial has {samples} samples)")
    line = f"space: left out {'; '.join(told)}" if told else None
    return Fitted(Space.from_dict(part.knobs(), when=part.conditions(), limits=limits), line)


def _impossible(part: str, possible: Possible) -> UserError:
    """Of a recipe or a space: the first reason why nothing of it can be had."""
    why = possible.problems[0][1]
    # The recipe has no placement of its own.
    field = "space.placement" if getattr(why, "field", "") == "placement" else ""
    return UserError.around(f"{part}: ", why, field=field)


def _kept(option: str, found: Mapping[str, Possible]) -> list[Any] | None:
    """An option's values that can be had at all; None where no variant reads it."""
    lists = [options[option] for one in found.values() for options in one.ranks.values() if option in options]
    return [value for values in lists for value in values] if lists else None


def _limits(
    variant: str, possible: Possible, ranks: Sequence[int], extra: Mapping[str, Sequence[object]]
) -> Iterator[Limit]:
    """What a variant cannot have of the values that others, or it at another rank, can."""
    own = [rank for rank in ranks if rank in possible.ranks]
    if len(own) < len(ranks):
        yield Limit("rank", tuple(own), {"variant": (variant,)})
    for option, values in extra.items():
        for rank in own:
            kept = possible.ranks[rank].get(option)
            if kept is not None and len(kept) < len(values):
                yield Limit(option, tuple(kept), {"variant": (variant,), "rank": (rank,)})


def _left_out(found: Mapping[str, Possible]) -> Iterator[str]:
    """In words, what each variant goes without, with the first reason."""
    for name, possible in found.items():
        if not possible.problems:
            continue
        whats, (_, why) = [what for what, _ in possible.problems], possible.problems[0]
        reason = str(why).removeprefix(f"variant {name}: ")
        if not possible.ranks:
            yield f"variant {name} ({reason})"
            continue
        more = f" and {len(whats) - _NAMED} more" if len(whats) > _NAMED else ""
        yield f"{', '.join(whats[:_NAMED])}{more} for {name} ({reason})"
