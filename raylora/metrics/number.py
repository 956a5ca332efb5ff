"""Numbers, compared by value."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from raylora.errors import UserError
from raylora.metrics.base import Metric, MetricRow, check_lengths
from raylora.metrics.core.numbers import final_number, last_number
from raylora.metrics.core.references import references_of


class Number(Metric):
    r"""Share of completions whose last number equals the last number of the answer.

    Numbers are read as people write them: `$1,250.00`, `9{,}500`, `10 000`, `1.5e-3`, `-3` with any minus sign, `1/2`,
    `\frac{1}{2}`, `2^3`; a unit, a per cent sign or a currency does not count. A completion without a number is wrong.

    Args:
        mark: where the completion has this text, the number after its last one counts, on the same line, such as
            `####` for GSM8K's solutions.
        tolerance: largest difference that is still equal, relative to the answer's size.
    """

    name = "number"
    summary = "the last number of the completion equals the last one of the answer"
    key = "accuracy"

    def __init__(self, *, mark: str | None = None, tolerance: float = 0.0) -> None:
        if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0.0 <= tolerance < 1.0:
            raise UserError.at(
                "number.tolerance", f"{tolerance!r} is not allowed; give a number from 0 up to 1", value=tolerance
            )
        if mark is not None and (not isinstance(mark, str) or not mark):
            raise UserError.at("number.mark", f"{mark!r} is not allowed; give a text, such as '####'", value=mark)
        self.mark, self.tolerance = mark, tolerance

    def score(self, outputs: Sequence[str], rows: Sequence[MetricRow]) -> list[float]:
        check_lengths(outputs, rows)
        return [
            float(any(self._equal(text, answer) for answer in references_of(row)))
            for text, row in zip(outputs, rows, strict=True)
        ]

    def _equal(self, completion: str, answer: str) -> bool:
        wanted, found = last_number(answer), final_number(completion, self.mark)
        if wanted is None or found is None:
            return False
        return found == wanted or abs(found - wanted) <= Decimal(self.tolerance) * abs(wanted)
