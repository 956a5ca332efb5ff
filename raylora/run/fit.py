"""Whether the variants of a spec can be attached to its model at all, found out before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raylora.errors import UserError
from raylora.spec import Spec
from trainables.protocols import TrainSettings

if TYPE_CHECKING:
    from ray.actor import ActorHandle


def check_fit(spec: Spec, settings: TrainSettings, model_folder: str, hosts: Sequence[ActorHandle]) -> None:
    """Refuses variants, placements and options that no trial of the spec could be attached with.

    Args:
        hosts: running ModelHosts, the first of which is asked; without one, a task reads the model's
            configuration. This process imports no torch either way.

    Errors: UserError, one line.
    """
    import ray

    from trainables.host import find_impossible

    recipe = spec.default_recipe
    spaces: list[tuple[str, str, Sequence[int], Mapping[str, Sequence[Any]]]]
    spaces = [("space", name, spec.space.rank, dict(spec.space.extra)) for name in spec.space.variant]
    if spec.final.enabled:
        extra = {name: [value] for name, value in recipe.extra.items()}
        spaces.append(("default_recipe", recipe.variant, [recipe.rank], extra))
    asked = [(variant, ranks, options) for _, variant, ranks, options in spaces]
    if hosts:
        problems = ray.get(hosts[0].impossible.remote(asked))
    else:
        find = ray.remote(find_impossible).options(num_cpus=0)
        problems = ray.get(find.remote(model_folder, asked, settings))
    for (field, *_), problem in zip(spaces, problems, strict=True):
        if problem is not None:
            raise UserError(f"{field}: {problem}")
