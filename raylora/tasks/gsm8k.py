"""GSM8K (Cobbe et al., 2021, arXiv:2110.14168): grade-school word problems with worked solutions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from raylora.data.problems import BROKEN
from raylora.metrics import make_metric
from raylora.metrics.core.numbers import final_number
from raylora.tasks.instruct import InstructTask

if TYPE_CHECKING:
    import pyarrow as pa

MARK = "####"
HUB_ID = "openai/gsm8k"


class Gsm8kTask(InstructTask):
    """Question -> worked solution that ends in `#### number`; the score compares the final numbers.

    The response is the whole solution text. A completion is right where the number after its last `####`, or
    its last number where it has no mark, equals the reference: see `raylora.metrics.number`.

    Args:
        path: local file or folder with the columns question and answer, or a hub id (default `openai/gsm8k`).
        train, validation, test, test_sets, columns: as of the task instruct.
        config: configuration of the hub dataset.
        train_rows, test_rows: bounds on the splits; None for all rows.
        max_new_tokens: longest completion to generate, in tokens.
    """

    name = "gsm8k"
    summary = "grade-school word problems; right where the final number is"

    def __init__(
        self,
        *,
        path: str = HUB_ID,
        config: str | None = "main",
        train: Any = None,
        validation: Any = None,
        test: Any = None,
        test_sets: Mapping[str, Any] | None = None,
        columns: Mapping[str, str] | None = None,
        train_rows: int | None = None,
        test_rows: int | None = None,
        max_new_tokens: int = 160,
    ) -> None:
        super().__init__(
            path=path,
            match="number",
            config=config,
            train=train,
            validation=validation,
            test=test,
            test_sets=test_sets,
            columns=columns,
            train_rows=train_rows,
            test_rows=test_rows,
            max_new_tokens=max_new_tokens,
        )
        self._metric = make_metric("number", {"mark": MARK})
        self.default_metrics = ({"number": {"mark": MARK}},)

    @staticmethod
    def finish(table: pa.Table) -> pa.Table:
        """The answer is the final number of the solution; a row without one cannot be used."""
        import pyarrow as pa

        columns = table.select(["response", "answer", "problem"]).to_pydict()
        answers, problems = columns["answer"], columns["problem"]
        for index, solution in enumerate(columns["response"]):
            if problems[index] is None:
                number = final_number(solution, MARK)
                answers[index] = None if number is None else format(number, "f")
                problems[index] = f"{BROKEN}: no final number" if number is None else None
        for name, values in (("answer", answers), ("problem", problems)):
            table = table.set_column(table.schema.get_field_index(name), name, pa.array(values, pa.string()))
        return table
