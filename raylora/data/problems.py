"""Rows that cannot be used: why, how many, and the first one of each kind by file and line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from raylora.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

BROKEN = "broken"
NO_PROMPT = "no_prompt"
NULL_RESPONSE = "null_response"
EMPTY_RESPONSE = "empty_response"
NO_USER_TURN = "no_user_turn"
NO_ASSISTANT_TURN = "no_assistant_turn"
REFUSED = "refused_by_template"
BEYOND_POSITIONS = "beyond_positions"

WORDS = {
    BROKEN: "cannot be read",
    NO_PROMPT: "have no prompt",
    NULL_RESPONSE: "have no response (null)",
    EMPTY_RESPONSE: "have an empty response",
    NO_USER_TURN: "have no user turn",
    NO_ASSISTANT_TURN: "have no assistant turn",
    REFUSED: "are refused by the model's chat template",
    BEYOND_POSITIONS: "are longer than the model's positions",
}
"""What the `problem` column may hold, in words; after a colon a problem may say more (`broken: no JSON`)."""

UNREADABLE = (BROKEN, NO_PROMPT, NO_USER_TURN, NO_ASSISTANT_TURN, REFUSED)
"""What speaks of a mistake in the file or its reading; a response that nobody gave, or a long row, does not."""

ALLOWED_SHARE = 0.05


@dataclass
class Problems:
    """Rows of a split that were dropped, by reason.

    Attributes:
        rows: rows looked at.
        counts: dropped rows by reason.
        first: for each reason the first such row, as `file:line (more)`.
    """

    rows: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, table: pa.Table) -> None:
        """Count the rows of a table with the columns `problem`, `source_file` and `source_row`, in their order."""
        import pyarrow.compute as pc

        self.rows += table.num_rows
        if table["problem"].null_count == table.num_rows:
            return
        marked = table.select(["problem", "source_file", "source_row"]).filter(pc.is_valid(table["problem"]))
        for row in marked.to_pylist():
            reason, _, more = row["problem"].partition(": ")
            self.counts[reason] = self.counts.get(reason, 0) + 1
            if reason not in self.first:
                self.first[reason] = where(row["source_file"], row["source_row"]) + (f" ({more})" if more else "")

    def merge(self, other: Problems) -> None:
        """Take in what was counted in later rows of the same split."""
        self.rows += other.rows
        for reason, count in other.counts.items():
            self.counts[reason] = self.counts.get(reason, 0) + count
        self.first = {**other.first, **self.first}

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def told(self, split: str) -> str | None:
        """One line: how many rows were dropped, why, and the first of each kind; None where all can be used."""
        if not self.total:
            return None
        kinds = "; ".join(self.reason(reason) for reason in self.counts)
        return f"{split}: {self.total} of {self.rows} rows dropped: {kinds}"

    def reason(self, reason: str) -> str:
        """`3 have an empty response, the first at train.jsonl:7`."""
        return f"{self.counts[reason]} {WORDS[reason]}, the first at {self.first[reason]}"

    def check(self, split: str, allow: bool | float = False) -> None:
        """Refuse data of which too much is broken.

        Args:
            split: its name, for the message.
            allow: True for any share, a number for a share in [0, 1]; False for the default of 5 %.

        Raises:
            UserError: the share of dropped rows is above what is allowed, or no row is left.
        """
        broken = sum(count for reason, count in self.counts.items() if reason in UNREADABLE)
        if self.total and self.total == self.rows:
            raise UserError.at(
                "task.path", f"no row of {split} can be used: {'; '.join(map(self.reason, self.counts))}"
            )
        share = float(allow) if allow is not False else ALLOWED_SHARE
        if broken > share * self.rows:
            raise UserError.at(
                "task.allow_broken",
                f"{self.told(split)}; that is more than {share:.0%}; "
                "mend the rows, or set task.allow_broken to true or to a share",
                value=allow,
            )


def where(file: str | None, row: int | None) -> str:
    """`file:row`, or what is known of it."""
    if file is None:
        return "an unknown place" if row is None else f"row {row}"
    return file if row is None else f"{file}:{row}"


def dropped(problems: Mapping[str, Problems]) -> dict[str, int]:
    """Counts for a run's record: `{"train_dropped_null_response": 3}`."""
    return {
        f"{split}_dropped_{reason}": count
        for split, found in problems.items()
        for reason, count in found.counts.items()
    }
