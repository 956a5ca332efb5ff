"""CodeFeedback (Zheng et al., 2024, arXiv:2402.14658): trained on its answers, measured on HumanEval and MBPP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raylora.tasks.code.mbpp import STOP
from raylora.tasks.programs import HUMANEVAL, MBPP, CodeTask
from raylora.tasks.scoring import Entry


class CodeFeedbackTask(CodeTask):
    """Train: `query` and `answer`, or `messages`; trials go by their loss. Test: pass@1 on both sets, greedy."""

    name = "code_feedback"
    summary = "CodeFeedback, measured on humaneval and mbpp by pass@k in the sandbox"
    sets = {"humaneval": HUMANEVAL, "mbpp": MBPP}
    stop = STOP
    default_metrics: Sequence[Entry] = ("loss",)
    tested_only = frozenset({"pass_at_k"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.default_metrics = ("loss", *({name: "pass_at_k"} for name in self.test_sets))

    def _train(self) -> Any:
        return "m-a-p/CodeFeedback-Filtered-Instruction" if self.path is None else super()._train()
