"""What the tasks of code share: rows with tests, and the metric that runs them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raylora.data.conversation import Columns
from raylora.metrics import Metric
from raylora.metrics.pass_at_k import PassAtK
from raylora.tasks.code import humaneval, mbpp
from raylora.tasks.code.check import CheckByRow
from raylora.tasks.prompts import first, row
from raylora.tasks.published import Published, PublishedTask
from raylora.tasks.sandbox import available, permitted
from raylora.tasks.sandbox.kinds import choose


def humaneval_row(raw: Mapping[str, object], form: str) -> Columns:
    """HumanEval's and EvalPlus' rows: the prompt as it is, and the tests in the metadata."""
    kept = {name: raw.get(name) for name in ("task_id", "prompt", "entry_point", "test")}
    return row(
        humaneval.prompt(raw), first(raw, "canonical_solution"), first(raw, "entry_point"), form="humaneval", **kept
    )


def mbpp_row(raw: Mapping[str, object], form: str) -> Columns:
    """MBPP's rows: the published prompt without examples, and the tests in the metadata."""
    names = ("task_id", "test_list", "test_setup_code", "test_imports", "challenge_test_list")
    kept = {name: raw.get(name) for name in names}
    code = (first(raw, "code") or "").replace("\r\n", "\n")
    return row(mbpp.prompt(raw), code, code, form="mbpp", **kept)


HUMANEVAL = Published(
    needs=(("prompt", "entry_point", "test"),),
    make=humaneval_row,
    hub={"test": "openai/openai_humaneval"},
    folders=("humaneval", "HumanEval", "humanevalplus", "HumanEvalPlus"),
)
MBPP = Published(
    needs=(("text", "test_list", "code"), ("prompt", "test_list", "code")),
    make=mbpp_row,
    hub={
        split: {"path": "google-research-datasets/mbpp", "name": "full", "split": split}
        for split in ("train", "validation", "test")
    },
    folders=("mbpp", "MBPP", "mbppplus", "MbppPlus"),
)


class CodeTask(PublishedTask):
    """A task whose answers are programs, run in the sandbox.

    Raises:
        UserError: no sandbox can be had here, and unsafe code is not permitted.
    """

    longest = 384

    def __init__(self, **options: Any) -> None:
        self.unsafe = permitted()
        kind = choose(None, unsafe=self.unsafe)
        said = str(available()) if kind != "none" else "sandbox: none; programs run as you (--unsafe-code)"
        self.notes = (said,)
        super().__init__(**options)

    def prepared(self, metric: Metric) -> Metric:
        if isinstance(metric, PassAtK):
            metric.use(CheckByRow(unsafe=self.unsafe))
        return metric
