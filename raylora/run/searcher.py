"""From a spec to its searcher and to Tune's scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raylora.spec import Spec


def build_searcher(
    spec: Spec, task: Any, samples: int, quiet: bool = False, ratios: Mapping[str, float] | None = None
) -> Any:
    """The spec's searcher over its space, for trials of that many training samples.

    Args:
        ratios: measured best rates of variants over LoRA's; they win over published ones.
    """
    from raylora import models
    from raylora.run.earlier import read_source
    from searchers import make_searcher
    from searchers.surrogate.knowledge import VARIANTS

    options = dict(spec.search.options)
    if spec.search.searcher == "language":
        from searchers.language import reads_language

        if reads_language(options):
            options.setdefault("llm", str(models.resolve(spec.search.llm, quiet=quiet)))
        options.setdefault("samples", samples)
        options.setdefault("parameters", models.parameter_count(models.resolve(spec.model, quiet=quiet)))
        options.setdefault("prior", spec.search.prior)
        # Its steps are those of full fine-tuning by construction, which curvature at the start does not show.
        own = {"loft": VARIANTS["full"].value}
        options["ratios"] = {**(ratios or {}), **own, **options.get("ratios", {})}
        options.setdefault("prompt", spec.search.prompt)
        options.setdefault("learn_from", [read_source("search.learn_from", s) for s in spec.search.learn_from])
    return make_searcher(
        spec.search.searcher,
        space=spec.to_space(),
        metric=task.metric,
        mode=task.mode,
        seed=spec.seed,
        worst=task.worst,
        **options,
    )


def scheduler(spec: Spec, samples: int) -> Any:
    """Tune's scheduler over the samples seen; None runs every trial to its end."""
    from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule

    grace = max(1, samples // spec.reports)
    if spec.search.scheduler == "asha":
        return ASHAScheduler(time_attr="samples", max_t=samples, grace_period=grace, reduction_factor=2)
    if spec.search.scheduler == "median":
        return MedianStoppingRule(time_attr="samples", grace_period=grace, min_samples_required=3)
    return None
