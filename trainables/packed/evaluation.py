"""Trials that are scored together: one batch of answers has rows of several adapters."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from trainables.decode import Decoded
from trainables.evaluation import decode, judge
from trainables.journal import Metrics
from trainables.modes import evaluating
from trainables.packed.mixture import Mixture
from trainables.packed.run import PackedRun
from trainables.packed.trunk import Trunk
from trainables.protocols import Row, Scorer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def evaluate_together(
    trunk: Trunk,
    runs: Sequence[PackedRun],
    rows: Sequence[Row],
    scorer: Scorer,
    tokenizer: PreTrainedTokenizerBase,
) -> list[Callable[[], Metrics]]:
    """What each run's answers to the rows are worth, as `evaluate_model` gives it for one, `(n runs,)`.

    Answers and losses are there when this returns, from batches with rows of all runs; each run's figures are made by
    a call of their own, which may fail for reasons of its own. `eval_s` has an equal part of the common time.
    """
    started = time.perf_counter()
    own = list(rows)
    mixture = Mixture([run.adapter for run in runs])

    def told(places: Sequence[int]) -> None:
        mixture.assign([place // len(own) for place in places])

    with ExitStack() as stack:
        for run in runs:
            stack.enter_context(evaluating(run.adapted))
        module = stack.enter_context(trunk.mixed(mixture))
        decoded = decode(module, own * len(runs), scorer, tokenizer, device=runs[0].device, told=told)
    parts = [decoded.part(slice(at * len(own), (at + 1) * len(own))) for at in range(len(runs))]
    seconds = (time.perf_counter() - started) / len(runs)

    def judged(run: PackedRun, part: Decoded) -> Metrics:
        with evaluating(run.adapted), trunk.mixed(Mixture([run.adapter])) as module:
            return judge(part, module, own, scorer, tokenizer, decoding_s=seconds)

    return [partial(judged, run, part) for run, part in zip(runs, parts, strict=True)]
