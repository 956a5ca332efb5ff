"""GSM8K (Cobbe et al., 2021, arXiv:2110.14168): grade-school word problems with worked solutions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raylora.errors import UserError
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
        train_rows: int | None = None,
        test_rows: int | None = None,
        max_new_tokens: int = 160,
    ) -> None:
        super().__init__(
            path=path,
            match="number",
            config=config,
            train_rows=train_rows,
            test_rows=test_rows,
            max_new_tokens=max_new_tokens,
        )
        self._metric = make_metric("number", {"mark": MARK})

    def _map(self, table: pa.Table) -> pa.Table:
        import pyarrow as pa

        rows = super()._map(table)
        answers = []
        for index, solution in enumerate(rows.column("response").to_pylist()):
            number = final_number(solution, MARK)
            if number is None:
                raise UserError(
                    f"task.path: a solution of gsm8k has no final number (row {index} of a block: "
                    f"{solution[:40]!r}); end each one in '#### number', or use the task instruct"
                )
            answers.append(format(number, "f"))
        return rows.set_column(rows.schema.get_field_index("answer"), "answer", pa.array(answers, pa.string()))
