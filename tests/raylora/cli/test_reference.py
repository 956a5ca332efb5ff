"""docs/cli.md says what the parsers take."""

from __future__ import annotations

from pathlib import Path

from raylora.cli import DONE, FAILED, INTERRUPTED, MISTAKE
from raylora.cli._reference import updated

PAGE = Path(__file__).resolve().parents[3] / "docs" / "cli.md"


def test_page_is_up_to_date() -> None:
    page = PAGE.read_text()
    assert updated(page) == page, "run: python -m raylora.cli._reference docs/cli.md"


def test_page_has_every_exit_status() -> None:
    listed = [line.split("|")[1].strip() for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    assert [status for status in listed if status.isdigit()] == [str(s) for s in (DONE, FAILED, MISTAKE, INTERRUPTED)]
