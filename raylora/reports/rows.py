"""What `raylora.data.inspect` found, as lines of a table and as a page."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; } th, td { border-bottom: 1px solid #ddd; padding: .3rem .8rem; text-align: left;
  vertical-align: top; white-space: pre-line; }
pre { white-space: pre-wrap; background: #f6f6f6; padding: .8rem; } mark { background: #c9f0d0; }
.warning { color: #8a5300; }
"""


def facts(splits: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Rows of a table with a column for each split: a name and its values; those that nobody has are left out."""
    lines = {
        "recognised": [split["recognised"] for split in splits.values()],
        "rows": [f"{split['rows']:,}" + (" (the first ones)" if split["cut_off"] else "") for split in splits.values()],
        "can be used": [f"{split['usable']:,}" for split in splits.values()],
        "dropped": ["\n".join(map(_dropped, split["dropped"].values())) for split in splits.values()],
        "longer than max_length": [_count(split["over_max_length"]) for split in splits.values()],
        "responses over max_new_tokens": [_count(split["responses_over_max_new_tokens"]) for split in splits.values()],
        "duplicates": [_count(split["duplicates"]) for split in splits.values()],
        "different prompts": [f"{split['prompts']:,}" for split in splits.values()],
        "trained tokens": [f"{split['trained_tokens']:,}" for split in splits.values()],
    }
    for name in ("prompt", "response", "row"):
        key = f"tokens of a {name}\n(least, 25, 50, 75, 90, 99 %, most)"
        lines[key] = [" ".join(f"{count:,}" for count in split["tokens"][name]) for split in splits.values()]
    lines["rows by tokens"] = [_bars(split["histogram"]) for split in splits.values()]
    lines["answers"] = [
        "\n".join(f"{_short(answer)!r}: {count:,} ({count / split['usable']:.0%})" for answer, count in split["labels"])
        for split in splits.values()
    ]
    lines["longest rows"] = [
        "\n".join(f"{row['tokens']:,} tokens at {row['at']}" for row in split["longest"]) for split in splits.values()
    ]
    return [(name, values) for name, values in lines.items() if any(values)]


def _dropped(found: Mapping[str, object]) -> str:
    return f"{found['rows']:,} {found['why']}, the first at {found['first']}"


def _count(count: int) -> str:
    return f"{count:,}" if count else ""


def _short(text: str, limit: int = 40) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _bars(histogram: list[list[int]], width: int = 20) -> str:
    most = max((rows for _, _, rows in histogram), default=0)
    return "\n".join(
        f"{begin:>6,} to {end:>6,} {'#' * round(width * rows / most):<{width}} {rows:,}"
        for begin, end, rows in histogram
    )


def page(report: Mapping[str, Any]) -> str:
    """A page that stands alone: the table, the rows with what is trained on marked, the warnings."""
    splits = report["splits"]
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", *splits))
    body = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(f'<td>{escape(value)}</td>' for value in values)}</tr>"
        for name, values in facts(splits)
    )
    warnings = "".join(f'<p class="warning">{escape(text)}</p>' for text in report["warnings"])
    rows = "".join(f"<h3>{escape(row['at'])}</h3><pre>{_marked(row['pieces'])}</pre>" for row in report["shown"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Rows</title><style>{_STYLE}</style>'
        f"<h1>Rows</h1><table><tr>{head}</tr>{body}</table>{warnings}"
        f"<h2>As the model sees them</h2><p>Marked: what is trained on.</p>{rows}</html>\n"
    )


def _marked(pieces: list[Mapping[str, Any]]) -> str:
    return "".join(
        f"<mark>{escape(piece['text'])}</mark>" if piece["trained"] else escape(piece["text"]) for piece in pieces
    )
