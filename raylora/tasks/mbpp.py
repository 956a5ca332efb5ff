"""MBPP (Austin et al., 2021, arXiv:2108.07732): short functions, trained on its own train split."""

from __future__ import annotations

from raylora.tasks.code.mbpp import STOP
from raylora.tasks.programs import MBPP, CodeTask


class MbppTask(CodeTask):
    """A sentence and three assertions -> the function; pass@1, greedy."""

    name = "mbpp"
    summary = "short programs (MBPP), by pass@k in the sandbox"
    data = MBPP
    stop = STOP
    default_metrics = ("pass_at_k",)
