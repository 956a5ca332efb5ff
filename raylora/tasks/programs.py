"""What the tasks of code share: rows with tests, and the metric that runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from raylora.data.conversation import BadTurn, Columns
from raylora.data.files import hub_files, is_hub_id
from raylora.data.readers import format_of, plan, read
from raylora.errors import UserError
from raylora.metrics import Metric
from raylora.metrics.pass_at_k import PassAtK
from raylora.tasks.code import humaneval, mbpp
from raylora.tasks.code.check import CheckByRow
from raylora.tasks.prompts import as_list, first, row
from raylora.tasks.published import Published, PublishedTask
from raylora.tasks.sandbox import available, permitted
from raylora.tasks.sandbox.kinds import choose


def humaneval_row(raw: Mapping[str, object], form: str) -> Columns:
    """HumanEval's and EvalPlus' rows: the prompt as it is, and the tests in the metadata."""
    kept = {name: raw.get(name) for name in ("task_id", "prompt", "entry_point", "test")}
    return row(
        humaneval.prompt(raw), first(raw, "canonical_solution"), first(raw, "entry_point"), form="humaneval", **kept
    )


def mbpp_row(raw: Mapping[str, object], form: str, shots: Sequence[Mapping[str, Any]] = ()) -> Columns:
    """MBPP's rows: the published prompt after these examples, and the tests in the metadata."""
    names = ("task_id", "test_list", "test_setup_code", "test_imports", "challenge_test_list", "test")
    tests = as_list(raw, "test_list")
    if not tests:
        raise BadTurn("no tests")
    raw = {**raw, "test_list": tests}
    kept = {name: raw.get(name) for name in names}
    code = (first(raw, "code") or "").replace("\r\n", "\n")
    return row(mbpp.prompt(raw, shots), code, code, form="mbpp", **kept)


HUMANEVAL = Published(
    needs=(("prompt", "entry_point", "test"),),
    make=humaneval_row,
    hub={"test": "openai/openai_humaneval"},
    folders=("humaneval", "HumanEval", "humanevalplus", "HumanEvalPlus"),
)
_MBPP_HUB = "google-research-datasets/mbpp"
MBPP = Published(
    needs=(("text", "test_list", "code"), ("prompt", "test_list", "code")),
    make=mbpp_row,
    hub={split: {"path": _MBPP_HUB, "name": "full", "split": split} for split in ("train", "validation", "test")},
    folders=("mbpp", "MBPP", "mbppplus", "MbppPlus"),
)


def with_shots(shots: int, path: str | None) -> tuple[Published, list[dict[str, Any]]]:
    """MBPP with the published three worked examples before each question, and these; as it is with no shots.

    Args:
        path: the file of the split `prompt`, or a folder that has it as `prompt.*`, also below `mbpp`; None or a hub id
            for the hub's.

    Raises:
        UserError: neither 0 nor 3, or the examples are not there.
    """
    if isinstance(shots, bool) or shots not in (0, len(mbpp.SHOTS)):
        raise UserError.at(
            "task.options.shots", f"{shots!r} is not allowed; give 0, or 3 for the published examples", value=shots
        )
    if not shots:
        return MBPP, []
    files = hub_files(_MBPP_HUB, "full", "prompt") if path is None or is_hub_id(path) else _prompt_files(Path(path))
    rows = [raw for file in files for part in plan(file) for _, raw in read(part) if not isinstance(raw, str)]
    examples = {int(raw["task_id"]): raw for raw in rows if str(raw.get("task_id", "")).isdigit()}
    missing = [number for number in mbpp.SHOTS if number not in examples]
    if missing:
        raise UserError.at(
            "task.options.shots",
            f"no worked examples with task_id {', '.join(map(str, missing))}; put MBPP's split prompt beside the "
            "others as prompt.parquet or prompt.jsonl",
            value=shots,
        )
    names = ("task_id", "text", "prompt", "code")
    chosen = [
        {
            **{name: examples[number][name] for name in names if name in examples[number]},
            "test_list": [str(test) for test in examples[number]["test_list"]],
        }
        for number in mbpp.SHOTS
    ]
    return replace(MBPP, make=partial(mbpp_row, shots=chosen)), chosen


def _prompt_files(path: Path) -> list[str]:
    place = path.expanduser()
    if place.is_file():
        place = place.parent
    inside = [place, *(place / name for name in MBPP.folders)]
    found = [file for folder in inside for file in sorted(folder.glob("prompt*")) if format_of(file.name)]
    return [str(file.resolve()) for file in found[:1]]


class CodeTask(PublishedTask):
    """A task whose answers are programs, run in the sandbox.

    Args:
        shots: worked examples before MBPP's questions: 0, or 3 for the published ones.

    Raises:
        UserError: no sandbox can be had here, and unsafe code is not permitted; or the examples are not there.
    """

    longest = 384

    def __init__(self, *, shots: int = 0, **options: Any) -> None:
        self.unsafe = permitted()
        kind = choose(None, unsafe=self.unsafe)
        said = str(available()) if kind != "none" else "sandbox: none; programs run as you (--unsafe-code)"
        self.notes = (said,)
        own = options.get("test_sets") or {}
        place = own.get("mbpp") if isinstance(own.get("mbpp"), str) else options.get("path")
        asked, self.shots = with_shots(shots, place)
        if "mbpp" in self.sets:
            self.sets = {**self.sets, "mbpp": asked}  # type: ignore[misc]
        elif self.data is MBPP:
            self.data = asked  # type: ignore[misc]
        elif shots:
            raise UserError.at("task.options.shots", f"{self.name} has no worked examples; remove it", value=shots)
        super().__init__(**options)

    def prepared(self, metric: Metric) -> Metric:
        if isinstance(metric, PassAtK):
            metric.use(CheckByRow(unsafe=self.unsafe))
        return metric
