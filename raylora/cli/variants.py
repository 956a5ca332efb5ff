"""`raylora variants`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from raylora.cli._output import add_json, answer, print_table

HELP = "list the variants"

add_arguments = add_json


def run(options: argparse.Namespace) -> None:
    from raylora.api.listing import list_variants

    rows = list_variants()
    answer(options, rows, lambda: _show(rows))


def _show(rows: list[dict[str, Any]]) -> None:
    print_table(
        ["variant", "what it is", "paper", "trained per matrix (m x n)", "exported as"],
        [[row["name"], row["summary"], row["paper"], row["parameters"], _exported(row)] for row in rows],
    )


def _exported(row: Mapping[str, object]) -> str:
    if row["exports_lora"]:
        return "plain LoRA"
    return "merged model" if row["saves"] == "merged" else "PEFT's own form"
