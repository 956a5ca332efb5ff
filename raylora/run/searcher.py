"""From a spec to its searcher and to Tune's scheduler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from raylora.errors import UserError
from raylora.spec import Spec
from searchers.surrogate.link import LOSS

# Nats per token that a trial counts with that has no loss.
WORST_LOSS = 20.0

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler

    from raylora.tasks import Task
    from searchers.base import SpaceSearcher
    from searchers.space import Space


def build_searcher(
    spec: Spec,
    task: Task,
    samples: int,
    quiet: bool = False,
    ratios: Mapping[str, float] | None = None,
    space: Space | None = None,
    say: Callable[[str], None] = lambda line: None,
    seconds: Callable[[], Mapping[str, Any]] | None = None,
) -> SpaceSearcher:
    """The spec's searcher over its space, for trials of that many training samples.

    Args:
        space: the spec's space as it is fitted to the model (`fit_space`); the spec's own otherwise.
        ratios: measured best rates of variants over LoRA's; they win over published ones.
        seconds: what trials are predicted to take, asked where the searcher wants it; see `searchers.gp`.
        say: is told of what the user believes of values that the fitted space does not have.
    """
    from searchers import SEARCHERS, make_searcher

    options = dict(spec.search.options)
    for want in sorted(SEARCHERS[spec.search.searcher].wants(options)):
        if want == "ratios":
            options["ratios"] = {**(ratios or {}), **_kinship(spec), **options.get("ratios", {})}
        elif want not in options:
            options[want] = _known(want, spec, samples, quiet, seconds)
    searched = spec.to_space() if space is None else space
    if options.get("prior"):
        options["prior"] = _possible(options["prior"], SEARCHERS[spec.search.searcher], searched, say)
    # Forecasts are of the loss: under `curve` it is what the searcher is told of.
    loss = spec.search.scheduler == "curve"
    return make_searcher(
        spec.search.searcher,
        space=searched,
        metric=LOSS if loss else task.metric,
        mode="min" if loss else task.mode,
        seed=spec.seed,
        worst=WORST_LOSS if loss else task.worst,
        **options,
    )


def _possible(
    prior: Mapping[str, Any], searcher: type[SpaceSearcher], space: Space, say: Callable[[str], None]
) -> dict[str, object]:
    """The beliefs that speak of the space: it has been fitted to the model since they were checked."""
    kept = dict(prior)
    for name, value in prior.items():
        try:
            searcher.check({"prior": {name: value}}, space)
        except ValueError:
            del kept[name]
            say(f"search.prior.{name} = {value!r}: left out, as the model cannot have it")
    return kept


def _known(
    want: str, spec: Spec, samples: int, quiet: bool, seconds: Callable[[], Mapping[str, Any]] | None = None
) -> object:
    """What a run knows of what searchers may want, see `SpaceSearcher.wants`."""
    from raylora import models
    from raylora.run.earlier import read_source
    from trainables.variants import scale_rules

    search = spec.search
    known: dict[str, Callable[[], object]] = {
        "samples": lambda: samples,
        "seconds": lambda: None if seconds is None else seconds(),
        "parameters": lambda: _size(spec, quiet)[0],
        "family": lambda: _size(spec, quiet)[1],
        "scales": scale_rules,
        "llm": lambda: str(models.resolve(search.llm, quiet=quiet)),
        "prior": lambda: search.prior,
        "prompt": lambda: search.prompt,
        "learn_from": lambda: [read_source("search.learn_from", source) for source in search.learn_from],
    }
    if want not in known:
        allowed = ", ".join(sorted([*known, "ratios"]))
        raise UserError(
            f"search.searcher = {search.searcher!r}: wants {want!r}; allowed: {allowed}",
            field="search.searcher",
            value=search.searcher,
        )
    return known[want]()


def _size(spec: Spec, quiet: bool) -> tuple[float | None, str | None]:
    """Active parameters and family of the model; its weights are counted where its config does not tell."""
    from raylora import models
    from raylora.run.sizes import size_of

    try:
        size = size_of(spec.model)
    except UserError:
        return models.parameter_count(models.resolve(spec.model, quiet=quiet)), None
    return size.active, size.family


def _kinship(spec: Spec) -> dict[str, float]:
    """Best rates, over LoRA's, of variants that share another's by construction."""
    from searchers.surrogate.facts import VARIANTS
    from trainables.variants import declared

    kin = {name: declared(name).rate_of for name in spec.space.variant}
    return {name: VARIANTS[other].value for name, other in kin.items() if other in VARIANTS}


def scheduler(spec: Spec, samples: int) -> TrialScheduler | None:
    """Tune's scheduler over the samples seen; None runs every trial to its end."""
    from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule

    grace = max(1, samples // spec.reports)
    if spec.search.scheduler == "asha":
        return ASHAScheduler(time_attr="samples", max_t=samples, grace_period=grace, reduction_factor=2)
    if spec.search.scheduler == "median":
        return MedianStoppingRule(time_attr="samples", grace_period=grace, min_samples_required=3)
    return None
