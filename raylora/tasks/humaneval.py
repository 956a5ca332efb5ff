"""HumanEval (Chen et al., 2021, arXiv:2107.03374), after training on rows of your own."""

from __future__ import annotations

from raylora.tasks.programs import HUMANEVAL, CodeTask


class HumanEvalTask(CodeTask):
    """Measured by pass@1, greedy; trained on `task.train`, rows of which score the trials by their loss."""

    name = "humaneval"
    summary = "your own rows, measured on HumanEval by pass@k in the sandbox"
    sets = {"humaneval": HUMANEVAL}
    default_metrics = ("loss", {"humaneval": "pass_at_k"})
    tested_only = frozenset({"pass_at_k"})
