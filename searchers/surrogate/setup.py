"""How a surrogate is built and what it looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .learned import Learned


@dataclass(frozen=True)
class Setup:
    """How a surrogate is built and what it looks at; `presets.PRESETS` has the two published combinations.

    Attributes:
        language: whether hidden states of the language model are part of the kernel; knobs: whether the knobs are.
        knowledge: published knowledge as prior mean and for the first points (see `knowledge`).
        prompt_style, prompt: see `prompt.Prompt`; `prompt` is a template file.
        projection: width of the projection, None for none; dropout: of it, while fitting.
        token: whether the token behind the prompt is learned.
        acquisition: one of `acquisition.ACQUISITIONS`. warp: draw in the bad half of the values (see `targets`).
        priors: see `deep_kernel.Surrogate`. smooth: the incumbent is a posterior mean, not an observed value.
        pool: most candidates. A larger space is scored on a seeded subset and the neighbours of the best.
        subset: the same where prompts cannot share their prefixes.
        fit_steps: most AdamW steps per request; token_every: the token moves in every so many-th of them.
        warm_start: whether a request goes on from the kernel and projection of the one before, or fits them afresh.
        kv_budget_gb: most memory for keys and values. cache: whether to keep what was read on disk.
        device, num_gpus, dtype, token_dtype: see `embed`. threads: torch threads on the CPU; None is one beside trials,
            else what the process has.
        samples, parameters, prior, ratios, prior_shift, scales, learned, family: see `knowledge.Knowledge` (`beliefs`,
            `misplaced`).
        learn_from: earlier results, see `transfer.Source`.
    """

    language: bool = True
    knobs: bool = True
    knowledge: bool = True
    prompt_style: str = "default"
    prompt: str | None = None
    projection: int | None = 32
    dropout: float = 0.1
    token: bool = False
    acquisition: str = "logei"
    warp: bool = True
    priors: bool = True
    smooth: bool = True
    pool: int = 50_000
    subset: int = 512
    fit_steps: int = 60
    token_every: int = 6
    warm_start: bool = False
    kv_budget_gb: float = 3.0
    cache: bool = True
    device: str = "auto"
    num_gpus: float = 0.0
    dtype: str | None = None
    token_dtype: str | None = None
    threads: int | None = None
    samples: int | None = None
    parameters: float | None = None
    prior: Mapping[str, object] = field(default_factory=dict)
    ratios: Mapping[str, float] = field(default_factory=dict)
    prior_shift: float = 1.0
    learn_from: Sequence[Mapping[str, object]] = ()
    scales: Mapping[str, str] | None = None
    learned: Learned | None = None
    family: str | None = None
